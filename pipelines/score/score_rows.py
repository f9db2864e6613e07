"""Calibrated probabilities for raw rows in the source's own format, as published Parquet."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fieldwise.features.build.files import merge_rejects, write_rejects
from fieldwise.features.build.reading import span
from fieldwise.features.columns.moment import show_moment
from fieldwise.features.engine.base import Shared, Task, collect_reports, indices
from fieldwise.features.engine.base import reports as told
from fieldwise.features.errors import InputError
from fieldwise.features.fields.base import all_but
from fieldwise.features.fields.encoder import encoder_of
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.headers import require_one_header
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.log import LogBatch, LogReader
from fieldwise.features.source.quarantine import Example, Quarantined, by_reason, count, examples
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.source.rows import FileRange, Reject
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import require_model
from fieldwise.pipelines.build.quality import judged, say_moments, say_quarantined
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.score.coverage import Coverage, Tally, require_known
from fieldwise.pipelines.score.output import QUARANTINE, Output, target_of, write_part
from fieldwise.pipelines.score.row_columns import output_schema, written
from fieldwise.pipelines.score.shipping import Shipment, Shipped
from fieldwise.pipelines.unchanged import require_unchanged, stamps_of

RANGE_BYTES = 32 << 20
"""Source bytes a task reads; an output file holds the rows of one task, in source order."""


@dataclass(frozen=True)
class Job:
    """What every task must know."""

    reader: LogReader
    ranges: tuple[FileRange, ...]
    schema: pa.Schema
    """Source columns handed through, then the score."""
    spec: FeatureSpec
    model: Shipped
    coverage: Coverage
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
    that cannot be read go to ``_quarantine.parquet``. Columns that side tables add are not written. A column has one
    type in all parts (``row_columns``).

    Args:
        model: a bundle's directory or a registered model; default: the champion.
        inputs: files to score instead of ``source.path``, in the same format.
        columns: source columns to write, such as ids; default: all (of jsonl those that something reads). Writing forty
            costs as much as scoring.
        date: stands for ``{date}`` in paths, else selects the day's rows by the time column.
        out: default ``<workspace>/scores/rows``.

    Raises: ConfigError, InputError, ArtifactError (exit code 2), RefusedError (3): nothing is published then.
    """
    started = time.perf_counter()
    opened = open_model(model, config)
    bundle, version = opened.bundle, opened.label
    require_model(bundle, config, f"model {version}", own_source=inputs is None)
    source = config.source.model_copy(update={"path": inputs}) if inputs else config.source
    files = list_files(source, config.base, date)
    require_one_header(source, files)
    wanted = config.features.model_copy(update={"source": source})
    if source.format == "jsonl" and columns is None:
        columns = LogReader(wanted, config.base, need_label=False).columns
        say(f"of each object the keys {', '.join(columns)} are written: --columns names others")
    schema = output_schema(source, files, columns, {name for field in config.fields for name in field.lists})
    columns = schema.names[:-1]
    dated = any("{date}" in path for path in source.path)
    reader = LogReader(wanted, config.base, need_label=False, date=None if dated else date, keep=columns)
    require_keys(source, files, reader.columns)
    target = target_of(config, out, date, "scores", "rows")
    stamps = stamps_of(file for s in (source, *config.join) for file in list_files(s, config.base, date))
    output = Output(target, [bundle.digest, wanted.model_dump(mode="json"), date, columns, stamps])
    found = output.standing()
    if found is not None:
        require_known(config, bundle.spec, "source", found.get("fields", {}))
        return _result(config, found, target, "already published", started) | {"used_model": opened.facts}
    engine = open_engine(config, "score-rows", files)
    with output, tempfile.TemporaryDirectory(prefix="fieldwise-rows-") as scratch:
        shipped = Shipment(engine, bundle, scratch, f"{output.attempt}-").send()
        parts_of = tuple(split_ranges(source, files, RANGE_BYTES))
        coverage = Coverage.of(bundle, config)
        job = Job(reader, parts_of, schema, bundle.spec, shipped, coverage, output.staging)
        reports = collect_reports(engine.numbered(len(job.ranges)), _task(engine.share(job)), "score")
        facts = _facts(reports, config) | {"fields": _known(reports, config, Tally(bundle.spec, coverage))}
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
        require_unchanged(stamps)
        manifest = output.publish(parts, facts)
    return _result(config, manifest, target, "published", started) | {"used_model": opened.facts}


