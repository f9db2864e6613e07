"""Lists of one file's contexts, computed inside tasks: by factors, or pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.fields.encoder import encoder_of
from fieldwise.pipelines.catalog.tasks import Lists, Model, Pairs
from fieldwise.training.kernels.select import Lists as Positions
from fieldwise.training.scoring.diverse import top_k_diverse
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.quotas import top_k_at_least

IDS, RAW, CATEGORY = "ids.arrow", "items.arrow", "__category"
"""Files beside the catalog's arrays: item ids in order; the items' raw columns and their categories."""


def factored_lists(model: Model, payloads: pa.ChunkedArray, exclude: Pairs, only: Pairs | None) -> Lists:
    """Payloads are the contexts' slots."""
    scorer, catalog = model.shipped.scorer(), model.shipped.once("catalog", lambda: Catalog.load(model.shipped.path))
    slots = np.frombuffer(b"".join(payloads.to_pylist()), np.int32).reshape(-1, model.shipped.layout.slots)
    rules: dict[str, Any] = {
        "exclude": Positions(*exclude),
        "only": None if only is None else Positions(*only),
        "per_category": model.cap,
    }
    if model.diversity is not None:
        among = model.diversity.among or 3 * model.k
        ranking = top_k_diverse(
            scorer, catalog, slots, model.k, among=among, penalty=model.diversity.penalty, **rules
        )  # fmt: skip
    else:
        of = {n: model.shipped.once(f"category {n}", partial(catalog.of_category, n)) for n, _ in model.least}
        ranking = top_k_at_least(scorer, catalog, slots, model.k, [(of[n], many) for n, many in model.least], **rules)
    return Lists(ranking.start, ranking.item, scorer.calibrated(ranking.logit), _ids(model))


def pairwise_lists(model: Model, payloads: pa.ChunkedArray, exclude: Pairs, only: Pairs | None) -> Lists:
    """Payloads are the contexts' raw columns; every pair is encoded and scored by the model."""
    assert model.spec is not None
    scorer, encoder = model.shipped.scorer(), encoder_of(model.spec)
    raw: pa.Table = model.shipped.once(RAW, lambda: _read(model, RAW))
    starts, items, logits = [0], [], []
    everything = np.arange(raw.num_rows)
    for c, packed in enumerate(payloads.to_pylist()):
        allowed = everything if only is None else only.item[only.start[c] : only.start[c + 1]]
        allowed = np.setdiff1d(allowed, exclude.item[exclude.start[c] : exclude.start[c + 1]], assume_unique=True)
        context = pa.ipc.open_stream(packed).read_all()
        mine, same = raw.take(pa.array(allowed)), pa.array(np.zeros(len(allowed), np.int64))
        columns = [mine[n] if n in mine.column_names else context[n].take(same) for n in model.spec.raw_columns]
        slots = encoder.encode(pa.Table.from_arrays(columns, list(model.spec.raw_columns))).slots
        found = scorer.logits(slots)
        best = _best(allowed, found, mine[CATEGORY].to_numpy(), model.k, model.cap, dict(model.least))
        items.append(allowed[best])
        logits.append(found[best])
        starts.append(starts[-1] + len(best))
    flat = np.concatenate([np.empty(0, np.float32), *logits])
    return Lists(
        np.array(starts), np.concatenate([np.empty(0, np.int64), *items]), scorer.calibrated(flat), _ids(model)
    )


def _best(
    items: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], category: npt.NDArray[np.int32], k: int, cap: int,
    least: Mapping[int, int],
) -> npt.NDArray[np.intp]:  # fmt: skip
    """Places of the best k by (logit descending, item ascending), at most ``cap`` of a category (0: no limit), and the
    ``least`` of some, whatever else is better."""
    order = np.lexsort((items, -logits))
    if not cap and not least:
        return order[:k]
    own = category[order]
    by_category = np.argsort(own, kind="stable")
    first = np.searchsorted(own[by_category], own[by_category])
    nth = np.empty(len(own), np.int64)
    nth[by_category] = np.arange(len(own)) - first
    counts = np.zeros(int(category.max(initial=0)) + 1, np.int64)
    for kind, count in least.items():
        counts[kind : kind + 1] = count  # none of a category that nothing may be of
    due = nth < counts[own]
    may = nth < (cap or len(own))
    return order[due | (may & ~due & (np.cumsum(may & ~due) <= k - due.sum()))]


def _ids(model: Model) -> pa.Array:
    return model.shipped.once(IDS, lambda: _read(model, IDS)["id"].combine_chunks())


def _read(model: Model, name: str) -> pa.Table:
    with pa.memory_map(str(model.shipped.path(name))) as file:
        return pa.ipc.open_file(file).read_all()
