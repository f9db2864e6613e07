"""Do the compiled kernels of this machine compute what they should? Each runs in small against something independent.

hash     the encoder and the hash of whole columns        the xxhash package
step     forward, loss, gradient and update in one pass   plain torch in float64, autograd, the optimizer's own formula
scores   the float64 sums that every score comes from     the model itself in float64
lists    the best items of a catalog for contexts         a sort of all pairs' scores
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import xxhash

from fieldwise.features.columns.hashing import xxh64_array
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.kernels import jsonl  # noqa: F401  of what tasks call the only one that nothing here imports
from fieldwise.features.kernels.compile import ENTRIES
from fieldwise.features.kernels.strings import FIRST, MISSING
from fieldwise.training.models import settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.loss import logloss
from fieldwise.training.ranks.world import World
from fieldwise.training.scoring.diverse import top_k_diverse
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.scorer import PlainWeights, Scorer
from fieldwise.training.scoring.topk import top_k
from fieldwise.training.step.exchange import Exchange
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import Lookup
from fieldwise.training.step.optim import build_optimizer
from fieldwise.training.step.table import EmbeddingTable

BUCKETS = (1 << 20, 1_000_003)
"""A power of two and a prime: the compiled modulo has a way for each."""
_AWKWARD = ["", "a", "Zürich", "日本語", "\0", "x" * 1000, *("0123456789"[:n] * 4 for n in range(1, 10)), None]
_SHAPE = Layout(
    np.array([0, 1, 1, 2, 3], np.int32), np.array([0, 7, 7, 16, 21]), np.array([7, 9, 9, 5, 11]),
    np.array([False, True, False, False]), 32,
)  # fmt: skip
_ROWS, _RATE, _L2 = 40, 0.1, 0.01


def every_entry() -> None:
    """Compile, or load, what tasks may call: images and archives bring it."""
    for each in ENTRIES:
        each.load()


def hash_agrees() -> None:
    """ValueError where a compiled hash differs from the xxhash package."""
    for kind in (pa.string(), pa.large_string()):
        texts = pa.array(["before", *_AWKWARD], kind)[1:]  # a slice: buffers begin before the first value
        for seed in (42, 0, 2**64 - 1):
            expected = [xxhash.xxh64_intdigest((text or "").encode(), seed) for text in _AWKWARD]
            _require("hash of a column", xxh64_array(texts, seed).tolist() == expected)
        for buckets in BUCKETS:
            field = HashField(kind="hash", name="value", buckets=buckets)
            spec = FeatureSpec.assemble([field], {"value": field.fit(None)})
            slots = Encoder(spec).encode(pa.record_batch([texts], ["value"])).slots[:, 0]
            hashes = [FIRST + xxhash.xxh64_intdigest(t.encode(), 42) % buckets if t else MISSING for t in _AWKWARD]
            _require(f"encoder's hash into {buckets} buckets", slots.tolist() == hashes)


def step_agrees(kind: str) -> None:
    """ValueError where the compiled training step of a model leaves plain torch in float64."""
    draw = np.random.default_rng(1)
    model = build_model(settings_of(kind, dim=3), _SHAPE)
    table = EmbeddingTable(model.rows, model.width, seed=1, scale=0.3)
    table.weight += 0.1
    optimizer, exchange = build_optimizer("adagrad", table), Exchange(World(), table.rows)
    optimizer.state["sum"].fill_(0.01)  # from nothing, the first step would tell of the gradient's sign alone
    found = Lookup(_SHAPE)(_slots(draw))
    label, weight = draw.integers(0, 2, _ROWS).astype(np.float32), draw.random(_ROWS, np.float32)
    total = float(weight.sum())

    plain = build_model(settings_of(kind, dim=3), _SHAPE, fused=False).double()
    rows = table.weight[found.ids].double().requires_grad_()
    logits = plain(rows, found.index, found.factor.double())
    expected = logloss(logits, torch.from_numpy(label).double(), torch.from_numpy(weight).double(), total)
    expected.backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    state = {name: matrix[found.ids].double() for name, matrix in optimizer.state.items()}
    updated = optimizer.update(rows.detach(), state, rows.grad, _RATE, _L2)

    step = FusedStep(model, table, optimizer, exchange)
    loss, _, scores = step(found, exchange.union(found, _ROWS, total), label, weight, _RATE, _L2)
    _require(f"{kind} step's loss", np.isclose(loss, expected.item(), rtol=1e-5))
    _require(f"{kind} step's logits", np.allclose(scores, logits.detach(), rtol=1e-4, atol=1e-5))
    _require(f"{kind} step's update", np.allclose(table.weight[found.ids], updated, rtol=1e-4, atol=1e-4))


def scores_agree(kind: str = "fm") -> None:
    """ValueError where the compiled scores of a model leave the model in float64."""
    draw = np.random.default_rng(2)
    model = build_model(settings_of(kind, dim=3), _SHAPE, fused=False)
    table = draw.standard_normal((model.rows, model.width)).astype(np.float32)
    slots = _slots(draw)
    found = Lookup(_SHAPE)(slots)
    with model.double().evaluating():
        expected = model(torch.from_numpy(table[found.ids].astype(np.float64)), found.index, found.factor.double())
    bias = {"bias": np.zeros(1, np.float32)}
    scorer = Scorer(PlainWeights(model.settings, _SHAPE, table, bias))
    _require(f"{kind} scores", np.allclose(scorer.logits(slots), expected, rtol=1e-5, atol=1e-5))


def lists_agree(kind: str) -> None:
    """ValueError where the compiled lists of a model leave a sort of all pairs."""
    draw = np.random.default_rng(3)
    model = build_model(settings_of(kind, dim=3, pair_buckets=64), _SHAPE, fused=False)
    table = draw.standard_normal((model.rows, model.width)).astype(np.float32)
    scorer = Scorer(PlainWeights(model.settings, _SHAPE, table, {"bias": np.zeros(1, np.float32)}))
    of_item, contexts, items = np.array([False, False, True, True]), _slots(draw), _slots(draw)
    found = top_k(scorer, Catalog.of(scorer, of_item, items), contexts, 3)
    pairs = np.where(of_item[_SHAPE.field_of_slot], items[None], contexts[:, None]).reshape(-1, _SHAPE.slots)
    logits = scorer.logits(np.asfortranarray(pairs)).reshape(len(contexts), len(items))
    best = np.argsort(-logits, axis=1, kind="stable")[:, :3]
    _require(f"{kind} lists", np.array_equal(found.item.reshape(-1, 3), best))
    alike = top_k_diverse(scorer, Catalog.of(scorer, of_item, items), contexts, 3, among=6, penalty=0.0)
    _require(f"{kind} lists whose items differ by nothing", np.array_equal(alike.item.reshape(-1, 3), best))


def _slots(draw: np.random.Generator) -> npt.NDArray[np.int32]:
    """Rows with padding and missing values among them."""
    return np.asfortranarray(draw.integers(0, _SHAPE.size_of_slot, (_ROWS, _SHAPE.slots)).astype(np.int32))


def _require(what: str, agrees: bool | np.bool_) -> None:
    if not agrees:
        raise ValueError(f"wrong on this machine: the compiled {what}. Trust no result of it")
