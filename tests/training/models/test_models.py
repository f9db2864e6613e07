"""One suite for every registered model: a new model joins it by being registered."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from fieldwise.features.errors import ConfigError
from fieldwise.training.models import MODELS, settings_of
from fieldwise.training.models.base import Model, build_model
from fieldwise.training.models.layout import Layout
from fieldwise.training.models.loss import logloss
from fieldwise.training.ranks.world import World
from fieldwise.training.step.exchange import Exchange
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import Lookup
from fieldwise.training.step.loss import Loss
from fieldwise.training.step.optim import build_optimizer
from fieldwise.training.step.table import EmbeddingTable
from tests.training import oracle

KINDS = sorted(MODELS)
BUCKETS, DIM = 61, 3


def multi_valued() -> Layout:
    """Fields of 1, 3 (mean), 1 and 2 (sum) slots."""
    sizes, fields = [5, 9, 7, 6], np.array([0, 1, 1, 1, 2, 3, 3], np.int32)
    offsets = np.array([0, 5, 14, 21])
    return Layout(fields, offsets[fields], np.array(sizes)[fields], np.array([False, True, False, False]), 27)


def random_slots(layout: Layout, rows: int, seed: int, padding: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    slots = np.stack([rng.integers(1, size, rows) for size in layout.size_of_slot], 1).astype(np.int32)
    slots[rng.random(slots.shape) < padding] = 0
    return np.asfortranarray(slots)


def filled(model: Model, seed: int) -> torch.Tensor:
    """A random table, and random dense parameters in ``model``."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=generator)
    return torch.randn(model.rows, model.width, generator=generator)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", [Layout.single([4, 6, 5, 9, 7]), multi_valued()], ids=["single", "multi"])
def test_logits_equal_the_loops(kind: str, layout: Layout, fused: bool) -> None:
    model = build_model(settings_of(kind, dim=DIM, pair_buckets=BUCKETS), layout, fused=fused)
    table = filled(model, seed=1)
    slots = random_slots(layout, 33, seed=2, padding=0.2)
    found = Lookup(layout, model.pair_buckets)(slots)
    logits = model(table[found.ids], found.index, found.factor)
    dense = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    for row, z in zip(slots, logits.tolist(), strict=True):
        expected, size = oracle.logit(
            kind, layout, table.double().numpy(), model.bias.item(), row, dim=DIM, buckets=BUCKETS,
            dense=dense,
        )  # fmt: skip
        assert z == pytest.approx(expected, abs=1e-6 * size)


