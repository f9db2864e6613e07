from __future__ import annotations

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.build import placement
from fieldwise.features.columns.hashing import xxh64_rows


def rows_of(rng: np.random.Generator, n: int, slots: int, distinct: int, weighted: bool):
    return placement.pack(
        rng.integers(0, distinct, (n, slots)).astype(np.int32),
        rng.integers(0, 2, n).astype(np.float32),
        rng.random(n).astype(np.float32).round(1) if weighted else None,
    )


def ordered(rows, keys):
    return rows[placement.order_of(rows, keys)[0]]


@given(n=st.integers(0, 200), slots=st.integers(1, 5), weighted=st.booleans(), seed=st.integers(0, 99))
def test_unpack_inverts_pack(n, slots, weighted, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 9, (n, slots)).astype(np.int32)
    label, weight = rng.random(n).astype(np.float32), rng.random(n).astype(np.float32) if weighted else None
    order = rng.permutation(n)
    back = placement.unpack(placement.pack(values, label, weight), order, slots)
    assert (back[0] == values[order]).all()
    assert back[0].flags.f_contiguous
    assert (back[1] == label[order]).all()
    assert weight is None or (back[2] == weight[order]).all()
    assert (back[2] is None) == (weight is None)


@settings(deadline=None)
@given(n=st.integers(1, 300), distinct=st.integers(1, 4), seed=st.integers(0, 999))
def test_order_does_not_depend_on_arrival(n, distinct, seed):
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, n, 2, distinct, False)
    shuffled = rows[rng.permutation(n)]
    a = ordered(rows, xxh64_rows(rows, 7))
    b = ordered(shuffled, xxh64_rows(shuffled, 7))
    assert (a == b).all()
    assert sorted(map(bytes, a)) == sorted(map(bytes, rows))


def test_colliding_keys_are_ordered_by_bytes():
    rng = np.random.default_rng(3)
    rows = rows_of(rng, 200, 2, 5, False)
    keys = rng.integers(0, 3, 200).astype(np.uint64)[np.unique(rows, axis=0, return_inverse=True)[1].ravel() % 200]
    order = rng.permutation(200)
    assert (ordered(rows, keys) == ordered(rows[order], keys[order])).all()


def test_identical_rows_are_spread():
    rows = np.repeat(rows_of(np.random.default_rng(0), 4, 3, 1000, False), 1000, axis=0)
    keys = xxh64_rows(rows, 1)
    order, repeated = placement.order_of(rows, keys)
    assert repeated == 3996
    placed = rows[order]
    side_by_side = (placed[1:] == placed[:-1]).all(axis=1).mean()
    assert 0.2 < side_by_side < 0.3  # four values in random order: a quarter


def test_files_share_rows_evenly_and_follow_the_keys_top():
    rows = rows_of(np.random.default_rng(1), 60000, 4, 1 << 20, True)
    keys = xxh64_rows(rows, 42)
    files = placement.file_of(keys, 7)
    counts = np.bincount(files, minlength=7)
    assert counts.sum() == 60000
    assert np.abs(counts / 60000 * 7 - 1).max() < 0.05
    assert [(int(k) >> 32) * 7 >> 32 for k in keys[:1000]] == files[:1000].tolist()
    assert int(keys[5]) == xxhash.xxh64_intdigest(bytes(rows[5]), 42)
