"""What is said of a build's first and last moment."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fieldwise.features.columns.moment import TimeConfig
from fieldwise.features.errors import InputError
from fieldwise.pipelines.build.quality import require_moments, say_moments

AUTO = TimeConfig(column="t")
FUTURE = [2090102100 * 10**6, 2090103123 * 10**6]
"""As epoch seconds in 2036."""


def test_dates_in_digits_that_lie_in_the_future_are_refused() -> None:
    words = (
        r"time: expected moments of the past, found 2090102100 to 2090103123, 2036-.* as epoch seconds. "
        r"As %Y%m%d%H they are dates: set time.format to %Y%m%d%H, or to epoch_s."
    )
    with pytest.raises(InputError, match=words):
        require_moments(AUTO, FUTURE)
    require_moments(TimeConfig(column="t", format="epoch_s"), FUTURE)
    require_moments(AUTO, [2090102160 * 10**6, 2090202160 * 10**6])  # no date: 21:60
    require_moments(AUTO, [1410210059 * 10**6, 1410302359 * 10**6])  # a past that may be meant
    require_moments(AUTO, [])
    require_moments(None, [])


def test_strange_moments_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*seconds: int) -> str:
        say_moments(AUTO, [datetime.fromtimestamp(s, UTC).isoformat() for s in seconds])
        return capsys.readouterr().err

    assert said(1_700_000_000, 1_700_700_000) == "  moments 2023-11-14T22:13:20+00:00 to 2023-11-23T00:40:00+00:00\n"
    assert "warning: the last moment lies in the future: check time.format and time.zone\n" in said(
        1_700_000_000, 4 * 10**9
    )
    assert (
        "warning: if the log holds digits: 1410302359 was read as epoch seconds, but is a moment as %y%m%d%H%M, too; "
        "set time.format if that is meant\n"
    ) in said(1410210059, 1410302359)
