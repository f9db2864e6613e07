"""The rows a spec was fitted on, as later rows are compared with them, and the thresholds that stop a scheduled run.

    <workspace>/specs/<first 16 of the spec's digest>/expected.json

It is written when a spec is fitted and outlives the snapshot it was counted on.
"""

from __future__ import annotations

from typing import NamedTuple

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, RefusedError
from fieldwise.features.fields.time import TimeField
from fieldwise.features.report.drift import Distribution, compare
from fieldwise.features.report.report import REPORT, Report
from fieldwise.features.snapshot.manifest import Manifest
from fieldwise.features.store import bounded
from fieldwise.features.terminal import say
from fieldwise.pipelines.config.schema import Config


class Expected(NamedTuple):
    """A distribution and where it was read."""

    place: str
    rows: Distribution


def spec_dir(config: Config, digest: str) -> str:
    """Where the workspace keeps what belongs to a fitted spec."""
    return store.join(config.workspace_dir, "specs", digest[:16])


def keep_expected(config: Config, rows: Distribution) -> None:
    """Remember the rows a spec was fitted on; equal rows give equal bytes."""
    path = store.join(spec_dir(config, rows.spec_digest), "expected.json")
    store.make_dir(spec_dir(config, rows.spec_digest))
    store.write_atomic(path, (rows.model_dump_json() + "\n").encode())


def kept_expected(config: Config, spec_digest: str) -> Distribution | None:
    """What the workspace remembers of the rows a spec was fitted on; None where it does not."""
    path = store.join(spec_dir(config, spec_digest), "expected.json")
    try:
        return _distribution(path)
    except (FileNotFoundError, NotADirectoryError, ArtifactError):
        return None


def _distribution(path: str) -> Distribution:
    return bounded.validated(bounded.read(path), Distribution, path, "the distribution of a snapshot's rows")


def find_expected(config: Config, spec_digest: str, against: str | None) -> Expected | None:
    """What rows of a spec are compared with: the snapshot ``against``, else what the workspace remembers of the spec.

    Raises ArtifactError where thresholds are set and neither is there: a check that was asked for is not left out.
    """
    if against is not None:
        data = store.join(against, Manifest.load(against).data)
        return Expected(against, Report.load(store.join(data, REPORT)).distribution)
    path = store.join(spec_dir(config, spec_digest), "expected.json")
    try:
        return Expected(path, _distribution(path))
    except FileNotFoundError:
        found = "no such file"
    except ArtifactError as error:
        found = error.found
    if config.drift.max_psi is None and config.drift.max_label_psi is None:
        say(f"drift is not measured: {path}: {found}")
        return None
    raise ArtifactError(
        path,
        expected="the distribution of the rows the spec was fitted on, which drift.max_psi is measured against",
        found=found,
        fix="Name the training snapshot with --against, or fit a spec in this workspace.",
    )


def with_drift(config: Config, report: Report, expected: Expected | None) -> Report:
    """The report with its drift against ``expected``."""
    drift = None
    if expected is not None:
        drift = compare(expected.rows, report.distribution, expected.place, _of_calendar(config))
    return report.model_copy(update={"drift": drift})


def _of_calendar(config: Config) -> list[str]:
    """Fields of the rows' own moments that say which day it is, not when on it."""
    column = None if config.time is None else config.time.column
    timed = [field for field in config.fields if isinstance(field, TimeField) and field.of.column == column]
    return [field.name for field in timed if field.part not in ("minute", "hour")]


def require_stable(config: Config, report: Report, snapshot: str) -> None:
    """RefusedError (exit code 3) when the drift passes a threshold of the config."""
    drift, limit = report.drift, config.drift
    if drift is None:
        return
    far = sorted(((-s.excess, name) for name, s in drift.fields.items() if s.excess > (limit.max_psi or float("inf"))))
    told = [f"field {name!r} {drift.fields[name].psi:.3f} ({_unseen(report, name)})" for _, name in far]
    wanted = [f"fields within a stability index of {limit.max_psi:g}"] if far else []
    if drift.label.excess > (limit.max_label_psi or float("inf")):
        expected, found = drift.label_rate
        told.append(f"label rate {found:.4%} instead of {expected:.4%} ({drift.label.psi:.4f})")
        wanted.append(f"a label rate within {limit.max_label_psi:g}")
    if not told:
        return
    raise RefusedError(
        f"snapshot {snapshot}",
        expected=f"{' and '.join(wanted)} of {drift.against}",
        found="; ".join(told),
        fix="The snapshot stands, nothing was trained on it. Look at its report; then mend the source and build it "
        "with --replace, or fit a new spec (--refit), or raise drift.max_psi or drift.max_label_psi.",
    )


def _unseen(report: Report, name: str) -> str:
    tally = report.fields[name].tally
    return f"{tally.unseen / max(1, tally.values):.1%} unseen, {tally.missing / max(1, tally.values):.1%} missing"
