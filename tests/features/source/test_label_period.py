"""Late labels: which moments a day's snapshot holds, and whose logs they lie in."""

from __future__ import annotations

from typing import Any

import pytest

from fieldwise.features.columns.moment import DAY, HOUR, microseconds
from fieldwise.features.config import FeatureConfig
from fieldwise.features.source.log import days_read, period_of


def config(delay: str | None, zone: str = "UTC", **keys: Any) -> FeatureConfig:
    document = {"source": {"path": "x"}, "label": "y", "time": {"column": "t", "zone": zone}, "label_delay": delay}
    return FeatureConfig.model_validate(document | {"fields": [{"name": "f", "kind": "hash"}]} | keys)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kolkata"])
@pytest.mark.parametrize("delay", ["45s", "6h", "1d", "30h"])
def test_days_hold_every_moment_once(delay: str, zone: str) -> None:
    days = [f"2026-03-{n}" for n in range(27, 32)]  # summer time starts on the 29th in Berlin
    periods = [period_of(config(delay, zone), [day], dated=False) for day in days]
    plain = [period_of(config(None, zone), [day], dated=False) for day in days]
    for (start, stop), (first, last) in zip(periods, plain, strict=True):  # type: ignore[misc]
        assert (first - start, last - stop) == (microseconds(delay),) * 2
    assert [one[1] for one in periods[:-1]] == [other[0] for other in periods[1:]]  # type: ignore[index]
    assert period_of(config(delay, zone), days, dated=True) == (periods[0][0], periods[-1][1])  # type: ignore[index]


@pytest.mark.parametrize(
    ("delay", "zone", "day", "first"),
    [
        (None, "UTC", "2026-03-30", "2026-03-30"),
        ("1s", "UTC", "2026-03-30", "2026-03-29"),
        ("1d", "UTC", "2026-03-30", "2026-03-29"),
        ("25h", "UTC", "2026-03-30", "2026-03-28"),
        ("1d", "Europe/Berlin", "2026-03-30", "2026-03-28"),  # the 29th has 23 hours
    ],
)
def test_the_logs_of_the_days_before_are_read(delay: str | None, zone: str, day: str, first: str) -> None:
    read = days_read(config(delay, zone), [day])
    assert (read[0], read[-1]) == (first, day)
    assert len(read) == int(day[-2:]) - int(first[-2:]) + 1


def test_files_alone_decide_where_labels_are_not_late() -> None:
    assert period_of(config(None), ["2026-03-30"], dated=True) is None
    assert period_of(config("1d"), [], dated=False) is None


def test_durations() -> None:
    assert [microseconds(text) for text in ("1d", "6h", "90m", "45s")] == [DAY, 6 * HOUR, 90 * HOUR // 60, 45_000_000]
    for text in ("1", "0d", "d", "1.5h", "-1d", "1w"):
        with pytest.raises(ValueError, match="30d, 6h, 90m or 45s"):
            config(text)
    assert microseconds("100000d") == 100_000 * DAY
    for text in ("100001d", "9" * 400 + "s"):
        with pytest.raises(ValueError, match="at most 100000d"):
            config(text)


def test_what_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match="label_delay: expected a `time` that it is counted from, found no `time`"):
        config("1d", time=None)
    with pytest.raises(ValueError, match="there is none without `split`"):
        config(None, snapshot={"negative_rate": 0.5})
