"""Metrics of a model on published snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fieldwise.features.errors import ArtifactError, ConfigError
from fieldwise.features.snapshot.manifest import MOST_TEXTS, Beside, Snapshot, beside_name, load_snapshot, snapshot_dir
from fieldwise.pipelines.agreement import rebuild, require_measurable, require_snapshots, say_changes
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.train.measured import say_group, say_metrics, say_slices
from fieldwise.training.data.cache import Seen, copies_of
from fieldwise.training.data.splits import Split, TrainData
from fieldwise.training.evaluation.apart import Groups, Slices
from fieldwise.training.evaluation.cuts import Columns
from fieldwise.training.evaluation.evaluate import evaluate
from fieldwise.training.evaluation.reliability import Reliability
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.world import World


def evaluate_model(
    config: Config, *, snapshots: list[str] | None = None, model: str | None = None, role: str = "test"
) -> dict[str, Any]:
    """Score every row of one role and measure; ``reliability`` is that of all rows, and of each value of the fields
    and columns that ``evaluation.slices`` names.

    Args:
        snapshots: default: the workspace's ``all``. Unsplit (daily) snapshots count for any role.
        model: reference; default: the champion.

    Raises:
        ArtifactError: model and snapshots do not share one spec.
        InputError: no rows of that role, or of one class only.
    """
    opened_model = open_model(model, config)
    bundle = opened_model.bundle
    split, opened = open_split(config, {model or "the champion": bundle}, snapshots, role)
    world = World()
    world.use_threads(config.training.threads)
    apart = config.evaluation
    columns = Columns(bundle.spec, _beside(config, opened), apart.names)
    groups = None if apart.group is None else Groups(columns, apart.group)
    slices = Slices(columns, apart.slices, apart.group) if apart.slices else None
    curves = Reliability(columns, apart.slices)
    found = evaluate(
        Network.from_bundle(bundle), split, world, logit_shift=bundle.logit_shift, calibrator=bundle.calibrator,
        seen=Seen(verify=True, reader=config.training.reader, copies=copies_of(config.training)),
        observers=[each.add for each in (groups, slices, curves) if each is not None],
        beside=[beside_name(at) for at in columns.read],
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


def open_split(
    config: Config, models: Mapping[str, Bundle], snapshots: Sequence[str] | None, role: str
) -> tuple[Split, list[Snapshot]]:
    """The rows of a role to measure models on, which messages call by their names, and the snapshots they are of.

    Raises what `evaluate_model` raises, and ConfigError for another role.
    """
    if role not in ("train", "valid", "test"):
        raise ConfigError("role", expected="train, valid or test", found=repr(role), fix="Name one of these.")
    opened = [load_snapshot(path) for path in snapshots or [snapshot_dir(config.workspace_dir, "all")]]
    require_snapshots(config, opened, named=bool(snapshots))
    say_changes(config, [snapshot.dir for snapshot in opened])
    for name, bundle in models.items():
        require_measurable(bundle, opened, name)
        for snapshot in opened:
            if snapshot.spec.digest != bundle.spec.digest:
                raise ArtifactError(
                    snapshot.dir,
                    expected=f"feature spec {bundle.spec.digest[:12]} of {name}",
                    found=f"spec {snapshot.spec.digest[:12]}",
                    fix="Build the snapshot with the model's spec (--spec), or name another model.",
                )
    roles: dict[str, list[Snapshot]] = {"train": [], "valid": [], "test": [], role: opened}
    split: Split = getattr(TrainData.of(**roles), role)
    split.require_both_classes()
    return split, opened


def _beside(config: Config, snapshots: Sequence[Snapshot]) -> list[Beside]:
    """What travels beside the rows of all snapshots: of a column's values those of any.

    ArtifactError for one that lacks a column which is to tell rows apart, or has them in another order.
    """
    first, *others = (snapshot.manifest.beside for snapshot in snapshots)
    wanted = [name for name in config.evaluation.names if name in config.beside]
    for snapshot in snapshots:
        names = [each.column for each in snapshot.manifest.beside]
        lacking = [name for name in wanted if name not in names]
        if lacking or (wanted and names != [each.column for each in first]):
            day = snapshot.manifest.day
            raise ArtifactError(
                snapshot.dir, expected=f"the columns {', '.join(config.beside)} beside its rows",
                found=", ".join(names) or "none", fix=f"Build it again: `{rebuild(config, snapshot.dir, day, False)}`.",
            )  # fmt: skip
    return [
        Beside(column=one.column, values=_together([one, *same])) for one, *same in zip(first, *others, strict=True)
    ] if wanted else []  # fmt: skip


def _together(columns: Sequence[Beside]) -> list[str] | None:
    every = {value for column in columns for value in column.values or ()}
    return None if len(every) > MOST_TEXTS or any(column.values is None for column in columns) else sorted(every)
