"""The passes of a feature build as Spark jobs. Spark decides who reads which bytes; nothing here depends on its answer.

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
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

from fieldwise.features.fields import fitting
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.features.snapshot.beside import Values
from fieldwise.features.snapshot.manifest import ROLES, Beside, FileEntry
from fieldwise.features.source.negatives import Negatives, read_items
from fieldwise.features.source.quarantine import Example
from fieldwise.features.spark import tallying, tasks
from fieldwise.features.spark.reading import Counts, Job, span
from fieldwise.features.spark.run import collect, collect_reports, mapped, numbered
from fieldwise.features.spark.tallying import COUNTS_FIELD, TALLY, pack_task
from fieldwise.features.spark.tasks import PLACED, Places

_GROUP_BYTES = 64 << 20
"""Source bytes whose values one grouping task adds up."""


def survey(spark: SparkSession, job: Job) -> tuple[Job, Counts]:
    """Find the thresholds of a split by time, and the rows of every role (before negative downsampling).

    A threshold is the moment nearest to its fraction: equal times stay together.
    """
    times = _times(spark, job)
    moments = _summed(times.repartition(_partitions(spark, job), "time"), "time").persist()
    try:
        total = collect(moments.agg(F.sum("count")), "survey")[0][0] or 0
        test = float(job.config.split.test)  # type: ignore[arg-type]
        valid = float(job.config.split.valid)  # type: ignore[arg-type]
        valid_from, before_valid = _moment_at(moments, total * (1 - valid - test), total)
        test_from, before_test = _moment_at(moments, total * (1 - test), total)
    finally:
        moments.unpersist()
    rows = {"train": before_valid, "valid": before_test - before_valid, "test": total - before_test}
    counts: Counts = Counter({("rows", role): count for role, count in rows.items()})
    return replace(job, splitter=replace(job.splitter, valid_from=valid_from, test_from=test_from)), counts


def newest(spark: SparkSession, job: Job) -> int:
    """The last moment of the log's rows, in microseconds; 0 if there are none."""
    return int(collect(_times(spark, job).agg(F.max("time")), "survey")[0][0] or 0)


def _times(spark: SparkSession, job: Job) -> DataFrame:
    """How many rows each moment has, by range."""
    return mapped(_ranges(spark, job), tallying.time_task(job), "time bigint, count bigint")


def _moment_at(moments: DataFrame, target: float, total: int) -> tuple[int, int]:
    """(t, rows before t) where rows before t are nearest to ``target``; found digit by digit, so memory stays flat."""
    if total == 0 or target >= total:
        return int(np.iinfo(np.int64).max), total
    before, low, high = 0, None, None
    for shift in (40, 20, 0):
        digit = F.shiftright("time", shift).alias("digit")
        part = moments if low is None else moments.filter((F.col("time") >= low) & (F.col("time") < high))
        for row in collect(_summed(part, digit).orderBy("digit"), "survey"):
            if before + row["count"] > target:
                low, high, at = row["digit"] << shift, (row["digit"] + 1) << shift, row["count"]
                break
            before += row["count"]
    assert low is not None
    return (low, before) if target - before <= before + at - target else (low + 1, before + at)


def with_negatives(spark: SparkSession, job: Job) -> Job:
    """The job with all that negatives are drawn by; itself where the config asks for none."""
    config, context = job.config.negatives, spark.sparkContext
    if config is None:
        return job
    items = read_items(config, job.base, job.reader.value.columns)
    told = mapped(_ranges(spark, job), tallying.known_task(job, context.broadcast(items)), tallying.KNOWN)
    known, counts = np.empty(0, np.uint64), np.zeros(len(items.ids), np.int64)
    parts = [known]
    for row in collect(told, "known pairs"):
        parts.append(np.frombuffer(row["pairs"], np.uint64))
        counts[np.frombuffer(row["places"], np.int64)] += np.frombuffer(row["counts"], np.int64)
    known = np.unique(np.concatenate(parts))
    return replace(job, negatives=context.broadcast(Negatives.of(config, items, counts, known)))


