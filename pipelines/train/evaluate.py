"""Metrics of a model on published snapshots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fieldwise.features.errors import ArtifactError, ConfigError
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot, snapshot_dir
from fieldwise.pipelines.agreement import require_measurable, require_snapshots, say_changes
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import OpenedModel, open_model
from fieldwise.pipelines.train.measured import say_group, say_metrics, say_slices
from fieldwise.training.data.cache import Seen
from fieldwise.training.data.splits import Split, TrainData
from fieldwise.training.evaluation.apart import Groups, Slices
from fieldwise.training.evaluation.evaluate import evaluate
from fieldwise.training.evaluation.reliability import Reliability
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World


def evaluate_model(
    config: Config, *, snapshots: list[str] | None = None, model: str | None = None, role: str = "test"
) -> dict[str, Any]:
    """Score every row of one role and measure; ``reliability`` is that of all rows, and of each value of the fields
    that ``evaluation.slices`` names.

    Args:
        snapshots: default: the workspace's ``all``. Unsplit (daily) snapshots count for any role.
        model: reference; default: the champion.

    Raises:
        ArtifactError: model and snapshots do not share one spec.
        InputError: no rows of that role, or of one class only.
    """
    opened_model = open_model(model, config)
    bundle = opened_model.bundle
    split = measured_split(config, opened_model, snapshots, role, model or "the champion")
    world = World()
    world.use_threads(config.training.threads)
    apart = config.evaluation
    groups = None if apart.group is None else Groups(bundle.spec, apart.group)
    slices = Slices(bundle.spec, apart.slices, apart.group) if apart.slices else None
    curves = Reliability(bundle.spec, apart.slices)
    found = evaluate(
        Network.from_bundle(bundle), split, world, logit_shift=bundle.logit_shift, calibrator=bundle.calibrator,
        seen=Seen(verify=True, reader=config.training.reader),
        observers=[each.add for each in (groups, slices, curves) if each is not None],
    )  # fmt: skip
    say_metrics({role: found})
    metrics = found.told()
    more: dict[str, Any] = {}
    if groups is not None:
        more["group"] = {"field": apart.group, **groups.values()}
        say_group(more["group"])
    if slices is not None:
        told = slices.found()
        more["slices"] = [asdict(each) for each in told]
        say_slices(told)
    return {
        "model": bundle.digest,
        "used_model": opened_model.facts,
        "role": role,
        "rows": metrics.pop("rows"),
        "positives": metrics.pop("positives"),
        "metrics": metrics,
        "calibration": None if bundle.calibrator is None else bundle.calibrator.method,
        "reliability": {"all": asdict(found.curve)} | curves.by_slice(),
        **more,
    }


def measured_split(
    config: Config, opened_model: OpenedModel, paths: Sequence[str] | None, role: str, named: str
) -> Split:
    """The rows of a role in snapshots (default: the workspace's ``all``) that a model can be measured on. Raises: see
    ``evaluate_model``."""
    if role not in ("train", "valid", "test"):
        raise ConfigError("role", expected="train, valid or test", found=repr(role), fix="Name one of these.")
    bundle = opened_model.bundle
    opened = [load_snapshot(path) for path in paths or [snapshot_dir(config.workspace_dir, "all")]]
    require_snapshots(config, opened, named=paths is not None)
    say_changes(config, [snapshot.dir for snapshot in opened])
    require_measurable(bundle, opened, named)
    for snapshot in opened:
        if snapshot.spec.digest != bundle.spec.digest:
            raise ArtifactError(
                snapshot.dir,
                expected=f"feature spec {bundle.spec.digest[:12]} of the model",
                found=f"spec {snapshot.spec.digest[:12]}",
                fix="Build the snapshot with the model's spec (--spec), or name another model.",
            )
    roles: dict[str, list[Snapshot]] = {"train": [], "valid": [], "test": [], role: opened}
    split: Split = getattr(TrainData.of(**roles), role)
    split.require_both_classes()
    return split
