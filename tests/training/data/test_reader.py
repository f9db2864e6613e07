"""The reader hands out the plan's rows, no more and no less, or says which file is at fault."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, DamagedError, IntegrityError
from fieldwise.features.snapshot.manifest import MANIFEST, Snapshot, load_snapshot, rows_digest, snapshot_digest
from fieldwise.training.data.batch import Batch, layout_of
from fieldwise.training.data.batches import Passes
from fieldwise.training.data.cache import Reader, Seen
from fieldwise.training.data.files import DataFile, name_rows
from fieldwise.training.data.plan import Plan, Segment
from fieldwise.training.data.prefetch import Prefetch
from fieldwise.training.data.reader import PlanReader, files_ahead
from fieldwise.training.data.splits import TrainData
from fieldwise.training.step.lookup import Lookup
from tests.snapshots import hash_spec, write_snapshot

SPEC = hash_spec((2000, 30, 5))
ROWS = [40, 1, 300, 7, 120]


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    return write_snapshot(tmp_path / "with space", SPEC, {"train": ROWS}, weighted=True)


def read(
    files: Sequence[DataFile], plan: Plan, streams: Sequence[int], start: int = 0, reader: Reader = "petastorm"
) -> list[Batch]:
    seen = Seen(verify=True, reader=reader)
    return list(PlanReader(files, plan, streams, SPEC.slot_names, start_step=start).read(seen))


def stored(file: DataFile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = pq.read_table(file.path)
    slots = np.stack([table[name].to_numpy() for name in SPEC.slot_names], axis=1)
    return slots, table["label"].to_numpy(), table["weight"].to_numpy()


@pytest.mark.parametrize(("world", "start"), [(1, 0), (3, 0), (2, 4)])
def test_batches_hold_exactly_the_planned_rows(snapshot: Snapshot, world: int, start: int) -> None:
    files = TrainData.of([snapshot]).train.files
    plan = Plan([file.rows for file in files], batch_size=64, seed=5, epoch=2)
    contents = [stored(file) for file in files]
    for rank in range(world):
        streams = plan.streams_of(rank, world)
        batches = read(files, plan, streams, start)
        assert len(batches) == plan.steps - start
        for step, batch in enumerate(batches, start):
            segments = plan.step(step, streams)
            picked = [(s.file, plan.permutation(s.file)[s.first : s.first + s.rows]) for s in segments]
            for got, column in ((batch.slots, 0), (batch.label, 1), (batch.weight, 2)):
                expected = [contents[file][column][rows] for file, rows in picked]
                if expected:
                    np.testing.assert_array_equal(got, np.concatenate(expected))
                else:
                    assert batch.rows == 0
            assert batch.slots.flags.f_contiguous
            assert batch.origin == segments


def test_parts_of_files_are_their_rows(snapshot: Snapshot) -> None:
    """In training order, from wherever the part begins; names of rows count from the file's first."""
    whole = TrainData.of([snapshot]).train.files
    files = [whole[2].part(50, 200).part(10, 120), whole[4]]
    plan = Plan([file.rows for file in files], batch_size=64, seed=5)
    slots, label, _ = stored(whole[2])
    batches = read(files, plan, range(8))
    assert sum(batch.rows for batch in batches) == 240
    got = [(s.first, block) for batch in batches for s, block in cut(batch) if s.file == 0]
    rows = 60 + plan.permutation(0)
    np.testing.assert_array_equal(np.concatenate([block for _, block in sorted(got, key=lambda p: p[0])]), slots[rows])
    at = next(i for i, part in enumerate(batches[0].origin) if part.file == 0)
    position = sum(part.rows for part in batches[0].origin[:at])
    row = 60 + int(plan.permutation(0)[batches[0].origin[at].first])
    assert name_rows(files, plan, batches[0].origin, np.array([position])) == [f"{whole[2].path} row {row}"]
    assert batches[0].label[position] == label[row]


def cut(batch: Batch) -> list[tuple[Segment, np.ndarray]]:
    ends = np.cumsum([part.rows for part in batch.origin])
    return list(zip(batch.origin, np.split(batch.slots, ends[:-1]), strict=True))