def _task(job: Shared[Job]) -> Task:
    """(report) of every range."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for index in indices(batches):
            yield told([json.dumps(_score_range(job.value, index)).encode()])

    return run


def _score_range(job: Job, index: int) -> dict[str, Any]:
    """Score one range into one file."""
    encoder, scorer = encoder_of(job.spec), job.model.scorer()
    tally = Tally(job.spec, job.coverage)
    scored: list[pa.RecordBatch] = []
    rejects: list[Reject] = []
    filtered, moments = 0, list[int]()
    for batch in job.reader.read(job.ranges[index]):
        filtered += batch.filtered
        encoded = encoder.encode(batch.columns)
        slots = encoded.slots
        if encoded.problems:
            keep = all_but((problem.row for problem in encoded.problems), batch.rows)
            slots, batch = slots[keep], batch.without(encoded.problems)
        rejects += batch.rejects
        tally.add(slots, batch.columns)
        if batch.rows and batch.time is not None:
            moments = span([*moments, int(batch.time.min()), int(batch.time.max())])
        if batch.rows:
            scored.append(_scored(batch, job.schema, scorer.probabilities(slots, job.model.cores)))
    part = None
    if scored:
        table = pa.Table.from_batches(scored, job.schema)
        part = write_part(job.directory, index, table, dictionary=job.schema.names[:-1])
    name = write_rejects(job.directory, index, rejects) if rejects else None
    return {
        "part": part, "quarantine": name, "filtered": filtered, "moments": moments, "fields": tally.report(),
        "rejected": [[*key, rows] for key, rows in count(rejects).items()], "examples": examples(rejects),
    }  # fmt: skip


def _scored(batch: LogBatch, schema: pa.Schema, probability: Any) -> pa.RecordBatch:
    given = [written(batch.columns.array(field.name), field, batch.path) for field in list(schema)[:-1]]
    return pa.RecordBatch.from_arrays([*given, pa.array(probability)], schema=schema)


def _facts(reports: list[dict[str, Any]], config: Config) -> dict[str, Any]:
    """Counts over all ranges. RefusedError past the tolerated share of unreadable rows, InputError without any row."""
    rejected: Counter[tuple[str, str]] = Counter()
    moments: list[int] = []
    for report in reports:
        rejected.update({(reason, field): rows for reason, field, rows in report["rejected"]})
        moments = span([*moments, *report["moments"]])
    rows = sum(report["part"]["rows"] for report in reports if report["part"])
    filtered = sum(report["filtered"] for report in reports)
    seen = (Example(*example) for report in reports for example in report["examples"])
    found = judged(config, "source", rows + filtered, rejected, seen, config.source.format)
    if not rows:
        raise InputError("source", expected="rows to score", found="none", fix="Check the paths, filter and --date.")
    return {
        "quarantined": by_reason(rejected), "quarantine": [part.model_dump() for part in found], "filtered": filtered,
        "moments": [show_moment(moment, config.time.zone) for moment in moments] if config.time else [],
    }  # fmt: skip


def _known(reports: list[dict[str, Any]], config: Config, tally: Tally) -> dict[str, Any]:
    """Shares of missing and unseen values by field. RefusedError where next to nothing of a field is known."""
    for report in reports:
        tally.merge(report["fields"])
    shares = tally.shares({field.name for field in tally.spec.fields})
    require_known(config, tally.spec, "source", shares)
    return shares


def _result(config: Config, manifest: dict[str, Any], target: str, status: str, started: float) -> dict[str, Any]:
    """The job's result; its summary goes to stderr."""
    seconds = time.perf_counter() - started
    found = [Quarantined.model_validate(part) for part in manifest.get("quarantine", [])]
    say(f"scores {manifest['digest'][:12]} {status}: {target}")
    read = f" of {manifest['source_files']:,} files" if "source_files" in manifest else ""  # not in older outputs
    say(f"  {manifest['rows']:,} rows{read} in {len(manifest['files'])} files by model {manifest['model_version']}, "
        f"{sum(manifest['quarantined'].values()):,} quarantined, {manifest['filtered']:,} filtered")  # fmt: skip
    say_quarantined(config, found)
    say_moments(config.time, manifest.get("moments", []))
    say(f"  {seconds:.1f} s, {manifest['rows'] / seconds:,.0f} rows/s")
    facts = {key: value for key, value in manifest.items() if key not in ("files", "request")}
    return {**facts, "dir": target, "status": status, "files": len(manifest["files"]), "seconds": round(seconds, 3)}
