"""What a training leaves for people: one page of all that is known of it, and a model card."""

from __future__ import annotations

import resource
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fieldwise.features import store
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.redact import redacted
from fieldwise.features.report.report import REPORT, Report
from fieldwise.features.snapshot.manifest import ROLES, Manifest
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.importance import sample_of
from fieldwise.training.data.batch import Batch
from fieldwise.training.data.splits import Split, TrainData
from fieldwise.training.evaluation.apart import Slice, Slices
from fieldwise.training.evaluation.cuts import Columns
from fieldwise.training.loop.run import TrainResult, TrainRun
from fieldwise.training.network.bundle import Bundle, load_bundle
from fieldwise.training.network.calibration import measured_logits
from fieldwise.training.scoring.importance import Importance, importance, rows_for
from fieldwise.training.scoring.scorer import Scorer

PAGE = "report.html"
_SAMPLE = 100_000
"""Rows that slices are measured on."""
_SLICE_VALUES, _SLICE_FIELDS = 40, 4
"""Of fields that are sliced where the config names none: values at most, and how many fields."""
_FEWEST = 30
"""Rows of a class below which a slice says nothing."""


@dataclass(frozen=True)
class SnapshotFacts:
    """What a report says of the data."""

    id: str
    digest: str
    rows: dict[str, int]
    positives: dict[str, int]
    quarantined: int
    fields: dict[str, tuple[float, float]]
    """Shares of missing and of unseen values."""
    drift: dict[str, float]
    """Of fields, beyond chance; empty where it was not measured."""


@dataclass(frozen=True)
class Facts:
    """All that the page shows."""

    title: str
    kind: str
    settings: dict[str, Any]
    spec: FeatureSpec
    result: TrainResult
    seen_on: str
    """Role of the rows that importance and slices are of."""
    sampled: int
    slices: list[Slice]
    importance: Importance
    snapshots: list[SnapshotFacts]
    speed: dict[str, str]
    command: str
    """Words of a shell."""


def facts_of(
    config: Config, days: Days, directories: Sequence[str], task: TrainRun, result: TrainResult, *, ranks: int,
    threads: int,
) -> Facts:  # fmt: skip
    """Of a training that has just ended; its bundle is opened once more, and a sample of rows is read."""
    bundle = load_bundle(result.bundle_dir)
    split = next(split for split in (task.data.test, task.data.valid, task.data.train) if split.files)
    scorer = Scorer(bundle)
    sample = sample_of(split, bundle.spec, _SAMPLE)
    rows = rows_for(len(bundle.spec.fields), scorer.model.kind.pairwise)
    weight = None if sample.weight is None else sample.weight[:rows]
    found = importance(scorer, np.ascontiguousarray(sample.slots[:rows]), sample.label[:rows], weight)
    seconds = sum(record.seconds for record in result.history)
    speed = {
        "training steps": f"{seconds:.1f} s",
        "rows per second": f"{result.rows_per_second:,.0f}",
        "processes": f"{ranks}, {threads} threads each",
        "memory of the first process, at most": f"{_peak_bytes() / 1e6:,.0f} MB",
        "table": f"{bundle.weight.shape[0]:,} x {bundle.weight.shape[1]} numbers, {bundle.weight.nbytes / 1e6:,.1f} MB",
        "versions": ", ".join([*_versions(), f"Python {sys.version.split()[0]}"]),
    }
    return Facts(
        title=f"{config.name}: {bundle.kind} {bundle.digest[:12]}",
        kind=bundle.kind,
        settings={
            **task.model.model_dump(exclude_none=True),
            **task.training.model_dump(exclude={"checkpoint"}, exclude_none=True),
        },
        spec=bundle.spec,
        result=result,
        seen_on=split.role,
        sampled=sample.rows,
        slices=_slices(config, bundle, scorer, found, split, sample),
        importance=found,
        snapshots=[_snapshot(directory) for directory in directories],
        speed=speed,
        command=command_of(config, days, ranks),
    )


def command_of(config: Config, days: Days, ranks: int) -> str:
    """What trains the same model again, without passwords."""
    words = ["fieldwise", "train", "--config", config.file]
    words += [word for override in config.overrides for word in ("--set", override)]
    words += [word for role, paths in asdict(days).items() for path in paths for word in (f"--{role}", path)]
    return redacted(shlex.join(words + ([] if ranks == 1 else ["--ranks", str(ranks)])))


def stage_report(folder: Path, facts: Facts) -> str:
    """Write the page, and its pictures as files; returns its path."""
    from fieldwise.pipelines.train.page import page, pictures

    (folder / "plots").mkdir(exist_ok=True)
    for name, picture in pictures(facts).items():
        (folder / "plots" / f"{name}.svg").write_text(picture.alone(), encoding="utf-8")
    path = folder / PAGE
    path.write_text(page(facts), encoding="utf-8")
    return str(path)


def _versions() -> Iterator[str]:
    """Of what decides speed and numbers; a checkout that was not installed has no version."""
    for name in ("fieldwise", "torch", "numba", "pyarrow"):
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


def _peak_bytes() -> int:
    """The most memory that this process has had; macOS counts bytes, others kilobytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _slices(
    config: Config, bundle: Bundle, scorer: Scorer, found: Importance, split: Split, sample: Batch
) -> list[Slice]:
    """Of the fields that the config names, else of those of few values that matter most; the worst first. Columns
    beside the rows, which training does not read, are for ``evaluate``."""
    spec, apart = bundle.spec, config.evaluation
    shares = found.hidden if found.fields is None else found.fields
    order = sorted(range(len(spec.fields)), key=lambda f: -shares[f])
    small = [spec.fields[f] for f in order if spec.fields[f].slots == 1 and spec.fields[f].values <= _SLICE_VALUES]
    fields = {field.name for field in spec.fields}
    asked = [name for name in apart.slices if name in fields]
    names = asked or [field.name for field in small[:_SLICE_FIELDS]]
    slices = Slices(Columns(spec), names, apart.group if asked and apart.group in fields else None)
    raw = scorer.logits(np.ascontiguousarray(sample.slots))
    slices.add(
        sample, measured_logits(raw, bundle.logit_shift, bundle.calibrator, downsampled=bool(split.negative_rate))
    )
    return [each for each in slices.found() if min(each.positives, each.rows - each.positives) >= _FEWEST]


def _snapshot(directory: str) -> SnapshotFacts:
    manifest = Manifest.load(directory)
    roles = [role for role in ROLES if manifest.files_of([role])]
    place = store.join(directory, manifest.data, REPORT)
    report = Report.load(place) if store.exists(place) else None
    drift = report.drift.fields if report is not None and report.drift is not None else {}
    return SnapshotFacts(
        id=manifest.id,
        digest=manifest.digest,
        rows={role: manifest.rows_of([role]) for role in roles},
        positives={role: sum(file.positives for file in manifest.files_of([role])) for role in roles},
        quarantined=sum(manifest.quarantined.values()),
        fields={
            name: (counts.missing / max(1, counts.values), counts.unseen / max(1, counts.values))
            for name, counts in manifest.fields.items()
        },
        drift={name: shift.excess for name, shift in drift.items()},
    )


def used_snapshots(data: TrainData) -> str:
    """Their ids and digests, for tags and cards."""
    return ", ".join(f"{Path(name).name} {digest[:12]}" for name, digest in data.snapshots.items())
