"""What a feature build says of a snapshot: the manifest, the data report, the job's result."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fieldwise.features import store
from fieldwise.features.build.passes import Written
from fieldwise.features.build.reading import Job
from fieldwise.features.columns.moment import show_moment
from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.redact import redacted
from fieldwise.features.report import report as reports
from fieldwise.features.report.drift import Distribution
from fieldwise.features.report.page import PAGE
from fieldwise.features.report.report import Report, Tally
from fieldwise.features.snapshot.manifest import ROLES, FieldCounts, Manifest, SourceEntry, snapshot_digest
from fieldwise.features.snapshot.publish import Attempt
from fieldwise.features.source.quarantine import Quarantined, by_reason
from fieldwise.features.terminal import say
from fieldwise.pipelines.build.quality import say_moments, say_quarantined


class Identity(NamedTuple):
    """What a snapshot is, before it is built."""

    id: str
    fingerprint: str
    request: str
    config: dict[str, Any]
    """As `features.snapshot.record` keeps it."""


def manifest_of(
    job: Job,
    spec: FeatureSpec,
    attempt: Attempt,
    written: Written,
    identity: Identity,
    tallies: Mapping[str, Tally],
    negative_rate: float | None,
) -> Manifest:
    """Of what the tasks reported; ``negative_rate`` is that of a training split, if there is one."""
    counts = written.counts
    return Manifest(
        spec_digest=spec.digest,
        data=attempt.data,
        slot_names=spec.slot_names,
        has_weight=job.config.weight is not None,
        files=written.files,
        quarantined=by_reason({(key[1], key[2]): n for key, n in counts.items() if key[0] == "rejected"}),
        filtered=counts["filtered",],
        dropped_negatives=counts["dropped_negatives",],
        negative_rate=negative_rate,
        fields={
            name: FieldCounts(values=tally.values, missing=tally.missing, unseen=tally.unseen)
            for name, tally in tallies.items()
        },
        joined={redacted(key[1]): counts[key] for key in sorted(counts) if key[0] == "joined"},
        digest=snapshot_digest(spec.digest, [file.identity for file in written.files]),
        id=identity.id,
        source_fingerprint=identity.fingerprint,
        sources=[SourceEntry(path=redacted(path), rows=counts["read", path]) for path in job.files],
        request=identity.request,
        config=identity.config,
        beside=written.beside,
    )


def report_of(
    job: Job,
    spec: FeatureSpec,
    manifest: Manifest,
    tallies: Mapping[str, Tally],
    written: Written,
    quarantined: Sequence[Quarantined],
) -> Report:
    """From the fields' tallies and what the tasks reported; drift is not known yet."""
    counts, time = written.counts, job.config.time
    rates: dict[str, float] = {"train": manifest.negative_rate or 1.0}
    seen = manifest.files_of(["train", "all"])
    positives = sum(file.positives for file in seen)
    negatives = sum(round((file.rows - file.positives) / rates.get(file.role, 1.0)) for file in seen)
    days = []
    for day in sorted({key[1] for key in counts if key[0] == "day"}):
        rows, clicks = ({str(role): counts[name, day, role] for role in ROLES} for name in ("day", "day_positives"))
        days.append(reports.day(day, rows, clicks, rates))
    return Report(
        rows=manifest.rows_of(ROLES),
        fields={field.name: reports.field_report(spec, field, tallies[field.name]) for field in spec.fields},
        days=days,
        moments=tuple(show_moment(moment, time.zone) for moment in written.moments) if time else (),
        hours=tuple(counts["hour", str(hour)] for hour in range(24)) if time else (),
        repeated=written.repeated,
        quarantined=tuple(quarantined),
        distribution=Distribution(
            spec_digest=spec.digest,
            label=[negatives, positives],
            fields={name: tally.groups for name, tally in tallies.items()},
        ),
        drift=None,
    )


def result_of(
    config: FeatureConfig, manifest: Manifest, report: Report, directory: str, status: str, started: float
) -> dict[str, Any]:
    """The job's result; its summary goes to stderr."""
    seconds, data = time.perf_counter() - started, store.join(directory, manifest.data)
    roles = [role for role in ROLES if manifest.files_of([role])]
    rows = {role: manifest.rows_of([role]) for role in roles}
    positives = {role: sum(file.positives for file in manifest.files_of([role])) for role in roles}
    lines = [f"snapshot {manifest.id} {manifest.digest[:12]} {status}: {directory}"]
    lines += [f"  {role:<6}{rows[role]:>12,} rows  {positives[role] / rows[role]:>8.4%} positive" for role in roles]
    bad, total = sum(manifest.quarantined.values()), sum(rows.values())
    read = None if manifest.sources is None else len(manifest.sources)
    told = "" if read is None else f"{read} source files read, "
    lines.append(f"  {told}{len(manifest.files)} files, {bad} quarantined, {manifest.filtered} filtered")
    for table, met in manifest.joined.items():
        none = "" if met else ": NO KEY OF THE LOG IS IN THE TABLE, its columns are missing in every row"
        lines.append(f"  join {table}: {met:,} rows met one of the table{none}")
    lines.append(f"  {seconds:.1f} s, {total / seconds:,.0f} rows/s; report: {data}/{PAGE}")
    say(*lines, *reports.table(report))
    say_quarantined(config, report.quarantined)
    say_moments(config.time, report.moments)
    return {
        "snapshot": manifest.id,
        "dir": directory,
        "status": status,
        "digest": manifest.digest,
        "spec_digest": manifest.spec_digest,
        "rows": rows,
        "positives": positives,
        "moments": list(report.moments),
        "quarantined": manifest.quarantined,
        "joined": manifest.joined,
        "quarantine": [part.model_dump(mode="json") for part in report.quarantined],
        "source_files": read,
        "files": len(manifest.files),
        "report": store.join(data, PAGE),
        "drift": report.drift and report.drift.model_dump(mode="json"),
        "seconds": round(seconds, 3),
    }
