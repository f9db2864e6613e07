"""From one spec to the next: every row starts from the row that meant the same, whatever their indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.fitting import fit_spec
from fieldwise.features.fields.moves import NOWHERE, moves, origins, table
from fieldwise.features.fields.spec import FeatureSpec
from tests.tallies import tally

FIELDS = [
    {"name": "item", "kind": "vocabulary", "min_count": 1},
    {"name": "liked", "kind": "vocabulary", "separator": "|", "max_values": 2, "shares": "item"},
    {"name": "user", "kind": "hash", "buckets": 8},
    {"name": "price", "kind": "number", "quantiles": 4},
    {"name": "hour", "kind": "time", "part": "hour", "of": {"column": "at", "earliest": "1970-01-01"}},
]


def fitted(items: str, prices: list[float], fields: list[dict[str, Any]] = FIELDS) -> FeatureSpec:
    rows = pa.table({
        "item": list(items), "liked": [""] * len(items), "user": ["u"] * len(items),
        "price": pa.array((prices * len(items))[: len(items)], pa.float64()), "at": ["0"] * len(items),
    })  # fmt: skip
    config = FeatureConfig.model_validate({"source": {"path": "x"}, "label": "y", "fields": fields})
    return fit_spec(config.fields, tally(config.fields, rows))


def row(spec: FeatureSpec, field: str, local: int) -> int:
    return spec[field].offset + local


def test_values_are_found_again_wherever_they_stand() -> None:
    old, new = fitted("aaaabbbccd", [1, 2, 3, 4]), fitted("eeeeeccccaab", [1, 2, 3, 4])
    at = origins(old, new)
    assert len(at) == new.rows
    # old order a b c d, new order e c a b: e is new and read as unseen before
    assert at[row(new, "item", 3) : row(new, "item", 7)].tolist() == [row(old, "item", i) for i in (2, 5, 3, 4)]
    assert at[row(new, "item", 0) : row(new, "item", 3)].tolist() == [row(old, "item", i) for i in (0, 1, 2)]
    assert (
        at[row(new, "user", 0) : row(new, "user", 11)] == np.arange(row(old, "user", 0), row(old, "user", 11))
    ).all()
    assert new["liked"].offset == new["item"].offset  # shared rows move once
    told = moves(old, new)
    assert set(told) == {"item", "user", "price", "hour"}
    item = told["item"]
    assert (item.before, item.after, item.kept, item.moved, item.new, item.dropped) == (4, 4, 3, 3, 1, 1)
    assert (told["user"].kept, told["user"].moved, told["hour"].kept) == (8, 0, 24)
    assert table(told)[1].split() == ["item", "4", "4", "3", "3", "1", "1"]


def test_a_row_is_read_by_the_new_spec_as_the_old_one_read_it() -> None:
    """The rows a batch touches under the new spec come from those it touched under the old; only d was dropped."""
    old, new = fitted("aaaabbbccd", [1, 2, 3, 4]), fitted("eeeeeccccaab", [1, 2, 3, 4])
    batch = pa.table({
        "item": ["a", "b", "c", "e", "x", None], "liked": ["a|e", "c", "", "b|a", "e|x", "c|b"], "user": list("uvwxyz"),
        "price": [1.0, 2.0, 3.0, 4.0, -5.0, None], "at": ["0", "7200", "99999", "0", "0", "0"],
    })  # fmt: skip
    at = origins(old, new)
    before, after = (Encoder(spec).encode(batch).slots for spec in (old, new))
    for field in new.fields:
        for slot in range(field.first_slot, field.first_slot + field.slots):
            assert (at[field.offset + after[:, slot]] == old[field.name].offset + before[:, slot]).all(), field.name


def test_bins_come_from_the_bin_that_held_their_middle() -> None:
    old, new = fitted("a" * 8, [1, 2, 3, 4, 5, 6, 7, 8]), fitted("a" * 8, [1, 2, 3, 4, 15, 16, 17, 18])
    assert (old["price"].edges, new["price"].edges) == ((3.0, 5.0, 7.0), (3.0, 15.0, 17.0))
    at = origins(old, new)[row(new, "price", 3) : row(new, "price", 7)] - old["price"].offset
    assert at.tolist() == [3, 6, 6, 6]  # middles 2.5, 9, 16, 17.5 lay in (-inf, 3), [7, inf), ...
    price = moves(old, new)["price"]
    assert (price.before, price.after, price.kept, price.new, price.dropped) == (4, 4, 1, 3, 3)


@pytest.mark.parametrize(("buckets", "kept"), [(16, True), (24, True), (12, False), (4, False)])
def test_buckets_are_divided_or_start_afresh(buckets: int, kept: bool) -> None:
    old = fitted("ab", [1, 2])
    new = fitted("ab", [1, 2], [*FIELDS[:2], {"name": "user", "kind": "hash", "buckets": buckets}, *FIELDS[3:]])
    at = origins(old, new)[row(new, "user", 3) : row(new, "user", 3 + buckets)]
    if not kept:
        assert (at == NOWHERE).all()
        return
    names = pa.table({"item": ["a"] * 300, "liked": [""] * 300, "user": [f"u{i}" for i in range(300)],
                      "price": [1.0] * 300, "at": ["0"] * 300})  # fmt: skip
    slot = old["user"].first_slot
    before, after = (Encoder(spec).encode(names).slots[:, slot] for spec in (old, new))
    assert (at[after - 3] == old["user"].offset + before).all()


def test_what_was_not_there_or_of_another_kind_starts_afresh() -> None:
    old = fitted("ab", [1, 2])
    changed = [FIELDS[0], *FIELDS[2:4], {"name": "hour", "kind": "time", "part": "weekday", "of": FIELDS[4]["of"]},
               {"name": "liked", "kind": "hash", "buckets": 4}]  # fmt: skip
    new = fitted("ab", [1, 2], changed)
    at = origins(old, new)
    assert (at[row(new, "liked", 0) :] == NOWHERE).all()
    assert at[row(new, "hour", 0) : row(new, "hour", 3)].tolist() == [row(old, "hour", i) for i in range(3)]
    assert (at[row(new, "hour", 3) : row(new, "hour", 10)] == NOWHERE).all()
