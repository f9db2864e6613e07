"""Build and publish one snapshot: raw logs -> field-indexed Parquet with a manifest and a spec."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from datetime import date as Date
from typing import Any, NamedTuple

from pyspark.sql import SparkSession

from features import publish, store
from features.config import FeatureConfig, SplitConfig
from features.errors import ArtifactError, ConfigError, InputError, RefusedError
from features.fitting import fit_spec
from features.log import LogReader
from features.manifest import (
    MANIFEST,
    QUARANTINE,
    ROLES,
    FieldCounts,
    Manifest,
    snapshot_digest,
    snapshot_dir,
    standing,
)
from features.publish import Attempt
from features.source import SourceFile, list_files, split_ranges
from features.spark import build
from features.spark.build import Written
from features.spark.files import merge_rejects
from features.spark.reading import Counts, Job
from features.spark.session import spark_session
from features.spark.split import Splitter
from features.spec import FeatureSpec
from pipelines.config import Config

RANGE_BYTES = 32 << 20
"""Bytes a task reads. Without the shuffle file borders follow ranges, so it is fixed, whatever the cluster."""


class Identity(NamedTuple):
    """What a snapshot is, before it is built."""

    id: str
    fingerprint: str
    request: str


def build_features(
    config: Config, *, date: str | None = None, spec: str | None = None, replace: bool = False
) -> dict[str, Any]:
    """Publish the snapshot ``<workspace>/snapshots/<date or all>`` and say what is in it.

    Args:
        config: the pipeline.
        date: the day (YYYY-MM-DD): stands for ``{date}`` in source paths, else selects rows by the time column. A day's
            snapshot is not split.
        spec: a snapshot or bundle whose fitted spec encodes the rows; fitted anew on the training rows if None.
        replace: publish even where a snapshot of another request stands, and remove that one.

    Returns: the job's result: snapshot, dir, status (published, or already published), digest, rows and positives by
    role, quarantined by reason, files, seconds.

    Raises: ConfigError, InputError, ArtifactError (exit code 2), RefusedError (3): nothing is published then.
    """
    started = time.perf_counter()
    _require_date(config, date)
    if date is not None:
        config = config.model_copy(update={"split": SplitConfig()})  # a day is whole: training gives days their roles
    frozen = None if spec is None else _load_spec(spec, config)
    directory = snapshot_dir(config.workspace_dir, date or "all")
    files = list_files(config.source, config.base, date)
    fingerprint = _fingerprint(config, files, date)
    request = _digest([fingerprint, config.features.model_dump(mode="json"), date, frozen and frozen.digest])
    publish.clean(directory)
    found = standing(directory)
    if found is not None and not replace:
        return _result(publish.same_request(found, request, directory), directory, "already published", started)
    spark = spark_session("fieldwise features")
    job = _job(spark, config, files, date)
    with Attempt(directory) as attempt:
        manifest = _build(spark, job, frozen, attempt, Identity(date or "all", fingerprint, request))
        stands = attempt.publish(manifest, replace=replace)
    publish.clean(directory)
    status = "published" if stands is manifest else "already published"
    return _result(stands, directory, status, started)


def _build(spark: SparkSession, job: Job, frozen: FeatureSpec | None, attempt: Attempt, identity: Identity) -> Manifest:
    """Run the passes into the attempt's directory; the manifest to publish."""
    config = job.config
    rows: Counts = Counter()
    if config.split.by == "time":
        job, rows = build.survey(spark, job)
        _require_rows(rows, job.splitter)
    counted = bool(rows) and config.snapshot.negative_rate is None
    spec = frozen
    if spec is None or (config.snapshot.shuffle == "global" and not counted):
        values, rows = build.tally(spark, job, fit=spec is None)
        _require_quality(rows, config)
        _require_rows(rows, job.splitter)
        spec = spec or fit_spec(config.fields, values)
    written = build.encode(spark, job, spec, attempt.data_dir, rows)
    _require_quality(written.counts, config, written.examples)
    _require_rows(written.counts, job.splitter)
    spec.save(attempt.data_dir)
    merge_rejects(attempt.data_dir, written.rejects, QUARANTINE)
    _remove_orphans(attempt.data_dir, written)
    return _manifest(job, spec, attempt, written, identity)


