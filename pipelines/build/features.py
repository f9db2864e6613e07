"""Build and publish one snapshot: raw logs -> field-indexed Parquet with a manifest and a spec."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from fieldwise.features import store
from fieldwise.features.build import passes
from fieldwise.features.build.counting import tally_fields
from fieldwise.features.build.files import merge_rejects
from fieldwise.features.build.passes import Written
from fieldwise.features.build.reading import Counts, Job
from fieldwise.features.build.split import TRAIN, Splitter
from fieldwise.features.columns.moment import microseconds
from fieldwise.features.config import SplitConfig
from fieldwise.features.engine.base import Engine, Shared
from fieldwise.features.errors import ArtifactError
from fieldwise.features.fields.fitting import fit_spec
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import SourceFile
from fieldwise.features.report.page import PAGE, page
from fieldwise.features.report.report import REPORT, Report
from fieldwise.features.snapshot import publish
from fieldwise.features.snapshot.manifest import MANIFEST, QUARANTINE, ROLES, Manifest, snapshot_dir, standing
from fieldwise.features.snapshot.publish import Attempt
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.log import LogReader, Period, period_of
from fieldwise.features.source.quarantine import Example
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.store.kept import digest_of
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import (
    asked_otherwise,
    beside_otherwise,
    fields_apart,
    is_dated,
    rebuild,
    shortened,
    source_files,
    source_stamps,
)
from fieldwise.pipelines.build.checks import (
    require_date,
    require_matches,
    require_readable,
    require_rows,
    require_split,
    require_weighted,
)
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.build.drift import Expected, find_expected, keep_expected, require_stable, with_drift
from fieldwise.pipelines.build.quality import require_moments
from fieldwise.pipelines.build.summary import Identity, manifest_of, report_of, result_of
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.registry import resolve_model
from fieldwise.pipelines.unchanged import require_unchanged

Late = Literal["refuse", "keep", "rebuild"]

RANGE_BYTES = 32 << 20
"""Bytes a task reads. Without the shuffle file borders follow ranges, so it is fixed, whatever the cluster."""


def build_features(
    config: Config,
    *,
    date: str | None = None,
    spec: str | None = None,
    replace: bool = False,
    against: str | None = None,
    late: Late = "refuse",
) -> dict[str, Any]:
    """Publish the snapshot ``<workspace>/snapshots/<date or all>``, report on it, and compare it with expected rows.

    Args:
        config: the pipeline.
        date: the day (YYYY-MM-DD): stands for ``{date}`` in source paths, else selects rows by the time column. A day's
            snapshot is not split.
        spec: a snapshot, bundle, registered model or spec directory whose fitted spec encodes the rows; fitted anew on
            the training rows if None. Where rows of another spec stand, the snapshot is published beside them as
            ``<id>.<spec>``.
        replace: publish even where a snapshot of another request stands, and remove that one.
        against: snapshot of the same spec to measure drift against. Default: the rows the spec was fitted on.
        late: see ``publish_snapshot``.

    Returns: the job's result: snapshot, dir, status (published, or already published), digest, rows and positives by
    role, quarantined by reason, files, drift, seconds.

    Raises: ConfigError, InputError, ArtifactError (exit code 2), RefusedError (3): nothing is published then, except
    where the drift of a whole snapshot is refused.
    """
    if date is None and spec is None:
        require_split(config)
    frozen = None if spec is None else load_spec(spec, config)
    expected = None
    if frozen is not None or against is not None:
        known = against or (spec if spec is not None and _is_snapshot(spec) else None)
        expected = find_expected(config, frozen.digest if frozen is not None else "", known)
    result, report = publish_snapshot(config, date, frozen, expected, replace=replace, late=late)
    if frozen is None:
        keep_expected(config, report.distribution)
    require_stable(config, report, result["dir"])
    return result


def publish_snapshot(
    config: Config,
    date: str | None,
    frozen: FeatureSpec | None,
    expected: Expected | None,
    *,
    replace: bool = False,
    late: Late = "refuse",
) -> tuple[dict[str, Any], Report]:
    """``build_features`` under a spec (None: fit one), compared with ``expected`` but refused by no threshold of drift.

    Args:
        late: what becomes of a snapshot that stands and answers the same config and spec, but other source files than
            there are now, because rows came late or a file was touched.

    Returns the result and the data report.
    """
    started = time.perf_counter()
    require_date(config, date)
    if date is not None:
        config = config.model_copy(update={"split": SplitConfig()})  # a day is whole: training gives days their roles
        if config.snapshot.negative_rate is not None:
            say("snapshot.negative_rate has no effect on a day: only training splits are downsampled")
    days = [date] if date else []
    files = source_files(config, days)
    stamps = source_stamps(config, files, date)
    marks = digest_of(stamps)
    request = digest_of([marks, config.features.asked(), date, frozen and frozen.digest])
    identity = Identity(_place(config, date, frozen, replace), marks, request, config.record)
    directory = snapshot_dir(config.workspace_dir, identity.id)
    publish.clean(directory)
    found = standing(directory)
    if found is not None and found.request != request and not replace:
        require_columns(config, files)  # a mistake in a name is no other config
        replace = _takes_place(config, directory, found, date, frozen, late)
    if found is not None and not replace:
        stands, status = found, "already published"
    else:
        require_columns(config, files)
        engine = open_engine(config, "features", files)
        with Attempt(directory) as attempt:
            manifest, report = _build(engine, job_of(engine, config, files, days), frozen, attempt, identity)
            report = with_drift(config, report, expected)
            report.save(store.join(attempt.data_dir, REPORT))
            title = f"{config.name}: snapshot {identity.id}"
            store.write_atomic(store.join(attempt.data_dir, PAGE), page(report, title).encode())
            require_unchanged(stamps)
            stands = attempt.publish(manifest, replace=replace)
        publish.clean(directory)
        status = "published" if stands is manifest else "already published"
    report = with_drift(config, Report.load(store.join(directory, stands.data, REPORT)), expected)
    return result_of(config, stands, report, directory, status, started), report


def _takes_place(
    config: Config, directory: str, found: Manifest, date: str | None, frozen: FeatureSpec | None, late: Late
) -> bool:
    """Whether another snapshot shall replace the standing one of another request. ArtifactError where neither may."""
    told = asked_otherwise(directory, found, config, date)
    beside = shortened(beside_otherwise(found, config))
    same_spec = frozen is not None and found.spec_digest == frozen.digest
    anew = rebuild(config, directory, date, fields=frozen is None)
    if late == "refuse" or told or not same_spec:
        differs = shortened(told) or beside or "the same config over other source files, or another spec"
        raise publish.other_request(found, directory, differs, anew)
    files = f"the source's files are not those that {directory} was built from (by path, size or time of change): "
    warn(
        (f"{directory}: {beside}: " if beside else files)
        + ("it is built again" if late == "rebuild" else f"it stands. To take them in: `{anew}`")
    )
    return late == "rebuild"


def _place(config: Config, date: str | None, frozen: FeatureSpec | None, replace: bool) -> str:
    """The snapshot's id: the day or ``all``; with the spec's digest where rows of another spec stand."""
    plain = date or "all"
    found = None if frozen is None or replace else standing(snapshot_dir(config.workspace_dir, plain))
    other = found is not None and frozen is not None and found.spec_digest != frozen.digest
    return f"{plain}.{frozen.digest[:8]}" if other and frozen is not None else plain


def _build(
    engine: Engine, job: Job, frozen: FeatureSpec | None, attempt: Attempt, identity: Identity
) -> tuple[Manifest, Report]:
    """Run the passes into the attempt's directory; the manifest to publish and the data report."""
    config = job.config
    job, spec, rows = fit(engine, job, frozen)
    written = passes.encode(engine, job, spec, attempt.data_dir, rows)
    found = require_readable(written.counts, config, written.examples)
    require_rows(written.counts, job.splitter)
    require_weighted(written.files)
    if written.counts["undrawn",]:
        warn(f"{written.counts['undrawn',]:,} negatives were not drawn, for contexts that have nearly all items")
    require_moments(config.time, written.moments)
    spec.save(attempt.data_dir)
    merge_rejects(attempt.data_dir, written.rejects, QUARANTINE)
    _remove_orphans(attempt.data_dir, written)
    rate = config.snapshot.negative_rate if TRAIN in job.splitter.roles else None
    tallies = tally_fields(engine, spec, attempt.data_dir, written.files, rate)
    manifest = manifest_of(job, spec, attempt, written, identity, tallies, rate)
    return manifest, report_of(job, spec, manifest, tallies, written, found)


