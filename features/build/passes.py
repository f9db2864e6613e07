"""The passes of a feature build. The engine decides who reads which bytes; nothing here depends on its answer.

survey   (split by time)              moments -> the two thresholds, and the rows of every role
known    (negatives)                  pairs and positives of items -> what negatives are drawn by
tally    (fitting, or rows unknown)   values -> the spec; rows of every role
encode                                rows -> files, through the shuffle or straight
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fieldwise.features.build import tallying, tasks
from fieldwise.features.build.reading import Counts, Job, span
from fieldwise.features.build.tallying import COUNTS_FIELD, pack_task
from fieldwise.features.build.tasks import PLACED, Places
from fieldwise.features.engine.base import Engine, Frame, collect_reports
from fieldwise.features.fields import fitting
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.features.snapshot.beside import Values
from fieldwise.features.snapshot.manifest import ROLES, Beside, FileEntry
from fieldwise.features.source.negatives import Negatives, read_items
from fieldwise.features.source.quarantine import Example

_GROUP_BYTES = 64 << 20
"""Source bytes whose values one grouping task adds up."""
_FIRST, _LAST = np.iinfo(np.int64).min, int(np.iinfo(np.int64).max)


def survey(engine: Engine, job: Job) -> tuple[Job, Counts]:
    """Find the thresholds of a split by time, and the rows of every role (before negative downsampling).

    A threshold is the moment nearest to its fraction: equal times stay together.
    """
    with _times(engine, job).shuffled("place", _partitions(engine, job)).kept() as times:
        whole = _digits(times, 40)
        total = sum(count for _, count in whole)
        test = float(job.config.split.test)  # type: ignore[arg-type]
        valid = float(job.config.split.valid)  # type: ignore[arg-type]
        valid_from, before_valid = _moment_at(times, whole, total * (1 - valid - test), total)
        test_from, before_test = _moment_at(times, whole, total * (1 - test), total)
    rows = {"train": before_valid, "valid": before_test - before_valid, "test": total - before_test}
    counts: Counts = Counter({("rows", role): count for role, count in rows.items()})
    return replace(job, splitter=replace(job.splitter, valid_from=valid_from, test_from=test_from)), counts


def newest(engine: Engine, job: Job) -> int:
    """The last moment of the log's rows, in microseconds; 0 if there are none."""
    last = _times(engine, job).mapped(tallying.last_task, "time bigint").rows("survey")
    return max((int(row["time"]) for row in last), default=0)


def _times(engine: Engine, job: Job) -> Frame:
    """How many rows each moment has, by range."""
    return _ranges(engine, job).mapped(tallying.time_task(job), tallying.TIMES)


def _digits(times: Frame, shift: int, low: int = _FIRST, high: int = _LAST) -> list[tuple[int, int]]:
    """(moment >> shift, rows) of the moments in [low, high), ascending."""
    told = times.mapped(tallying.digit_task(shift, low, high), tallying.DIGITS).rows("survey")
    parts = [[np.frombuffer(row[name], np.int64) for row in told] for name in ("digits", "counts")]
    digits, counts = tallying.summed(*(np.concatenate([np.empty(0, np.int64), *part]) for part in parts))
    return list(zip(digits.tolist(), counts.tolist(), strict=True))


def _moment_at(times: Frame, whole: list[tuple[int, int]], target: float, total: int) -> tuple[int, int]:
    """(t, rows before t) where rows before t are nearest to ``target``; found digit by digit, so memory stays flat."""
    if total == 0 or target >= total:
        return _LAST, total
    before, low, at = 0, 0, 0
    for shift in (40, 20, 0):
        digits = whole if shift == 40 else _digits(times, shift, low, low + (1 << shift + 20))
        for digit, count in digits:
            if before + count > target:
                low, at = digit << shift, count
                break
            before += count
    return (low, before) if target - before <= before + at - target else (low + 1, before + at)


def with_negatives(engine: Engine, job: Job) -> Job:
    """The job with all that negatives are drawn by; itself where the config asks for none."""
    config = job.config.negatives
    if config is None:
        return job
    items = read_items(config, job.base, job.reader.value.columns)
    told = _ranges(engine, job).mapped(tallying.known_task(job, engine.share(items)), tallying.KNOWN)
    known, counts = np.empty(0, np.uint64), np.zeros(len(items.ids), np.int64)
    parts = [known]
    for row in told.rows("known pairs"):
        parts.append(np.frombuffer(row["pairs"], np.uint64))
        counts[np.frombuffer(row["places"], np.int64)] += np.frombuffer(row["counts"], np.int64)
    known = np.unique(np.concatenate(parts))
    return replace(job, negatives=engine.share(Negatives.of(config, items, counts, known)))