def test_rows_are_named_by_file_and_number(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    plan = Plan([file.rows for file in files], batch_size=64)
    batch = read(files, plan, range(8))[0]
    slots, _, _ = stored(files[2])
    at = next(i for i, part in enumerate(batch.origin) if part.file == 2)
    position = sum(part.rows for part in batch.origin[:at])
    (name,) = name_rows(files, plan, batch.origin, np.array([position]))
    path, _, row = name.rpartition(" row ")
    assert path == files[2].path
    np.testing.assert_array_equal(slots[int(row)], batch.slots[position])


def spoil_bytes(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def drop_rows(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 299), path)


def drop_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop(["slot_0001"]), path)


@pytest.mark.parametrize("reader", ["petastorm", "arrow"])
@pytest.mark.parametrize("spoil", [spoil_bytes, truncate, drop_rows, drop_column, Path.unlink])
def test_a_spoilt_file_is_named(snapshot: Snapshot, spoil: object, reader: Reader) -> None:
    files, before = TrainData.of([snapshot]).train.files, set(threading.enumerate())
    spoil(Path(files[2].path))  # type: ignore[operator]
    with pytest.raises(IntegrityError, match=r"train-00002\.parquet: expected .* found .* build the snapshot again"):
        read(files, Plan([file.rows for file in files], batch_size=64), range(8), reader=reader)
    assert set(threading.enumerate()) <= before


def test_without_checksums_a_wrong_row_count_is_still_seen(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    drop_rows(Path(files[2].path))
    reader = PlanReader(files, Plan([f.rows for f in files], batch_size=64), range(8), SPEC.slot_names)
    with pytest.raises(IntegrityError, match=r"train-0000\d\.parquet: expected \d+ rows, found"):
        list(reader)


def rewritten(file: DataFile, **columns: np.ndarray | None) -> DataFile:
    """With other columns, and checksums that fit them: the manifest's writer forged both."""
    before = pq.read_table(file.path)
    held = {name: before[name].to_numpy() for name in before.column_names} | columns
    held = {name: values for name, values in held.items() if values is not None}
    schema = pa.schema([pa.field(name, pa.from_numpy_dtype(values.dtype), False) for name, values in held.items()])
    pq.write_table(pa.table(held).cast(schema), file.path)
    slots = np.stack([held[name] for name in SPEC.slot_names], axis=1)
    identity = rows_digest(slots, held["label"], held.get("weight"))
    return replace(file, sha256=hashlib.sha256(Path(file.path).read_bytes()).hexdigest(), identity=identity)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("reader", ["petastorm", "arrow"])
@pytest.mark.parametrize(
    ("column", "value", "told"),
    [
        ("label", 0.5, "labels 0 and 1"), ("label", -1, "labels 0 and 1"), ("label", np.nan, "labels 0 and 1"),
        ("label", 1, r"\d+ positives, found 300"), ("weight", -1, "finite float32 weights, none below 0"),
        ("weight", np.inf, "finite float32 weights"), ("weight", None, "a weight, found the opposite"),
    ],
)  # fmt: skip
def test_labels_and_weights_that_mean_nothing_are_refused(
    snapshot: Snapshot, column: str, value: float | None, told: str, reader: Reader, verify: bool
) -> None:
    files = list(TrainData.of([snapshot]).train.files)
    files[2] = rewritten(files[2], **{column: None if value is None else np.full(300, value, np.float32)})
    plan = Plan([file.rows for file in files], batch_size=64)
    batches = PlanReader(files, plan, range(8), SPEC.slot_names).read(Seen(verify=verify, reader=reader))
    with pytest.raises(DamagedError, match=rf"train-00002\.parquet: expected {told}"):
        list(batches)


def test_rows_of_another_digest_are_not_taken_for_the_manifests(snapshot: Snapshot) -> None:
    """Bytes, size and rows are those that the manifest names, but its digest is that of other rows: a finished training
    of those would be found, and this one not be done."""
    files = list(TrainData.of([snapshot]).train.files)
    before = files[2].identity
    files[2] = rewritten(files[2], slot_0001=np.full(300, 7, np.int32))
    plan = Plan([file.rows for file in files], batch_size=64)
    assert sum(batch.rows for batch in read(files, plan, range(8))) == plan.total
    files[2] = replace(files[2], identity=before)
    with pytest.raises(DamagedError, match=rf"train-00002\.parquet: expected rows of SHA-256 {before}"):
        read(files, plan, range(8))


def test_a_pickle_beside_the_data_is_not_opened(snapshot: Snapshot, tmp_path: Path) -> None:
    """A data file replaced by a directory with a `_common_metadata`, as petastorm itself writes it."""
    touched = tmp_path / "touched"
    payload = b"cbuiltins\nexec\n(S'open(%r, \"w\")'\ntR." % str(touched)
    (entry,) = snapshot.manifest.files[:1]
    path = Path(snapshot.path(entry))
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / "part.parquet").write_bytes(content)
    schema = pq.read_schema(path / "part.parquet").with_metadata({b"dataset-toolkit.unischema.v1": payload})
    pq.write_metadata(schema, path / "_common_metadata")
    forged = snapshot.manifest.model_copy(update={"files": [entry.model_copy(update={"bytes": path.stat().st_size})]})
    digest = snapshot_digest(forged.spec_digest, [entry.identity])
    store.write_atomic(f"{snapshot.dir}/{MANIFEST}", forged.model_copy(update={"digest": digest}).to_json())
    file = DataFile(str(path), entry.rows, entry.sha256)
    plan = Plan([file.rows], batch_size=64, seed=5, epoch=2)
    with pytest.raises(IntegrityError, match="found a directory"):
        read([file], plan, plan.streams_of(0, 1))
    assert not touched.exists()
    with pytest.raises(ArtifactError, match="as its manifest says"):
        load_snapshot(snapshot.dir)