@pytest.mark.parametrize(
    ("kind", "weight", "expected"),
    # all weights w, bias w, 5 fields, k = 3: 6 w, then POLY2 10 pairs of w, FM, FwFM (r = w) and FFM 10 pairs of 3 w^2
    [
        ("lr", 1, 6), ("poly2", 1, 6 + 10), ("fm", 1, 6 + 30), ("fwfm", 1, 6 + 30), ("ffm", 1, 6 + 30),
        # layers of 64 and 32 over 15 numbers: 15 + 1, 64 * 16 + 1, 32 * 1025 + 1
        ("deepfm", 1, 6 + 30 + 32 * (64 * 16 + 1) + 1),
        ("lr", 2, 12), ("poly2", 2, 12 + 20), ("fm", 2, 12 + 120), ("fwfm", 2, 12 + 240), ("ffm", 2, 12 + 120),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fused", [False, True])
def test_closed_form(kind: str, weight: float, expected: float, fused: bool) -> None:
    layout = Layout.single([4, 6, 5, 9, 7])
    model = build_model(settings_of(kind, dim=3, pair_buckets=50), layout, fused=fused)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, weight)
    found = Lookup(layout, model.pair_buckets)(random_slots(layout, 4, seed=0))
    rows = torch.full((len(found.ids), model.width), float(weight))
    assert model(rows, found.index, found.factor).tolist() == [expected] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_equals_its_rows_one_by_one(kind: str) -> None:
    layout = multi_valued()
    model = build_model(settings_of(kind, dim=DIM, pair_buckets=BUCKETS), layout)
    table, slots, lookup = (
        filled(model, seed=3),
        random_slots(layout, 19, seed=4, padding=0.3),
        Lookup(layout, model.pair_buckets),
    )
    whole = lookup(slots)
    together = model(table[whole.ids], whole.index, whole.factor)
    for row in range(len(slots)):
        one = lookup(slots[row : row + 1])
        assert model(table[one.ids], one.index, one.factor).item() == pytest.approx(
            together[row].item(), rel=1e-5, abs=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_rows_and_a_batch_of_padding(kind: str) -> None:
    layout = multi_valued()
    model = build_model(settings_of(kind, dim=DIM, pair_buckets=BUCKETS), layout)
    table = filled(model, seed=5)
    for count in (0, 3):
        found = Lookup(layout, model.pair_buckets)(np.zeros((count, layout.slots), np.int32))
        rows = table[found.ids].requires_grad_()
        logits = model(rows, found.index, found.factor)
        logits.sum().backward()
        nothing = model.interaction(rows.new_zeros(count, layout.fields, model.width - 1)) if model.kind.latent else 0
        assert logits.tolist() == (model.bias + torch.as_tensor(nothing).expand(count)).tolist()
        assert rows.grad is not None
        assert not rows.grad.any()


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_step_leads_to_the_same_weights(kind: str) -> None:
    """Reference, autograd over kernels, one-pass loss and the fused step, weighted, for three steps."""
    layout = multi_valued()
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 200).astype(np.float32))
    weight = torch.from_numpy(np.random.default_rng(1).random(200).astype(np.float32))
    ends = {}
    for way in ("reference", "autograd", "loss", "step"):
        torch.manual_seed(0)
        model = build_model(settings_of(kind, dim=DIM, pair_buckets=BUCKETS), layout, fused=way != "reference")
        table = EmbeddingTable(model.rows, model.width, seed=1, scale=0.3)
        optimizer, lookup, losses = build_optimizer("adagrad", table), Lookup(layout, model.pair_buckets), []
        if way == "step" and not FusedStep.serves(model, table.weight.device):
            continue
        exchange = Exchange(World(), table.rows)
        step = FusedStep(model, table, optimizer, exchange) if way == "step" else None
        for number in range(3):
            found = lookup(random_slots(layout, 200, seed=number, padding=0.2))
            total = float(weight.sum())
            if step is not None:
                loss, _, _ = step(found, exchange.union(found, 200, total), label.numpy(), weight.numpy(), 0.1, 0.01)
            else:
                rows = table.gather(found.ids)
                if way == "loss":
                    value, _ = Loss(model)(rows, found.index, found.factor, label, weight, total)
                else:
                    value = logloss(model(rows, found.index, found.factor), label, weight, total)
                value.backward()
                assert rows.grad is not None
                optimizer.step(table, found.ids, rows.grad, 0.1, 0.01)
                loss = value.item()
            losses.append(loss)
            assert model.bias.grad is not None
            losses.append(model.bias.grad.item())
            model.bias.grad = None
        ends[way] = (losses, table.weight.numpy())
    expected = ends.pop("reference")
    for losses, table_after in ends.values():
        np.testing.assert_allclose(losses, expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(table_after, expected[1], atol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_do_not_depend_on_threads_and_a_seed_repeats(kind: str) -> None:
    layout = multi_valued()
    label = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 500).astype(np.float32))

    def run(threads: int) -> tuple[list[float], bytes]:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        model = build_model(settings_of(kind, dim=DIM, pair_buckets=BUCKETS), layout)
        table = EmbeddingTable(model.rows, model.width, seed=1, scale=0.3)
        optimizer, lookup, module = build_optimizer("adam", table), Lookup(layout, model.pair_buckets), Loss(model)
        first: list[float] = []
        for number in range(3):
            found = lookup(random_slots(layout, 500, seed=number))
            rows = table.gather(found.ids)
            loss, logits = module(rows, found.index, found.factor, label, None, 500.0)
            first = first or logits.tolist()
            loss.backward()
            assert rows.grad is not None
            optimizer.step(table, found.ids, rows.grad, 0.1, 0.01)
        torch.set_num_threads(before)
        return first, table.weight.numpy().tobytes()

    assert run(2) == run(2)
    if MODELS[kind].score is not None:
        assert run(1)[0] == run(3)[0]


