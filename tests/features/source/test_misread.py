"""What is said of moments that cannot be: how they read, and the format they were probably written in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fieldwise.features.columns.moment import TimeConfig
from fieldwise.features.fields.time import TimeField
from fieldwise.features.source.misread import dates_in_digits, remedies, remedy
from fieldwise.features.source.quarantine import Quarantined, Sample

MOVE = "If such moments are meant, move time.earliest or time.latest."
NONE = "reads in no format that is known here: write such moments as ISO 8601, 2026-01-31 18:00:00."
BOUNDS = "expected a moment from 1990-01-01 to 2100-01-01."


@pytest.mark.parametrize(
    ("format", "values", "words"),
    [
        (
            "auto",
            ["14102100", "14102101"],
            f"'14102100' reads as 1970-06-13T05:15:00+00:00 under time.format auto: {BOUNDS} "
            f"Set time.format to %y%m%d%H if that is how they are written. {MOVE}",
        ),
        (
            "auto",
            ["45244.92593"],
            f"'45244.92593' reads as 1970-01-01T12:34:04+00:00 under time.format auto: {BOUNDS} "
            f"These may be a spreadsheet's serial days: write them as ISO 8601. {MOVE}",
        ),
        ("auto", ["0"], f"'0' reads as 1970-01-01T00:00:00+00:00 under time.format auto: {BOUNDS} {MOVE}"),
        (
            "epoch_ms",
            ["1414843200"],
            f"'1414843200' reads as 1970-01-17T09:00:43+00:00 under time.format epoch_ms: {BOUNDS} "
            f"Set time.format to auto or epoch_s if that is how they are written. {MOVE}",
        ),
        ("auto", ["0", "1414843200000"], None),
        (
            "auto",
            ["1414843200000"],
            "'1414843200000' is no moment under time.format auto. Set time.format to epoch_ms "
            "if that is how they are written.",
        ),
        ("auto", ["1414843200000000"], "Set time.format to epoch_us if"),
        ("auto", ["1414843200000000000"], "Set time.format to epoch_ns if"),
        ("auto", ["20141021"], "Set time.format to %Y%m%d if"),
        ("auto", ["20141021101112"], "Set time.format to %Y%m%d%H%M%S if"),
        ("auto", ["21/10/2014 10:11"], "Set time.format to %d/%m/%Y %H:%M if"),
        ("auto", ["\x1b[31m0"], rf"'\x1b[31m0' {NONE}"),
        (
            "auto",
            ["9999-12-31"],
            f"'9999-12-31' reads as 9999-12-31T00:00:00+00:00 under time.format auto: {BOUNDS} {MOVE}",
        ),
        ("auto", ["yesterday", "-90000000000", "9999-12-31 23:59"], f"'yesterday' {NONE}"),
        ("auto", [""], "Leave rows without a moment out: `filter: t is not null`."),
    ],
)
def test_remedies(format: str, values: list[str], words: str | None) -> None:
    told = remedy(values, TimeConfig(column="t", format=format))
    if words is None:  # a zero is a moment that is not known, in any format
        words = "Set time.format to epoch_ms if"
    assert words in told if words.startswith("Set") else told == words


def test_each_column_is_told_once_under_the_key_that_says_how_it_reads() -> None:
    time = TimeConfig(column="t")
    fields = [
        TimeField(name="h", kind="time", part="hour", of=time),
        TimeField(name="login", kind="time", part="hour", of={"column": "seen", "zone": "Europe/Berlin"}),
    ]
    bad = Sample(value="14102100", where="log.csv line 2")
    found = [
        Quarantined(reason="bad_time", field=name, rows=1, samples=[bad]) for name in ("time", "h", "login", "user")
    ]
    told = remedies(found, time, fields)
    assert len(told) == 2
    assert "under time.format" in told[0]
    assert "1970-06-13T06:15:00+01:00 under fields.login.of.format" in told[1]


def test_dates_in_ten_digits_that_read_as_seconds() -> None:
    def moment(seconds: int) -> datetime:
        return datetime.fromtimestamp(seconds, UTC)

    assert dates_in_digits(moment(2014102100), moment(2014103123)) == "%Y%m%d%H"
    assert dates_in_digits(moment(1410210059), moment(1410302359)) == "%y%m%d%H%M"
    assert dates_in_digits(moment(1410210059), moment(1410302360)) is None
    assert dates_in_digits(moment(1_700_000_000), moment(1_700_700_000)) is None