def tally(spark: SparkSession, job: Job, *, fit: bool) -> tuple[pa.Table, Counts]:
    """One pass over all fields: the training rows' values to fit a spec from if ``fit``, and all rows' ``Counts``.

    Tasks add up the values of their ranges, then every value's sum is made in one task; ``min_count`` and ``max_size``
    are applied before anything reaches the driver. A task's memory follows from ``_GROUP_BYTES``.
    """
    if not fit and job.keeps_all:
        lines = collect(mapped(_ranges(spark, job), tallying.count_task(job), "count bigint"), "count")
        return fitting.TALLY.empty_table(), Counter({("rows", "all"): sum(row["count"] for row in lines)})
    keys = shuffle_keys(_partitions(spark, job))
    scattered = mapped(_ranges(spark, job), tallying.tally_task(job, fit, keys), PLACED)
    least = [getattr(field, "min_count", 0) for field in job.config.fields]
    sum_up = tallying.sum_task(least)
    grouped, sizes = scattered.repartition(len(keys), "place"), _sizes(job)
    if sizes:
        packed = mapped(_capped(mapped(grouped, sum_up, TALLY), sizes), pack_task, "payload binary")
    else:
        packed = mapped(grouped, lambda batches: pack_task(sum_up(batches)), "payload binary")
    payloads = collect(packed, "fit" if fit else "count")
    tables = [pa.ipc.open_stream(row["payload"]).read_all() for row in payloads]
    table = pa.concat_tables([fitting.TALLY.empty_table(), *(part.cast(fitting.TALLY) for part in tables)])
    is_count = np.asarray(table["field"]) == COUNTS_FIELD
    told = table.filter(pa.array(is_count))
    counts: Counts = Counter()
    for key, count in zip(told["key"].to_pylist(), told["count"].to_pylist(), strict=True):
        counts[tuple(json.loads(key))] = count
    return table.filter(pa.array(~is_count)), counts


def _summed(counted: DataFrame, *keys: str | Column) -> DataFrame:
    return counted.groupBy(*keys).agg(F.sum("count").alias("count"))


def _sizes(job: Job) -> dict[int, int]:
    """``max_size`` of the vocabularies that have one, by place of the field."""
    fields = enumerate(job.config.fields)
    return {n: f.max_size for n, f in fields if isinstance(f, VocabularyField) and f.needs_fit and f.max_size}


def _capped(summed: DataFrame, sizes: dict[int, int]) -> DataFrame:
    """The ``sizes`` most frequent values of fields that have one; all values of others."""
    capped = F.col("field").isin(list(sizes))
    rank = F.row_number().over(Window.partitionBy("field").orderBy(F.desc("count"), "key"))
    size = F.create_map(*[F.lit(word) for pair in sizes.items() for word in pair])[F.col("field")]
    most_frequent = summed.filter(capped).withColumn("rank", rank).filter(F.col("rank") <= size).drop("rank")
    return summed.filter(~capped).unionByName(most_frequent)


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


def encode(spark: SparkSession, job: Job, spec: FeatureSpec, directory: str, rows: Counts) -> Written:
    """Encode every row and write the files; ``rows`` says how many each role has (needed by the global shuffle)."""
    ranges = _ranges(spark, job)
    shared = spark.sparkContext.broadcast(spec)
    if job.config.snapshot.shuffle == "none":
        told = collect_reports(ranges, tasks.write_task(job, shared, directory), "encode")
    else:
        places = _places(job, rows)
        placed = mapped(ranges, tasks.place_task(job, shared, places, directory), PLACED)
        sort = tasks.sort_task(job, shared, places, directory)
        told = collect_reports(placed.repartition(len(places.keys), "place"), sort, "encode")
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


def _places(job: Job, rows: Counts) -> Places:
    """Files of every role by its rows alone; each file's shuffle key falls into a partition of its own.

    Where every line becomes a row, lines are what is counted, readable or not: that takes no parsing.
    """
    unreadable = sum(count for key, count in rows.items() if key[0] == "rejected") if job.keeps_all else 0
    rows = rows + Counter({("rows", "all"): unreadable})
    count = [-(-rows["rows", role] // job.config.snapshot.rows_per_file) for role in ROLES]
    first = [sum(count[:role]) for role in range(len(ROLES))]
    return Places(tuple(first), tuple(count), tuple(shuffle_keys(sum(count) + 1)))


def shuffle_keys(partitions: int) -> list[int]:
    """Values of an int column that Spark's hash sends to partitions 0, 1, 2, ... of their own."""
    keys: dict[int, int] = {}
    tried = 4 * partitions
    while len(keys) < partitions:
        ids = np.arange(tried, dtype=np.int32)
        keys = dict(zip((_spark_hash(ids) % partitions).tolist(), ids.tolist(), strict=True))
        tried *= 4
    return [keys[partition] for partition in range(partitions)]


def _spark_hash(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Spark's ``hash`` of ints: Murmur3 of their four bytes, seed 42."""

    def rotated(x: npt.NDArray[np.uint32], by: int) -> npt.NDArray[np.uint32]:
        return x << np.uint32(by) | x >> np.uint32(32 - by)

    k = rotated(values.view(np.uint32) * np.uint32(0xCC9E2D51), 15) * np.uint32(0x1B873593)
    h = rotated(np.uint32(42) ^ k, 13) * np.uint32(5) + np.uint32(0xE6546B64) ^ np.uint32(4)
    h = (h ^ h >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return (h ^ h >> np.uint32(16)).view(np.int32)


def _ranges(spark: SparkSession, job: Job) -> DataFrame:
    """One partition for each byte range."""
    return numbered(spark, len(job.ranges))


def _partitions(spark: SparkSession, job: Job) -> int:
    """Partitions of a grouping: enough for every core and for groups that fit a task's memory."""
    return max(spark.sparkContext.defaultParallelism, min(2000, job.bytes // _GROUP_BYTES))