def _trained(
    kind: str, slots: np.ndarray, label: np.ndarray, *, dim: int = 4, steps: int = 100
) -> tuple[float, object]:
    """Full-batch training on single-valued slots: final logloss, and a function from slots to logits."""
    layout = Layout.single([int(column.max()) + 1 for column in slots.T])
    model = build_model(settings_of(kind, dim=dim, pair_buckets=1 << 16), layout)
    table = EmbeddingTable(model.rows, model.width, seed=3, scale=model.init_scale or 0.0)
    optimizer, lookup, module = build_optimizer("adagrad", table), Lookup(layout, model.pair_buckets), Loss(model)
    dense = torch.optim.Adagrad(model.parameters(), lr=0.1)
    loss = torch.tensor(math.inf)
    for _ in range(steps):
        found = lookup(slots)
        rows = table.gather(found.ids)
        loss, _ = module(rows, found.index, found.factor, torch.from_numpy(label), None, float(len(label)))
        dense.zero_grad()
        loss.backward()
        assert rows.grad is not None
        optimizer.step(table, found.ids, rows.grad, 0.3)
        dense.step()

    def logits(of: np.ndarray) -> np.ndarray:
        found = lookup(of)
        with torch.no_grad():
            return model(table.weight[found.ids], found.index, found.factor).numpy()

    return loss.item(), logits


def test_a_crossing_is_learned_by_all_but_lr() -> None:
    """y = (a == b) for two binary fields: no sum of two weights says so."""
    slots = np.array([[a, b] for a in (1, 2) for b in (1, 2)] * 8, np.int32)
    label = (slots[:, 0] == slots[:, 1]).astype(np.float32)
    loss = {kind: _trained(kind, slots, label)[0] for kind in KINDS}
    assert loss.pop("lr") == pytest.approx(math.log(2), abs=1e-3)
    assert max(loss.values()) < 0.1


def test_latent_vectors_score_pairs_never_seen_together() -> None:
    """Sign structure y = (g(a) == g(b)), one pair per value held out: POLY2 has no weight for it, FM and FFM do."""
    pairs = np.array([[a, b] for a in range(1, 13) for b in range(1, 13)], np.int32)
    truth = (pairs[:, 0] % 2 == pairs[:, 1] % 2).astype(np.float32)
    held = (pairs[:, 0] + pairs[:, 1]) % 12 < 2
    right = {}
    for kind in KINDS:
        _, logits = _trained(kind, pairs[~held], truth[~held])
        assert callable(logits)
        right[kind] = float(((logits(pairs[held]) > 0) == truth[held]).mean())
    assert right["poly2"] < 0.7
    assert right["lr"] < 0.7
    assert min(right[kind] for kind in ("fm", "ffm", "fwfm")) > 0.95


def test_ffm_fits_what_depends_on_the_partners_field() -> None:
    """Field a agrees with b where x = y and disagrees with c: with k = 1, one number per value cannot be both ways.

    y is 1 where s_a s_b - s_a s_c + s_b s_c > 0, with s the sign of a value. FM with k = 1 has one number per value,
    whose products have the signs of p_a p_b, p_a p_c, p_b p_c: their product is positive, the planted one is negative.
    """
    values = np.array([[a, b, c] for a in (1, 2) for b in (1, 2) for c in (1, 2)] * 4, np.int32)
    a, b, c = (values * 2 - 3).T
    label = (a * b - a * c + b * c > 0).astype(np.float32)
    fm, _ = _trained("fm", values, label, dim=1, steps=200)
    ffm, _ = _trained("ffm", values, label, dim=1, steps=200)
    assert ffm < 0.1
    assert fm > 3 * ffm


def test_unknown_kind_and_missing_sizes_are_refused() -> None:
    layout = Layout.single([4, 5])
    with pytest.raises(ConfigError, match=r"expected one of .*ffm.*, found 'gbdt'"):
        build_model(settings_of("gbdt"), layout)
    with pytest.raises(ConfigError, match=r"model\.dim: expected a positive integer, found 0"):
        build_model(settings_of("fm"), layout)
    with pytest.raises(ConfigError, match=r"model\.pair_buckets: expected a positive integer"):
        build_model(settings_of("poly2", dim=4), layout)


def test_shared_fields_share_their_rows() -> None:
    """Two fields of one index space read the same table row."""
    layout = dataclasses.replace(
        Layout.single([5, 5]), offset_of_slot=np.zeros(2, np.int64), size_of_slot=np.array([5, 5]), rows=5
    )
    found = Lookup(layout)(np.array([[3, 3]], np.int32))
    assert found.ids.tolist() == [3]
    assert found.index.tolist() == [[0, 0]]
    assert found.repeat.tolist() == [0]
