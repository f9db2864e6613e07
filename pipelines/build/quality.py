"""The one rule of how many rows may be unreadable, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from fieldwise.features.columns.moment import TimeConfig
from fieldwise.features.config import FeatureConfig
from fieldwise.features.errors import InputError, RefusedError
from fieldwise.features.source.misread import dates_in_digits
from fieldwise.features.source.misread import remedies as of_moments
from fieldwise.features.source.quarantine import Example, Quarantined, count, examples, quarantined
from fieldwise.features.source.rows import Reject
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.build.remedies import remedies

_MOST = 10
"""Reasons that are told; the others are counted."""


def judged(
    config: FeatureConfig,
    where: str,
    good: int,
    rows: Mapping[tuple[str, str], int],
    seen: Iterable[Example],
    formats: str,
) -> list[Quarantined]:
    """What was set aside beside ``good`` rows, as `quarantined` takes it. Raises as ``require_quality``."""
    found = quarantined(rows, seen, formats)
    require_quality(config, where, good + sum(rows.values()), found)
    return found


def judged_rejects(
    config: FeatureConfig, where: str, good: int, rejects: Sequence[Reject], formats: str
) -> list[Quarantined]:
    """``judged`` of the rows themselves."""
    return judged(config, where, good, count(rejects), examples(rejects), formats)


def require_quality(config: FeatureConfig, where: str, rows: int, found: Sequence[Quarantined]) -> None:
    """Raises RefusedError past ``snapshot.max_bad_fraction``, with every reason, samples and what to do.

    Args:
        rows: all, the quarantined ones included.
    """
    bad, most = sum(part.rows for part in found), config.snapshot.max_bad_fraction
    if bad > most * rows:
        raise RefusedError(
            where,
            expected=f"at most {most:.4%} unreadable rows",
            found=f"{bad} of {rows} ({bad / rows:.4%}): {'; '.join(_told(found))}",
            fix=" ".join(
                [
                    *remedies(found, config, rows),
                    "Mend the source or its description, or raise snapshot.max_bad_fraction.",
                ]
            ),
        )


def say_quarantined(config: FeatureConfig, found: Sequence[Quarantined]) -> None:
    """A line for each reason, on stderr, and what may be wrong with moments."""
    for line in [*_told(found), *of_moments(found, config.time, config.fields)]:
        say(f"  {line}")


def _told(found: Sequence[Quarantined]) -> list[str]:
    more = [f"{len(found) - _MOST} more reasons: {sum(p.rows for p in found[_MOST:]):,} rows"]
    return [str(part) for part in found[:_MOST]] + (more if len(found) > _MOST else [])


def say_moments(time: TimeConfig | None, moments: Sequence[str]) -> None:
    """The first and last moment of a build, and a warning where they are strange."""
    if time is None or not moments:
        return
    say(f"  moments {moments[0]} to {moments[1]}")
    first, last = (datetime.fromisoformat(moment) for moment in moments)
    if last > datetime.now(UTC) + timedelta(days=1):
        warn("the last moment lies in the future: check time.format and time.zone")
    format = dates_in_digits(first, last) if time.format == "auto" else None
    if format is not None:
        said = f"{int(last.timestamp())} was read as epoch seconds, but is a moment as {format}, too"
        warn(f"if the log holds digits: {said}; set time.format if that is meant")


def require_moments(time: TimeConfig | None, moments: Sequence[int]) -> None:
    """InputError where digits that were read as epoch seconds lie in the future, but are dates, too.

    Args:
        moments: the first and the last.
    """
    if time is None or time.format != "auto" or not moments:
        return
    first, last = (datetime.fromtimestamp(moment // 1_000_000, UTC) for moment in moments)
    format = dates_in_digits(first, last)
    if first > datetime.now(UTC) + timedelta(days=1) and format is not None:
        raise InputError(
            "time",
            expected="moments of the past",
            found=f"{moments[0] // 1_000_000} to {moments[1] // 1_000_000}, {first} to {last} as epoch seconds",
            fix=f"As {format} they are dates: set time.format to {format}, or to epoch_s.",
        )
