"""The next version of a spec: fitted on a training window, the window encoded with it, and what moved."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

from fieldwise.features.columns.day import day_of
from fieldwise.features.config import SplitConfig
from fieldwise.features.fields import moves
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import source_files
from fieldwise.pipelines.build.drift import keep_expected, spec_dir
from fieldwise.pipelines.build.features import fit, job_of, load_spec, publish_snapshot
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.registry import resolve_model


def refit_features(
    config: Config, *, date: str | None = None, spec: str | None = None, days: Sequence[str] | None = None
) -> dict[str, Any]:
    """Fit a new spec, publish the training window's snapshots under it, and say what moved.

    Args:
        date: the window is that of ``fieldwise daily --date``: the ``daily.window`` days before it. None: the whole
            source, its training split.
        days: in place of that window, those of it that can be learned from.
        spec: the spec that is replaced: a snapshot, bundle or spec directory. Default: the champion's.

    The spec goes to ``<workspace>/specs/<digest>``. Snapshots of the former spec stay; those of the new one stand
    beside them as ``<day>.<spec>``. ``fieldwise train --init`` then starts from a model of the former spec by value.

    Returns: spec (its directory), spec_digest, former (digest), moved by field, snapshots (results of the builds).
    """
    old = load_spec(spec or resolve_model(None, config), config)
    if days is None:
        days = [] if date is None else window(date, config.daily.window)[:-1]
    new = fit_days(config, days)
    place = spec_dir(config, new.digest)
    new.save(place)
    moved = moves.moves(old, new)
    every: list[str | None] = [*days] or [None]
    built = [publish_snapshot(config, day, new, None) for day in every]
    keep_expected(config, reduce(add, [report.distribution for _, report in built]))
    say(f"spec {old.digest[:12]} -> {new.digest[:12]}: {place}", *moves.table(moved))
    return {
        "spec": place,
        "spec_digest": new.digest,
        "former": old.digest,
        "moved": {name: field.model_dump() for name, field in moved.items()},
        "snapshots": [result for result, _ in built],
    }


def fit_days(config: Config, days: Sequence[str]) -> FeatureSpec:
    if days:
        config = config.model_copy(update={"split": SplitConfig()})
    files = source_files(config, days)
    engine = open_engine(config, "features", files)
    return fit(engine, job_of(engine, config, files, days), None)[1]


def window(date: str, days: int) -> list[str]:
    """That many days before a date, and the date itself."""
    last = day_of(date)
    return [str(last - datetime.timedelta(days=back)) for back in range(days, -1, -1)]