def fit(engine: Engine, job: Job, frozen: FeatureSpec | None) -> tuple[Job, FeatureSpec, Counts]:
    """What must be known before rows are encoded: thresholds of the split, the spec, rows of every role."""
    config = job.config
    rows: Counts = Counter()
    if config.split.by == "time":
        job, rows = passes.survey(engine, job)
        if rows.total():  # without any, the count below says why
            require_rows(rows, job.splitter)
    job = passes.with_negatives(engine, job)
    counted = rows.total() > 0 and config.snapshot.negative_rate is None and config.negatives is None
    spec = frozen
    if spec is None or (config.snapshot.shuffle == "global" and not counted):
        values, rows = passes.tally(engine, job, fit=spec is None)
        require_readable(rows, config, (Example(*json.loads(key[1])) for key in rows if key[0] == "example"))
        require_rows(rows, job.splitter)
        spec = spec or fit_spec(config.fields, values)
    return job, spec, rows


def job_of(engine: Engine, config: Config, files: list[SourceFile], days: Sequence[str]) -> Job:
    """The build of some days, or of everything if there are none."""
    splitter = Splitter(config.split)
    require_matches(splitter, [file.path for file in files])
    reader = _reader(engine, config, period_of(config.features, days, dated=is_dated(config)))
    require_keys(config.source, files, reader.value.columns)
    job = Job(
        config=config.features,
        reader=reader,
        files=tuple(file.path for file in files),
        ranges=tuple(split_ranges(config.source, files, RANGE_BYTES)),
        bytes=sum(file.size for file in files),
        splitter=splitter,
        base=config.base,
    )
    if config.label_delay is None or days:
        return job
    settled = (-(1 << 62), passes.newest(engine, job) - microseconds(config.label_delay) + 1)
    return dataclasses.replace(job, reader=_reader(engine, config, settled))


