"""The plan's invariants, for any files, batch size, streams and ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldwise.features.errors import ConfigError
from fieldwise.training.data.plan import Plan, Segment

FILES = st.lists(st.integers(0, 60), min_size=1, max_size=12)
STREAMS = st.integers(1, 9)
PER_STREAM = st.integers(1, 7)
SEED = st.integers(0, 2**63)


def rows_of(plan: Plan, segments: list[Segment]) -> list[tuple[int, int]]:
    """(file, row in it) in the order of training."""
    return [
        (part.file, int(row))
        for part in segments
        for row in plan.permutation(part.file)[part.first : part.first + part.rows]
    ]


def make(files: list[int], streams: int, per_stream: int, seed: int = 3, epoch: int = 0, shuffle: bool = True) -> Plan:
    return Plan(files, batch_size=streams * per_stream, streams=streams, seed=seed, epoch=epoch, shuffle=shuffle)


@settings(deadline=None)
@given(FILES, STREAMS, PER_STREAM, SEED)
def test_every_row_once_in_full_batches_but_the_last(
    files: list[int], streams: int, per_stream: int, seed: int
) -> None:
    plan = make(files, streams, per_stream, seed)
    steps = [rows_of(plan, plan.step(step, range(streams))) for step in range(plan.steps)]
    rows = [row for step in steps for row in step]
    assert sorted(rows) == [(file, row) for file, count in enumerate(files) for row in range(count)]
    sizes = [len(step) for step in steps]
    # streams differ by at most one row: when the longest has one row left for the last step, others end a step sooner
    assert all(size == streams * per_stream for size in sizes[:-2])
    assert all(size >= streams * per_stream - streams for size in sizes[:-1])
    assert not sizes or 0 < sizes[-1] <= streams * per_stream
    assert plan.step(plan.steps, range(streams)) == []


@settings(deadline=None)
@given(FILES, STREAMS, PER_STREAM, st.data())
def test_ranks_share_the_streams_of_a_step_whatever_their_number(
    files: list[int], streams: int, per_stream: int, data: st.DataObject
) -> None:
    world = data.draw(st.integers(1, streams))
    plan = make(files, streams, per_stream)
    shares = [plan.streams_of(rank, world) for rank in range(world)]
    assert sorted(stream for share in shares for stream in share) == list(range(streams))
    for step in range(plan.steps):
        whole = rows_of(plan, plan.step(step, range(streams)))
        assert sorted(row for share in shares for row in rows_of(plan, plan.step(step, share))) == sorted(whole)


@settings(deadline=None)
@given(FILES, STREAMS, PER_STREAM, st.data())
def test_streams_are_equal_and_reads_are_their_steps_in_order(
    files: list[int], streams: int, per_stream: int, data: st.DataObject
) -> None:
    plan = make(files, streams, per_stream)
    start = data.draw(st.integers(0, plan.steps))
    counts = [sum(part.rows for part in plan.reads([stream])) for stream in range(streams)]
    assert max(counts) - min(counts) <= 1
    for stream in range(streams):
        by_step = [row for step in range(start, plan.steps) for row in rows_of(plan, plan.step(step, [stream]))]
        assert rows_of(plan, plan.reads([stream], start)) == by_step


@settings(deadline=None)
@given(FILES, STREAMS, PER_STREAM)
def test_files_are_read_in_the_order_of_first_need(files: list[int], streams: int, per_stream: int) -> None:
    plan = make(files, streams, per_stream)
    order = list(dict.fromkeys(part.file for part in plan.reads(range(streams))))
    needed = [part.file for step in range(plan.steps) for part in plan.step(step, range(streams))]
    assert order == list(dict.fromkeys(needed))


def test_epochs_and_seeds_give_unrelated_orders() -> None:
    files = [500] * 20
    starts = np.concatenate([[0], np.cumsum(files)])

    def places(seed: int, epoch: int) -> np.ndarray:
        plan = make(files, 8, 16, seed, epoch)
        order = [starts[file] + row for file, row in rows_of(plan, plan.reads(range(8)))]
        place = np.empty(len(order))
        place[order] = np.arange(len(order))
        return place

    one = places(1, 0)
    assert np.array_equal(one, places(1, 0))
    for other in (places(1, 1), places(2, 0)):
        # ranks of whole files move together, so 20 files are what averages out: 3 standard errors
        assert abs(np.corrcoef(one, other)[0, 1]) < 3 / np.sqrt(20)
        inside = [np.corrcoef(one[a : a + 500], other[a : a + 500])[0, 1] for a in starts[:-1]]
        assert abs(np.mean(inside)) < 3 / np.sqrt(10_000)


def test_without_shuffling_rows_come_as_they_lie() -> None:
    plan = make([3, 0, 4], 1, 5, shuffle=False)
    assert rows_of(plan, plan.reads([0])) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (2, 2), (2, 3)]


def test_no_files_no_steps() -> None:
    assert Plan([], batch_size=8).steps == 0
    assert make([0, 0], 2, 1).steps == 0


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"expected a multiple of 8 streams, found 100\. The nearest is 96"):
        Plan([10], batch_size=100)
    with pytest.raises(ConfigError, match="at least one stream for each of 9 ranks"):
        Plan([10], batch_size=8).streams_of(0, 9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400))
def test_the_order_inside_a_file_is_a_permutation(count: int) -> None:
    assert sorted(make([5, count], 1, 1).permutation(1)) == list(range(count))
