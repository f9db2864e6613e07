"""What a feature build refuses: dates, splits, rows and sources that cannot serve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fieldwise.features.build.reading import Counts
from fieldwise.features.build.split import TEST, VALID, Splitter
from fieldwise.features.columns.day import day_of
from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.snapshot.manifest import ROLES, FileEntry, require_weights, weights_of
from fieldwise.features.source.quarantine import Example, Quarantined
from fieldwise.features.terminal import warn
from fieldwise.pipelines.build.quality import judged
from fieldwise.pipelines.config.schema import Config

NO_POSITIVE = "No row fits the label: texts are compared as they are written, `Yes` is not `yes`."
NO_NEGATIVE = 'Every row fits the label: a log of positives alone takes `label: "true"` and `negatives`.'


def require_date(config: Config, date: str | None) -> None:
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
    day_of(date)
    if not dated and config.time is None:
        raise ConfigError(
            "time",
            expected="a time column to select the day by",
            found="none, nor {date} in source.path",
            fix="Name the time column, or put {date} into source.path.",
        )


def require_split(config: Config) -> None:
    """A snapshot of everything that a spec is fitted on is made to be trained on: its rows need roles."""
    example = "{by: time, valid: 0.1, test: 0.1}" if config.time else "{by: hash, key: COLUMN, valid: 0.1, test: 0.1}"
    if "split" not in config.model_fields_set:
        raise ConfigError(
            "split",
            expected="which rows train, validate and test",
            found="none",
            fix=f"Add `split: {example}`; or `split: {{by: none}}` where whole snapshots get their roles by "
            "--train, --valid and --test.",
        )
    needs = {"patience": "stops by their logloss", "calibration": "is fitted on them"}
    for key, why in needs.items():
        if config.split.by != "none" and not config.split.valid and getattr(config.training, key) is not None:
            raise ConfigError(
                "split.valid",
                expected=f"rows to validate on: training.{key} {why}",
                found="none",
                fix=f"Set split.valid, or training.{key}: null.",
            )


def require_matches(splitter: Splitter, paths: list[str]) -> None:
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


def require_rows(counts: Counts, splitter: Splitter) -> None:
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
    counted = any(key[0] == "positives" for key in counts)
    rows, positives = counts["rows", "train"], counts["positives", "train"]
    if counted and rows and positives in (0, rows):
        raise InputError(
            "label",
            expected="both classes among the training rows",
            found=f"{positives} positives of {rows} rows",
            fix=f"{NO_POSITIVE if not positives else NO_NEGATIVE} Check the split, too.",
        )
    for role in (ROLES[role] for role in splitter.roles if role in (VALID, TEST)):
        rows, positives = counts["rows", role], counts["positives", role]
        if not counted or positives not in (0, rows):
            continue
        where, found = f"split.{role}", f"{rows} rows, all labelled {int(positives > 0)}"
        fix = (
            "Give the split a larger share, or rows by chance: `split: {by: hash, key: COLUMN, valid: 0.1, test: 0.1}`."
        )
        if role == ROLES[VALID]:
            raise InputError(where, expected="rows of both classes", found=found, fix=fix)
        warn(f"{where}: {found}: they measure nothing. {fix}")  # a model is trained all the same


def require_weighted(files: Iterable[FileEntry]) -> None:
    """Where rows are weighted: no role is without weight, and both classes have some in training."""
    by_role: dict[str, list[FileEntry]] = {}
    for file in files:
        by_role.setdefault(file.role, []).append(file)
    for role, entries in by_role.items():
        weights = weights_of(entries)
        if weights is not None and (role == "train" or sum(weights) <= 0):
            require_weights(role, *weights)


def require_readable(counts: Counts, config: FeatureConfig, found: Iterable[Example]) -> list[Quarantined]:
    """What was quarantined, or will be (``unencodable``); stops above ``max_bad_fraction``."""
    foreseen = sum(count for key, count in counts.items() if key[0] == "unencodable")
    good = sum(count for key, count in counts.items() if key[0] == "rows")
    good += counts["filtered",] + counts["dropped_negatives",] - foreseen
    rows: Counter[tuple[str, str]] = Counter()
    for key, count in counts.items():
        if key[0] in ("rejected", "unencodable"):
            rows[key[1], key[2]] += count
    return judged(config, "source", good, rows, found, config.source.format)
