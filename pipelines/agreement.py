"""Whether config, snapshots and model are of one piece. Nothing trains, measures or scores before that is known.

A snapshot's manifest and a model's bundle keep what their rows followed from (`features.snapshot.record`); it is
compared with the config of the command. Settings of model and training, layout and thresholds of snapshots do not
matter here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fieldwise.features import store
from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import ArtifactError, FieldwiseError, InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import SourceFile, list_files
from fieldwise.features.snapshot.manifest import Manifest, Snapshot
from fieldwise.features.snapshot.record import Record, differences, field_differences, same_files, without_paths
from fieldwise.features.source.log import days_read
from fieldwise.features.store.kept import digest_of
from fieldwise.features.terminal import warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.unchanged import Stamps, stamps_of

if TYPE_CHECKING:
    from fieldwise.training.network.bundle import Bundle

ROWS = ("source", "join", "label", "weight", "filter", "time", "label_delay", "negatives")
SPLIT = ("split", "snapshot")
"""Of a snapshot of everything: days are whole."""
_MOST = 8
"""Differences that are told."""


def require_snapshots(config: Config, snapshots: Iterable[Snapshot], *, named: bool) -> None:
    """ArtifactError where a snapshot is not what the config would build today.

    Args:
        named: the user has named the snapshots: they may be of other files, read as those were.
    """
    for snapshot in snapshots:
        day = snapshot.manifest.day
        told = fields_apart(snapshot.spec, config, "snapshot")
        fields = bool(told)
        if snapshot.manifest.config is not None:
            told += _rows(snapshot.manifest.config, config.record, day=day, same_paths=not named and day is None)
        if told:
            fix = (
                f"Build it again: `{rebuild(config, snapshot.dir, day, fields)}`, or use the config it was built with."
            )
            raise ArtifactError(snapshot.dir, expected="a snapshot of this config", found=shortened(told), fix=fix)


def require_roles(snapshot: Snapshot) -> None:
    """InputError where one snapshot is to train, validate and test, and was not split."""
    if snapshot.manifest.files_of(["all"]):
        raise InputError(
            f"split of {snapshot.dir}",
            expected="rows to train, validate and test on",
            found="a snapshot that was not split",
            fix="Set `split` in the config and build it again with `fieldwise features --replace`, or name snapshots "
            "by --train, --valid and --test.",
        )


def _rows(kept: Record, now: Record, *, day: str | None, same_paths: bool) -> list[str]:
    """Differences that change which rows a snapshot holds, and what they say."""
    split = [] if day else list(SPLIT)
    before, today = (
        {**record, "snapshot": {"negative_rate": record["snapshot"].get("negative_rate")}} for record in (kept, now)
    )
    return differences(before, today, [*ROWS, *split], names=("snapshot", "config"), same_paths=same_paths)


def fields_apart(spec: FeatureSpec, config: Config, name: str) -> list[str]:
    """What differs between the fields of a spec, which messages call ``name``, and those of the config."""
    return field_differences([field.config for field in spec.fields], config.fields, (name, "config"))


def rebuild(config: Config, directory: str, day: str | None, fields: bool) -> str:
    """The command that builds a snapshot again: a day under its own spec, unless its ``fields`` have changed."""
    keys = {"name", "workspace", *FeatureConfig.model_fields}
    own = [each for each in config.overrides if re.split(r"[.=]", each)[0] in keys]
    words = ["fieldwise", "features", "--config", config.file, *(word for each in own for word in ("--set", each))]
    if day is not None:
        words += ["--date", day] + ([] if fields else ["--spec", directory])
    return shlex.join([*words, "--replace"])


def say_changes(config: Config, directories: Sequence[str]) -> None:
    """Warn of snapshots whose source files have changed since, and of those that cannot tell how they were built."""
    for directory in directories:
        manifest = Manifest.load(directory)
        if manifest.config is None:
            warn(
                f"{directory} was built by an earlier version and does not tell its config: only its fields "
                "were compared. Build it again with --replace to have all of it compared."
            )
        elif manifest.config["source"]["path"] == config.record["source"]["path"]:
            day = manifest.day
            try:
                now = digest_of(source_stamps(config, source_files(config, [day] if day else []), day))
            except (FieldwiseError, OSError):  # the logs need not be at hand where models are trained
                continue
            if now != manifest.source_fingerprint:
                warn(
                    f"the source's files are not those that {directory} was built from (by path, size or time "
                    "of change). Build it again with `fieldwise features --replace` to train on what they hold now."
                )


def require_model(bundle: Bundle, config: Config, where: str, *, own_source: bool = True) -> None:
    """ArtifactError where a model's scores would not be what the config says.

    Other rows than the model has seen are scored where the command line asks for it (``--set filter=...``), with a
    warning.

    Args:
        own_source: rows are read from the config's source. False: from files named on the command line.
    """
    told = fields_apart(bundle.spec, config, "model")
    if bundle.record is not None:
        now = without_paths(config.record)
        meant = {override.partition("=")[0] for override in config.overrides} & {"weight", "filter"}
        told += _of_model(bundle.record, now, [key for key in ("label", "weight", "filter") if key not in meant])
        told += same_files(bundle.record, now, source=own_source)
        others = _of_model(bundle.record, now, sorted(meant))
        if others and not told:
            warn(f"{where} was trained on other rows than these: {shortened(others)}")
    if told:
        raise ArtifactError(
            where,
            expected="a model of this config",
            found=shortened(told),
            fix="Use the config the model was trained with, or train one with this config.",
        )


def _of_model(kept: Record, now: Record, keys: Sequence[str]) -> list[str]:
    return differences(kept, now, keys, names=("model", "config"), same_paths=False)


def require_measurable(bundle: Bundle, snapshots: Iterable[Snapshot], where: str) -> None:
    """ArtifactError where a model predicts another label than a snapshot holds; other differences are said."""
    for snapshot in snapshots:
        kept = snapshot.manifest.config
        if bundle.record is None or kept is None:
            continue
        found, sides = without_paths(kept), ("model", "snapshot")
        if told := differences(bundle.record, found, ["label"], names=sides, same_paths=False):
            raise ArtifactError(
                snapshot.dir,
                expected=f"rows of the label that {where} was trained on",
                found=shortened(told),
                fix="Name a model of this label, or a snapshot of the model's.",
            )
        if told := differences(bundle.record, found, ["weight", "filter"], names=sides, same_paths=False):
            warn(f"{where} was trained on other rows than {snapshot.dir} holds: {shortened(told)}")


def asked_otherwise(directory: str, found: Manifest, config: Config, day: str | None) -> list[str]:
    """In which ways a snapshot that stands was asked for otherwise; none where only its source's files have changed."""
    told = fields_apart(FeatureSpec.load(store.join(directory, found.data)), config, "snapshot")
    if found.config is not None:
        keys = [*ROWS, *(["snapshot"] if day else SPLIT)]
        told += differences(found.config, config.record, keys, names=("snapshot", "config"), same_paths=True)
    return told


