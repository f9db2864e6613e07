"""Calibrated probabilities for raw rows in the source's own format, as published Parquet."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import Broadcast

from features import store
from features.config import SourceConfig
from features.encoder import Encoder
from features.errors import ConfigError, InputError, RefusedError
from features.keys import require_keys
from features.listing import SourceFile, directory_columns, list_files
from features.log import LogBatch, LogReader
from features.source import FileRange, Reject, source_columns, split_ranges
from features.spark.build import progress
from features.spark.files import merge_rejects, write_rejects
from features.spark.session import spark_session
from features.spec import FeatureSpec
from features.text import missing_column
from pipelines.config import Config, resolve
from pipelines.models import model_version, resolve_model
from pipelines.output import QUARANTINE, Output, write_part
from pipelines.say import say
from pipelines.shipping import Shipment, Shipped, cores
from pipelines.sides import require_fields
from training.bundle import load_bundle

RANGE_BYTES = 32 << 20
"""Source bytes a task reads; an output file holds the rows of one task, in source order."""
PROBABILITY = "probability"


@dataclass(frozen=True)
class Job:
    """What every task must know."""

    reader: LogReader
    ranges: tuple[FileRange, ...]
    columns: tuple[str, ...]
    """Source columns handed through."""
    spec: FeatureSpec
    model: Shipped
    directory: str


def score_rows(
    config: Config,
    *,
    model: str | None = None,
    inputs: list[str] | None = None,
    columns: list[str] | None = None,
    date: str | None = None,
    out: str | None = None,
) -> dict[str, Any]:
    """Publish ``<out>/date=<date or all>``: every row of the source with a ``probability`` behind its columns.

    Rows that ``filter`` leaves out are left out here too; label and weight are not read, so they may be absent. Rows
    that cannot be read go to ``_quarantine.parquet``. Columns that side tables add are not written.

    Args:
        model: a bundle's directory or a registered model; default: the champion.
        inputs: files to score instead of ``source.path``, in the same format.
        columns: source columns to write, such as ids; default: all. Writing forty costs as much as scoring.
        date: stands for ``{date}`` in paths, else selects the day's rows by the time column.
        out: default ``<workspace>/scores/rows``.

    Raises: ConfigError, InputError, ArtifactError (exit code 2), RefusedError (3): nothing is published then.
    """
    started = time.perf_counter()
    bundle = load_bundle(resolve_model(model, config))
    version = model_version(model, config) or bundle.digest[:12]
    require_fields(bundle.spec, config, f"model {version}")
    source = config.source.model_copy(update={"path": inputs}) if inputs else config.source
    files = list_files(source, config.base, date)
    columns = _columns(source, files, config, columns)
    dated = any("{date}" in path for path in source.path)
    wanted = config.features.model_copy(update={"source": source})
    reader = LogReader(wanted, config.base, need_label=False, date=None if dated else date, keep=columns)
    require_keys(source, files, reader.columns)
    directory = resolve(out, config.base) if out else store.join(config.workspace_dir, "scores", "rows")
    target = store.join(directory, f"date={date or 'all'}")
    stamps = [
        [file.path, store.stamp(file.path)] for s in (source, *config.join) for file in list_files(s, config.base, date)
    ]
    output = Output(target, [bundle.digest, wanted.model_dump(mode="json"), date, columns, stamps])
    found = output.standing()
    if found is not None:
        return _result(found, target, "already published", started)
    spark = spark_session("fieldwise score-rows")
    with output, tempfile.TemporaryDirectory(prefix="fieldwise-rows-") as scratch:
        shipped = Shipment(spark.sparkContext, bundle, scratch, f"{output.attempt}-").send()
        parts_of = tuple(split_ranges(source, files, RANGE_BYTES))
        job = Job(reader, parts_of, tuple(columns), bundle.spec, shipped, output.staging)
        ranges = spark.range(0, len(job.ranges), 1, len(job.ranges))
        with progress(spark, "score"):
            rows = ranges.mapInArrow(_task(spark.sparkContext.broadcast(job)), "report binary").collect()
        reports = [json.loads(row["report"]) for row in rows]
        facts = _facts(reports, config)
        quarantined = sorted(report["quarantine"] for report in reports if report["quarantine"])
        if quarantined:
            merge_rejects(output.staging, quarantined, QUARANTINE)
        parts = sorted((r["part"] for r in reports if r["part"]), key=lambda part: part["number"])
        facts |= {
            "rows": sum(part["rows"] for part in parts),
            "source_files": len(files),
            "date": date,
            "model": bundle.digest,
            "model_version": version,
        }
        manifest = output.publish(parts, facts)
    return _result(manifest, target, "published", started)


def _columns(source: SourceConfig, files: list[SourceFile], config: Config, wanted: list[str] | None) -> list[str]:
    """Source columns to hand through: those wanted, else all in file order (of jsonl those that something reads)."""
    path, names = source_columns(source, files)
    if names is None:
        names = wanted or LogReader(config.features.model_copy(update={"source": source}), config.base, False).columns
    for name in wanted or ():
        if name not in names and name not in directory_columns(path):
            raise missing_column(path, name, names)
    if PROBABILITY in (wanted or names):
        raise ConfigError(
            "source.columns",
            expected=f"no column called {PROBABILITY!r}",
            found="one",
            fix="Name it otherwise: the score takes this name.",
        )
    return wanted or names


def _task(job: Broadcast[Job]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """(report) of every range."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in (int(i) for batch in batches for i in batch.column(0).to_pylist()):
            report = json.dumps(_score_range(job.value, index)).encode()
            yield pa.record_batch([pa.array([report], pa.binary())], ["report"])

    return run