def _reader(engine: Engine, config: Config, period: Period | None) -> Shared[LogReader]:
    keep = [*config.beside, *([config.negatives.context, config.negatives.item] if config.negatives else [])]
    return engine.share(LogReader(config.features, config.base, period=period, keep=keep))


def load_spec(place: str, config: Config) -> FeatureSpec:
    """The spec of a snapshot, bundle, registered model or directory of its own; its fields must be the config's."""
    if place.startswith("models:/"):
        place = resolve_model(place, config)
    if _is_snapshot(place):
        place = store.join(place, Manifest.load(place).data)
    spec = FeatureSpec.load(place)
    if told := fields_apart(spec, config, "spec"):
        raise ArtifactError(
            place,
            expected="a spec of the config's fields",
            found="; ".join(told),
            fix="Use the config the spec was fitted with, or build without --spec to fit anew.",
        )
    return spec


def _is_snapshot(place: str) -> bool:
    return store.exists(store.join(place, MANIFEST))


def _remove_orphans(directory: str, written: Written) -> None:
    """Files of attempts that an engine ran twice or lost: nobody names them."""
    named = {file.path for file in written.files}
    for name in store.list_sizes(directory):
        if name.startswith(tuple(f"{role}-" for role in ROLES)) and name not in named:
            store.remove(store.join(directory, name))
