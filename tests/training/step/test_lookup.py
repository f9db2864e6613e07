"""Distinct rows of a batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.errors import IntegrityError
from fieldwise.training.models.compiled import is_unit
from fieldwise.training.models.layout import Layout, slot_pairs
from fieldwise.training.step.lookup import Lookup, lookup
from tests.training import oracle


@st.composite
def batches(draw: st.DrawFn) -> tuple[Layout, np.ndarray]:
    """Any layout of up to 5 fields of up to 3 slots, and a batch with padding in it."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    sizes = [draw(st.integers(2, 9)) for _ in counts]
    offsets = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    fields = np.repeat(np.arange(len(counts)), counts)
    mean = np.array([draw(st.booleans()) for _ in counts])
    layout = Layout(fields.astype(np.int32), offsets[fields], np.array(sizes)[fields], mean, sum(sizes))
    rows = draw(st.integers(0, 7))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    low = draw(st.integers(0, 1))
    return layout, np.stack([rng.integers(low, sizes[f], rows) for f in fields], 1).astype(np.int32)


@settings(max_examples=80, deadline=None)
@given(batches(), st.sampled_from([0, 7, 1000]), st.booleans())
def test_lookup_equals_the_loops(example: tuple[Layout, np.ndarray], buckets: int, fortran: bool) -> None:
    layout, slots = example
    found = Lookup(layout, buckets)(np.asfortranarray(slots) if fortran else slots)
    ids, index, factor = (tensor.numpy() for tensor in (found.ids, found.index, found.factor))
    first, second = slot_pairs(layout)
    columns = layout.slots + (len(first) if buckets else 0)
    assert index.shape == factor.shape == (len(slots), columns)
    seen: list[int] = []
    for b, row in enumerate(slots):
        factors = oracle.factors(layout, row)
        rows = [int(layout.offset_of_slot[s] + row[s]) for s in range(layout.slots)]
        if buckets:
            factors += [factors[s] * factors[t] for s, t in zip(first, second, strict=True)]
            rows += [oracle.pair_row(layout, rows[s], rows[t], buckets) for s, t in zip(first, second, strict=True)]
        np.testing.assert_allclose(factor[b], factors, rtol=1e-6)
        kept = [column for column in range(columns) if factors[column]]
        assert [int(ids[index[b, column]]) for column in kept] == [rows[column] for column in kept]
        seen += [rows[column] for column in kept]
    if seen:
        assert sorted(ids.tolist()) == sorted(set(seen))
    counts = np.array([seen.count(int(row)) for row in ids], int)
    assert ((found.repeat.numpy() >= 0) == (counts > 1)).all()
    numbers = found.repeat.numpy()[counts > 1]
    assert numbers.tolist() == list(range(len(numbers)))
    assert not len(slots) or int(index.max()) < len(ids)


def test_a_lookup_leaves_no_trace() -> None:
    layout = Layout.single([10, 20, 30])
    once = Lookup(layout, 50)
    rng = np.random.default_rng(0)
    for _ in range(5):
        slots = np.stack([rng.integers(1, size, 40) for size in (10, 20, 30)], 1).astype(np.int32)
        again, fresh = once(slots), lookup(layout, slots, 50)
        assert again.ids.tolist() == fresh.ids.tolist()
        assert again.index.tolist() == fresh.index.tolist()
        assert again.repeat.tolist() == fresh.repeat.tolist()


def test_factors_of_one_cost_nothing_and_say_so() -> None:
    layout = Layout.single([4, 4])
    assert is_unit(lookup(layout, np.ones((3, 2), np.int32)).factor)
    assert not is_unit(lookup(layout, np.array([[1, 1], [1, 0]], np.int32)).factor)


@pytest.mark.parametrize("stranger", [-1, 5, 2**31 - 1, -(2**31)])
def test_a_stranger_is_refused_by_name(stranger: int) -> None:
    slots = np.ones((4, 3), np.int32)
    slots[2, 1] = stranger
    with pytest.raises(IntegrityError, match=rf"row 2, slot 1 \(field 1\): expected .* in \[0, 5\), found {stranger}"):
        lookup(Layout.single([9, 5, 7]), slots)


def test_slots_of_another_spec_are_refused() -> None:
    with pytest.raises(IntegrityError, match="expected 3 slots, found 2"):
        lookup(Layout.single([9, 5, 7]), np.ones((4, 2), np.int32))


def test_pair_buckets_are_pinned() -> None:
    """Bundles depend on these numbers."""
    layout = Layout.single([100, 100])
    found = lookup(layout, np.array([[1, 1], [1, 2], [2, 1], [99, 99]], np.int32), 1 << 20)
    assert (found.ids[found.index[:, 2].long()] - layout.rows).tolist() == [192786, 681223, 639559, 54051]