def _manifest(job: Job, spec: FeatureSpec, attempt: Attempt, written: Written, identity: Identity) -> Manifest:
    counts = written.counts
    return Manifest(
        spec_digest=spec.digest,
        data=attempt.data,
        slot_names=spec.slot_names,
        has_weight=job.config.weight is not None,
        files=written.files,
        quarantined=_by_reason(counts),
        filtered=counts["filtered",],
        dropped_negatives=counts["dropped_negatives",],
        negative_rate=job.config.snapshot.negative_rate,
        fields={
            f.name: FieldCounts(missing=counts["missing", f.name], unseen=counts["unseen", f.name]) for f in spec.fields
        },
        digest=snapshot_digest(spec.digest, [file.sha256 for file in written.files]),
        id=identity.id,
        source_fingerprint=identity.fingerprint,
        request=identity.request,
    )


def _require_date(config: Config, date: str | None) -> None:
    """A day is a date, and something selects its rows."""
    dated = any("{date}" in path for path in config.source.path)
    if date is None:
        if dated:
            raise ConfigError(
                "source.path",
                expected="a day, because the path holds {date}",
                found="none",
                fix="Pass --date YYYY-MM-DD.",
            )
        return
    try:
        if Date.fromisoformat(date).isoformat() != date:
            raise ValueError(date)
    except ValueError:
        raise ConfigError("--date", expected="YYYY-MM-DD", found=repr(date), fix="Write the day in full.") from None
    if not dated and config.time is None:
        raise ConfigError(
            "time",
            expected="a time column to select the day by",
            found="none, nor {date} in source.path",
            fix="Name the time column, or put {date} into source.path.",
        )


def _job(spark: SparkSession, config: Config, files: list[SourceFile], date: str | None) -> Job:
    splitter = Splitter(config.split)
    if config.split.by == "time" and config.time is None:
        raise ConfigError("split.by", expected="a time column", found="no `time`", fix="Name it: `time: COLUMN`.")
    _require_matches(splitter, [file.path for file in files])
    dated = any("{date}" in path for path in config.source.path)
    reader = LogReader(config.features, config.base, date=None if dated else date)
    return Job(
        config=config.features,
        reader=spark.sparkContext.broadcast(reader),
        files=tuple(file.path for file in files),
        ranges=tuple(split_ranges(config.source, files, RANGE_BYTES)),
        bytes=sum(file.size for file in files),
        splitter=splitter,
    )


def _load_spec(place: str, config: Config) -> FeatureSpec:
    """The spec of a snapshot or bundle; its fields must be the config's."""
    if store.exists(store.join(place, MANIFEST)):
        place = store.join(place, Manifest.load(place).data)
    spec = FeatureSpec.load(place)
    theirs, ours = {f.name: f.config for f in spec.fields}, {f.name: f for f in config.fields}
    if list(theirs.items()) != list(ours.items()):
        names = sorted(n for n in theirs.keys() | ours.keys() if theirs.get(n) != ours.get(n)) or ["their order"]
        raise ArtifactError(
            place,
            expected="a spec of the config's fields",
            found=f"differences in {', '.join(names)}",
            fix="Use the config the spec was fitted with, or build without --spec to fit anew.",
        )
    return spec


def _fingerprint(config: Config, files: list[SourceFile], date: str | None) -> str:
    paths = [file.path for file in files] + [
        file.path for join in config.join for file in list_files(join, config.base, date)
    ]
    return _digest([[path, store.stamp(path)] for path in paths])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _by_reason(counts: Counts) -> dict[str, int]:
    return {key[1]: count for key, count in sorted(counts.items()) if key[0] == "rejected"}


