"""Remove days' snapshots, trainings and model versions past their retention, and none that something still needs."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fieldwise.features import store
from fieldwise.features.columns.day import day_of
from fieldwise.features.columns.moment import DAY, microseconds
from fieldwise.features.errors import BusyError, ConfigError
from fieldwise.features.snapshot import publish
from fieldwise.features.snapshot.manifest import MANIFEST, snapshot_dir, standing
from fieldwise.features.terminal import say
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.decision import decisions_of
from fieldwise.pipelines.registry import registry
from fieldwise.training.tracking.journal import Send, open_training, trainings

_DAILY = re.compile(r"daily (\d{4}-\d{2}-\d{2})")
_DATED = re.compile(r"(\d{4}-\d{2}-\d{2})(\.[0-9a-f]{8})?")


def prune(config: Config, *, dry_run: bool = False) -> dict[str, Any]:
    """Remove the snapshots of days older than ``retention`` before the newest day that was published.

    Kept whatever their age: snapshots that a registered model with an alias (champion, challenger, any other) was
    trained or measured on, those of trainings that MLflow knows as running, those that a living job has a lease on, and
    snapshots of no day (``all``). A snapshot is first moved out of sight as a whole, then deleted. Of the trainings of
    ``daily`` goes what the workspace keeps beside MLflow: bundle and reports, once all of it has been sent.

    Versions of the registered model go with their bundles, runs stay. A version's day is that of the last decision
    about it, else the day it was made. Kept whatever their age: versions with an alias, the one that a rollback would
    restore, and those that decisions of kept days name.

    Returns: removed, kept (name to reason, of those past their retention), dry_run.
    Raises ConfigError without a retention, or when it would take days that ``daily`` trains on.
    """
    if config.retention is None:
        fix = "Set `retention: 30d`, or pass --keep 30d."
        raise ConfigError("retention", expected="how long snapshots are kept", found="none", fix=fix)
    least = config.daily.window + 1
    retention = microseconds(config.retention)
    if retention < least * DAY:
        fix = "Keep more, or train on fewer days (daily.window)."
        raise ConfigError("retention", expected=f"at least {least}d", found=config.retention, fix=fix)
    place = store.join(config.workspace_dir, "snapshots")
    if not dry_run:
        publish.bury(place)
    days = {name: day for name in store.list_sizes(place) if (day := _day(name)) is not None}
    first_kept = _first_kept((day for name, day in days.items() if _is_published(place, name)), retention)
    old = sorted(name for name, day in days.items() if day < first_kept)
    needed = registry(config).snapshots_in_use(config.experiment)
    removed, kept = [], {}
    for name in old:
        directory = snapshot_dir(config.workspace_dir, name)
        manifest = standing(directory)
        reason = needed.get(manifest.digest) if manifest else None
        reason = reason or ("a job is working on it" if publish.in_use(directory) else None)
        if reason:
            kept[name] = reason
            continue
        if not dry_run and not publish.retire(directory):
            kept[name] = "a job began to work on it"
            continue
        removed.append(name)
    for name, training in _trainings(config, first_kept):
        if not dry_run:
            store.remove_tree(training)
        removed.append(f"training of {name}")
    for version, reason in _versions(config, first_kept).items():
        name = f"models:/{config.model_name}/{version}"
        stays = reason or registry(config).held(version)
        if stays:
            kept[name] = stays
            continue
        if not dry_run:
            registry(config).remove(version)
        removed.append(name)
    lines = [f"{name}: {'would be ' if dry_run else ''}removed" for name in removed]
    lines += [f"{name}: kept, {reason}" for name, reason in kept.items()]
    say(*(lines or ["nothing is past its retention"]))
    return {"removed": removed, "kept": kept, "dry_run": dry_run}


def _day(name: str) -> str | None:
    """Of a day's snapshot."""
    match = _DATED.fullmatch(name)
    with suppress(ConfigError):  # no day of the calendar
        return None if match is None else str(day_of(match[1]))
    return None


def _is_published(place: str, name: str) -> bool:
    """A build that failed, of a day that was mistyped, leaves a directory of that name: no day ended there."""
    return store.exists(store.join(place, name, MANIFEST))


def _first_kept(days: Iterable[str], retention: int) -> str:
    """The first day that ends no more than ``retention`` before the end of the newest one; empty where all do."""
    newest = max(days, default=None)
    return "" if newest is None else str(day_of(newest) - datetime.timedelta(microseconds=retention - DAY))


def _versions(config: Config, first_kept: str) -> dict[str, str | None]:
    """Versions before a day that nothing in the registry points to; why they stay all the same, or None."""
    decisions, own = decisions_of(config), f"models:/{config.model_name}/"
    last: dict[str, str] = {}
    named: dict[str, str] = {}
    for each in decisions:
        day = each.date or each.time[:10]
        if each.challenger is not None:
            last[each.challenger] = max(day, last.get(each.challenger, ""))
        if day >= first_kept:
            parent = (each.parent or "").removeprefix(own)
            for version in (each.champion, each.challenger, each.now, parent):
                if version:
                    named[version] = f"a decision of {day} names it"
    old = {version: last.get(version, str(made.date())) for version, made in registry(config).unaliased().items()}
    return {version: named.get(version) for version, day in old.items() if day < first_kept}


def _trainings(config: Config, first_kept: str) -> list[tuple[str, str]]:
    """Name and directory of the dates' trainings before a day that MLflow has all of."""
    found = []
    for training in trainings(config.workspace_dir):
        with (
            suppress(BusyError),
            open_training(
                training, _nothing_to_send, scratch=config.training.scratch, reports_alone=True, patience=0
            ) as journal,
        ):
            match = _DAILY.fullmatch(str(journal.opening.get("name")))
            done = journal.result is not None and journal.waiting == 0
            if match and done and match[1] < first_kept:
                found.append((match[0], training))
    return sorted(found)


def _nothing_to_send(_: Path) -> Send:
    def send(*_: Any) -> Any:
        raise AssertionError("nothing is sent here")

    return send