@pytest.mark.parametrize("by", ["petastorm", "arrow"])
def test_leaving_early_ends_every_thread_quietly(snapshot: Snapshot, by: Reader) -> None:
    files = TrainData.of([snapshot]).train.files
    before = set(threading.enumerate())
    reader = PlanReader(files, Plan([file.rows for file in files], batch_size=8), range(8), SPEC.slot_names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Prefetch(reader.read(Seen(reader=by)), depth=1) as batches:
            next(iter(batches))
    assert set(threading.enumerate()) <= before


def test_several_row_groups_are_one_file(tmp_path: Path) -> None:
    files = TrainData.of([write_snapshot(tmp_path / "s", SPEC, {"all": [50, 70]})]).train.files
    before = [slots_of(Path(file.path)).sum() for file in files]
    path = Path(files[0].path)
    pq.write_table(pq.read_table(path), path, row_group_size=20)
    (batch,) = PlanReader(files, Plan([50, 70], batch_size=120), range(8), SPEC.slot_names)
    assert batch.weight is None
    assert batch.slots.sum() == sum(before)


def test_kept_files_are_not_read_again(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    plans = [Plan([file.rows for file in files], batch_size=64, epoch=epoch) for epoch in range(2)]
    expected = [read(files, plan, range(8)) for plan in plans]
    row = (len(SPEC.slot_names) + 2) * 4  # with label and weight
    seen = Seen(verify=True, room=sum(sorted(ROWS)[:-1]) * row)
    for plan, batches in zip(plans, expected, strict=True):
        found = list(PlanReader(files, plan, range(8), SPEC.slot_names).read(seen))
        for one, other in zip(found, batches, strict=True):
            np.testing.assert_array_equal(one.slots, other.slots)
            np.testing.assert_array_equal(one.label, other.label)
            np.testing.assert_array_equal(one.weight, other.weight)  # type: ignore[arg-type]
    for file in files:
        kept = seen.columns(file) is not None
        Path(file.path).unlink()
        if kept:
            alone = Plan([file.rows], batch_size=8)
            assert sum(batch.rows for batch in PlanReader([file], alone, range(8), SPEC.slot_names).read(seen)) > 0
    assert 0 < sum(seen.columns(file) is not None for file in files) < len(files)
    with pytest.raises(IntegrityError, match="no such file"):
        list(PlanReader(files, plans[0], range(8), SPEC.slot_names).read(seen))


def test_parts_of_large_files_are_the_same_rows(snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    files = TrainData.of([snapshot]).train.files
    plan = Plan([file.rows for file in files], batch_size=64)
    expected = read(files, plan, range(8))
    monkeypatch.setattr("fieldwise.training.data.reader._LARGE", 0)
    for one, other in zip(read(files, plan, range(8)), expected, strict=True):
        np.testing.assert_array_equal(one.slots, other.slots)


def slots_of(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    return np.stack([table[name].to_numpy() for name in SPEC.slot_names])


def test_of_readers_opened_together_the_spoilt_file_is_named(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    parts = [files[:2], files[2:]]
    Path(files[3].path).unlink()
    readers = [PlanReader(of, Plan([f.rows for f in of], batch_size=64), range(8), SPEC.slot_names) for of in parts]
    with (
        Passes(Lookup(layout_of(SPEC)), [readers], Seen()) as works,
        pytest.raises(IntegrityError, match=r"train-00003\.parquet: expected .* found no such file"),
    ):
        list(works)


def test_prefetch_raises_where_it_is_consumed() -> None:
    def failing():  # type: ignore[no-untyped-def]
        yield 1
        raise OSError("gone")

    with Prefetch(failing()) as items:
        found = iter(items)
        assert next(found) == 1
        with pytest.raises(OSError, match="gone"):
            next(found)


def test_passes_go_on_from_reader_to_reader(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    plans = [Plan([file.rows for file in files], batch_size=64, epoch=epoch) for epoch in range(3)]
    readers = [PlanReader(files, plan, range(8), SPEC.slot_names) for plan in plans]
    before = set(threading.enumerate())
    with Passes(Lookup(layout_of(SPEC)), [[reader] for reader in readers], Seen()) as works:
        for reader in readers[:2]:  # the third has been begun by then
            assert sum(work.batch.rows for work in works) == plans[0].total
            assert works.read is reader
    assert set(threading.enumerate()) <= before
    assert readers[0].digest.digest() != readers[1].digest.digest()


def test_passes_raise_in_the_pass_that_fails(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    plan = Plan([file.rows for file in files], batch_size=64)
    lost = [replace(file, path=file.path + ".gone") for file in files]
    readers = [PlanReader(of, plan, range(8), SPEC.slot_names) for of in (files, lost)]
    with Passes(Lookup(layout_of(SPEC)), [[reader] for reader in readers], Seen()) as works:
        assert sum(work.batch.rows for work in works) == plan.total
        with pytest.raises(IntegrityError, match="no such file"):
            list(works)


@pytest.mark.parametrize(
    ("files", "rows", "ahead"),
    [(0, 0, 1), (1, 100, 1), (6, 100, 3), (16, 65536, 8), (40, 1 << 18, 3), (40, 1 << 24, 1)],
)
def test_files_ahead_are_few_and_small(files: int, rows: int, ahead: int) -> None:
    assert files_ahead([DataFile("file", rows, "")] * files, 39) == ahead


@pytest.mark.parametrize("reader", ["petastorm", "arrow"])
@pytest.mark.parametrize("name", ["a#b", "what?", "per%20cent%", "x;y [1] ü a::b"])
def test_any_directory_name_will_do(tmp_path: Path, name: str, reader: Reader) -> None:
    files = TrainData.of([write_snapshot(tmp_path / name, SPEC, {"train": ROWS})]).train.files
    batches = read(files, Plan([file.rows for file in files], batch_size=64), range(8), reader=reader)
    assert sum(batch.rows for batch in batches) == sum(ROWS)


def test_a_file_that_is_what_was_published_is_not_said_to_have_changed(snapshot: Snapshot) -> None:
    files = TrainData.of([snapshot]).train.files
    Path(files[2].path).write_bytes(b"no Parquet")
    published = [*files[:2], replace(files[2], sha256=hashlib.sha256(b"no Parquet").hexdigest()), *files[3:]]
    with pytest.raises(IntegrityError, match=r"that can be read, found .*Its bytes are those that were published"):
        read(published, Plan([file.rows for file in files], batch_size=64), range(8))
    more = [replace(files[0], rows=41)]
    with pytest.raises(IntegrityError, match=r"expected 41 rows, found 40 rows\. The file is as it was published, so"):
        read(more, Plan([41], batch_size=64), range(8))