def beside_otherwise(found: Manifest, config: Config) -> list[str]:
    """Whether other columns travel beside a snapshot's rows than the config names; the rows are the same."""
    sides = ("snapshot", "config")
    return (
        [] if found.config is None
        else differences(found.config, config.record, ["beside"], names=sides, same_paths=True)
    )  # fmt: skip


def shortened(differences: Sequence[str]) -> str:
    """For a message."""
    more = f"; and {len(differences) - _MOST} more" if len(differences) > _MOST else ""
    return "; ".join(differences[:_MOST]) + more


def source_files(config: Config, days: Sequence[str]) -> list[SourceFile]:
    """Source files of the days (none: of everything), those that labels came late to included."""
    if not is_dated(config):
        return list_files(config.source, config.base, None)
    found = [file for day in days_read(config.features, days) for file in list_files(config.source, config.base, day)]
    return list(dict.fromkeys(found))


def is_dated(config: Config) -> bool:
    """Whether a day's rows are chosen by the source's path."""
    return any("{date}" in path for path in config.source.path)


def source_stamps(config: Config, files: Sequence[SourceFile], date: str | None) -> Stamps:
    """Of the files that a snapshot is built from, those of side tables too."""
    others = [*config.join, *([config.negatives.items] if config.negatives else [])]
    return stamps_of([*files, *(file for source in others for file in list_files(source, config.base, date))])