def tally(engine: Engine, job: Job, *, fit: bool) -> tuple[pa.Table, Counts]:
    """One pass over all fields: the training rows' values to fit a spec from if ``fit``, and all rows' ``Counts``.

    Tasks add up the values of their ranges, then every value's sum is made in one task; ``min_count`` and ``max_size``
    are applied before anything reaches the driver. A task's memory follows from ``_GROUP_BYTES``, and from ``max_size``
    of the fields that have one.
    """
    if not fit and job.keeps_all:
        lines = _ranges(engine, job).mapped(tallying.count_task(job), "count bigint").rows("count")
        return fitting.TALLY.empty_table(), Counter({("rows", "all"): sum(row["count"] for row in lines)})
    keys = engine.places(_partitions(engine, job))
    scattered = _ranges(engine, job).mapped(tallying.tally_task(job, fit, keys), PLACED)
    least = [getattr(field, "min_count", 0) for field in job.config.fields]
    sum_up, sizes = tallying.sum_task(least), _sizes(job)
    grouped = scattered.shuffled("place", len(keys))
    if sizes:
        split_up = grouped.mapped(lambda batches: tallying.capped(sum_up(batches), sizes), PLACED)
        packed = split_up.shuffled("place", len(keys)).mapped(tallying.cap_task(sizes), "payload binary")
    else:
        packed = grouped.mapped(lambda batches: pack_task(sum_up(batches)), "payload binary")
    payloads = packed.rows("fit" if fit else "count")
    tables = [pa.ipc.open_stream(row["payload"]).read_all() for row in payloads]
    table = pa.concat_tables([fitting.TALLY.empty_table(), *(part.cast(fitting.TALLY) for part in tables)])
    is_count = np.asarray(table["field"]) == COUNTS_FIELD
    told = table.filter(pa.array(is_count))
    counts: Counts = Counter()
    for key, count in zip(told["key"].to_pylist(), told["count"].to_pylist(), strict=True):
        counts[tuple(json.loads(key))] = count
    return table.filter(pa.array(~is_count)), counts


def _sizes(job: Job) -> dict[int, int]:
    """``max_size`` of the vocabularies that have one, by place of the field."""
    fields = enumerate(job.config.fields)
    return {n: f.max_size for n, f in fields if isinstance(f, VocabularyField) and f.needs_fit and f.max_size}


@dataclass
class Written:
    """What the encoding tasks reported: each range and each file exactly once, whatever ran twice."""

    files: list[FileEntry]
    counts: Counts
    rejects: list[str]
    """Names of the tasks' quarantine files."""
    examples: list[Example]
    moments: list[int]
    """The first and the last; empty for a log without time."""
    beside: list[Beside]
    """What travels beside the rows."""
    repeated: int | None
    """Rows that repeat another; None where they were written in source order, without a look at their neighbours."""


def encode(engine: Engine, job: Job, spec: FeatureSpec, directory: str, rows: Counts) -> Written:
    """Encode every row and write the files; ``rows`` says how many each role has (needed by the global shuffle)."""
    ranges = _ranges(engine, job)
    shared = engine.share(spec)
    if job.config.snapshot.shuffle == "none":
        told = collect_reports(ranges, tasks.write_task(job, shared, directory), "encode")
    else:
        places = _places(engine, job, rows)
        placed = ranges.mapped(tasks.place_task(job, shared, places, directory), PLACED)
        sort = tasks.sort_task(job, shared, places, directory)
        told = collect_reports(placed.shuffled("place", len(places.keys)), sort, "encode")
    files = sorted((r for r in told if "file" in r), key=lambda r: (ROLES.index(r["file"]["role"]), r["place"]))
    repeated = sum(r["repeated"] for r in files) if job.config.snapshot.shuffle == "global" else None
    written = Written([FileEntry.model_validate(r["file"]) for r in files], Counter(), [], [], [], [], repeated)
    values = Values(job.config.beside)
    for report in (r for r in told if "counts" in r):
        written.counts.update({tuple(key): count for key, count in report["counts"]})
        written.rejects += [report["quarantine"]] if report["quarantine"] else []
        written.examples += [Example(*example) for example in report["examples"]]
        written.moments = span([*written.moments, *report["moments"]])
        values.merge(report["values"])
    written.rejects.sort()
    written.beside = values.beside()
    return written


def _places(engine: Engine, job: Job, rows: Counts) -> Places:
    """Files of every role by its rows alone; each file's shuffle key falls into a partition of its own.

    Where every line becomes a row, lines are what is counted, readable or not: that takes no parsing.
    """
    unreadable = sum(count for key, count in rows.items() if key[0] == "rejected") if job.keeps_all else 0
    rows = rows + Counter({("rows", "all"): unreadable})
    count = [-(-rows["rows", role] // job.config.snapshot.rows_per_file) for role in ROLES]
    first = [sum(count[:role]) for role in range(len(ROLES))]
    return Places(tuple(first), tuple(count), tuple(engine.places(sum(count) + 1)))


def _ranges(engine: Engine, job: Job) -> Frame:
    """One partition for each byte range."""
    return engine.numbered(len(job.ranges))


def _partitions(engine: Engine, job: Job) -> int:
    """Partitions of a grouping: enough for every core and for groups that fit a task's memory."""
    return max(engine.cores, min(2000, job.bytes // _GROUP_BYTES))