def _require_matches(splitter: Splitter, paths: list[str]) -> None:
    """Split by files: every role has a file."""
    if splitter.config.by != "files":
        return
    found = {splitter.of_path(path) for path in paths}
    for role in splitter.roles:
        if role not in found:
            raise InputError(
                f"split.{ROLES[role]}",
                expected="at least one source file",
                found=f"none of {len(paths)}",
                fix="Correct the glob patterns of split.valid and split.test.",
            )


def _require_rows(counts: Counts, splitter: Splitter) -> None:
    """Every split has rows, and training both classes (when counted)."""
    if not any(count for key, count in counts.items() if key[0] == "rows"):
        raise InputError("source", expected="rows", found="none", fix="Check source.path, filter and --date.")
    for role in (ROLES[role] for role in splitter.roles):
        if not counts["rows", role]:
            raise InputError(
                f"split.{role}",
                expected="at least one row",
                found="none",
                fix="Give the split a larger share, or more data: equal times and equal keys stay together.",
            )
    rows, positives = counts["rows", "train"], counts["positives", "train"]
    if any(key[0] == "positives" for key in counts) and rows and positives in (0, rows):
        raise InputError(
            "label",
            expected="both classes among the training rows",
            found=f"{positives} positives of {rows} rows",
            fix="Check the label expression and the split.",
        )


def _require_quality(counts: Counts, config: FeatureConfig, examples: list[list[str]] | None = None) -> None:
    """Stop above ``max_bad_fraction``, with the top reasons and an example of each."""
    reasons = Counter(_by_reason(counts))
    good = (
        sum(count for key, count in counts.items() if key[0] == "rows")
        + counts["filtered",]
        + counts["dropped_negatives",]
    )
    bad = reasons.total()
    if bad <= config.snapshot.max_bad_fraction * (good + bad):
        return
    seen = examples if examples is not None else [list(key[1:]) for key in counts if key[0] == "example"]
    told = []
    for reason, count in reasons.most_common(3):
        first = min(example[1:] for example in seen if example[0] == reason)
        told.append(f"{reason}: {count} (such as {first[0]}: {first[1]!r})")
    raise RefusedError(
        "source",
        expected=f"at most {config.snapshot.max_bad_fraction:.4%} unreadable rows",
        found=f"{bad} of {good + bad} ({bad / (good + bad):.4%}): {'; '.join(told)}",
        fix="Mend the source or its description, or raise snapshot.max_bad_fraction.",
    )


def _remove_orphans(directory: str, written: Written) -> None:
    """Files of attempts that Spark ran twice or lost: nobody names them."""
    named = {file.path for file in written.files}
    for name in store.list_sizes(directory):
        if name.startswith(tuple(f"{role}-" for role in ROLES)) and name not in named:
            store.remove(store.join(directory, name))


def _result(manifest: Manifest, directory: str, status: str, started: float) -> dict[str, Any]:
    """The job's result; its summary goes to stderr."""
    seconds = time.perf_counter() - started
    roles = [role for role in ROLES if manifest.files_of([role])]
    rows = {role: manifest.rows_of([role]) for role in roles}
    positives = {role: sum(file.positives for file in manifest.files_of([role])) for role in roles}
    lines = [f"snapshot {manifest.id} {manifest.digest[:12]} {status}: {directory}"]
    lines += [f"  {role:<6}{rows[role]:>12,} rows  {positives[role] / rows[role]:>8.4%} positive" for role in roles]
    bad, total = sum(manifest.quarantined.values()), sum(rows.values())
    lines.append(f"  {len(manifest.files)} files, {bad} quarantined, {manifest.filtered} filtered")
    lines.append(f"  {seconds:.1f} s, {total / seconds:,.0f} rows/s")
    for name, counts in manifest.fields.items():
        lines.append(f"  {name:<20} missing {counts.missing / total:>8.3%}  unseen {counts.unseen / total:>8.3%}")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201
    return {
        "snapshot": manifest.id,
        "dir": directory,
        "status": status,
        "digest": manifest.digest,
        "spec_digest": manifest.spec_digest,
        "rows": rows,
        "positives": positives,
        "quarantined": manifest.quarantined,
        "files": len(manifest.files),
        "seconds": round(seconds, 3),
    }