def _score_range(job: Job, index: int) -> dict[str, Any]:
    """Score one range into one file."""
    encoder, scorer = _ready(job)
    scored: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    filtered = 0
    for batch in job.reader.read(job.ranges[index]):
        filtered += batch.filtered
        encoded = encoder.encode(batch.columns)
        slots = encoded.slots
        if encoded.problems:
            keep = np.ones(batch.rows, np.bool_)
            keep[[problem.row for problem in encoded.problems]] = False
            slots, batch = slots[keep], batch.without(encoded.problems)
        rejects += batch.rejects
        if batch.rows:
            scored.append(_with_probability(batch, job.columns, scorer.probabilities(slots, cores())))
    part = None
    if scored:
        part = write_part(job.directory, index, pa.Table.from_batches(scored), dictionary=job.columns)
    name = write_rejects(job.directory, index, rejects) if rejects else None
    examples = [[r.reason, f"{r.path}:{r.position}"] for r in rejects[:1]]
    return {
        "part": part, "quarantine": name, "filtered": filtered, "rejected": Counter(r.reason for r in rejects),
        "examples": examples,
    }  # fmt: skip


def _with_probability(batch: LogBatch, columns: tuple[str, ...], probability: Any) -> pa.RecordBatch:
    given = [batch.columns.array(name) for name in columns]
    return pa.RecordBatch.from_arrays([*given, pa.array(probability)], [*columns, PROBABILITY])


_READY: dict[str, tuple[Encoder, Any]] = {}
"""Encoder and scorer of the model in use: one per process."""


def _ready(job: Job) -> tuple[Encoder, Any]:
    if job.model.prefix not in _READY:
        _READY.clear()
        _READY[job.model.prefix] = Encoder(job.spec), job.model.scorer()
    return _READY[job.model.prefix]


def _facts(reports: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """Counts over all ranges. RefusedError past the tolerated share of unreadable rows, InputError without any row."""
    rejected: Counter[str] = Counter()
    for report in reports:
        rejected.update(report["rejected"])
    rows = sum(report["part"]["rows"] for report in reports if report["part"])
    filtered, bad = sum(report["filtered"] for report in reports), rejected.total()
    if bad > config.snapshot.max_bad_fraction * (rows + filtered + bad):
        reason, where = next(example for report in reports for example in report["examples"])
        raise RefusedError(
            "source",
            expected=f"at most {config.snapshot.max_bad_fraction:.4%} unreadable rows",
            found=f"{bad} of {rows + filtered + bad}, such as {reason} at {where}",
            fix="Mend the source or its description, or raise snapshot.max_bad_fraction.",
        )
    if not rows:
        raise InputError("source", expected="rows to score", found="none", fix="Check the paths, filter and --date.")
    return {"quarantined": dict(sorted(rejected.items())), "filtered": filtered}


def _result(manifest: dict[str, Any], target: str, status: str, started: float) -> dict[str, Any]:
    """The job's result; its summary goes to stderr."""
    seconds = time.perf_counter() - started
    say(f"scores {manifest['digest'][:12]} {status}: {target}")
    read = f" of {manifest['source_files']:,} files" if "source_files" in manifest else ""  # not in older outputs
    say(f"  {manifest['rows']:,} rows{read} in {len(manifest['files'])} files by model {manifest['model_version']}, "
        f"{sum(manifest['quarantined'].values()):,} quarantined, {manifest['filtered']:,} filtered")  # fmt: skip
    say(f"  {seconds:.1f} s, {manifest['rows'] / seconds:,.0f} rows/s")
    facts = {key: value for key, value in manifest.items() if key not in ("files", "request")}
    return {**facts, "dir": target, "status": status, "files": len(manifest["files"]), "seconds": round(seconds, 3)}
