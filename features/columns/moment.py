"""How a column reads as a moment, and the parts of a moment. Moments are int64 microseconds since 1970-01-01 UTC."""

from __future__ import annotations

import re
from datetime import date as Date
from datetime import datetime
from functools import cache
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AfterValidator, BeforeValidator, SerializerFunctionWrapHandler, model_serializer, model_validator

from fieldwise.features.arrays import Int64
from fieldwise.features.schema import Strict

HOUR = 3_600_000_000
DAY = 24 * HOUR
PARTS = {"minute": 60, "hour": 24, "weekday": 7, "hour_of_week": 168, "day": 31, "month": 12}
"""Time parts and how many values each has. weekday counts from Monday; day is the day of the month."""
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DIRECTIVES = "YymdHMSfbz"
EPOCHS = {"epoch_s": 1e6, "epoch_ms": 1e3, "epoch_us": 1.0, "epoch_ns": 1e-3}
"""Formats of numbers counted from 1970, and the microseconds of one."""


class TimeConfig(Strict):
    """How a column reads as a moment."""

    column: str
    """Raw column. ``time: COLUMN`` alone will do where the defaults below hold."""
    format: str = "auto"
    """``epoch_s`` (``_ms``, ``_us``, ``_ns``), a strptime pattern, or ``auto``: epoch seconds if a number, else ISO
    8601."""
    zone: str = "UTC"
    """IANA zone of times that carry none; also the zone of hours, weekdays and days."""
    earliest: Date = Date(1990, 1, 1)
    """A moment before this day (UTC) is ``bad_time``: mostly digits of another format, or a zero for none."""
    latest: Date = Date(2100, 1, 1)
    """A moment of this day (UTC) or later is ``bad_time``: mostly digits of another format, or 9999 for never."""

    @model_validator(mode="after")
    def _known(self) -> TimeConfig:
        try:
            ZoneInfo(self.zone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"zone must be an IANA zone such as Europe/Berlin, got {self.zone!r}") from None
        unknown = [d for d in re.findall("%(.?)", self.format.replace("%%", "")) if d not in list(_DIRECTIVES)]
        if unknown:
            raise ValueError(f"format must be of %{' %'.join(_DIRECTIVES)}, got %{unknown[0]}")
        if "%" not in self.format and self.format != "auto" and self.format not in EPOCHS:
            raise ValueError(f"format must be auto, {', '.join(EPOCHS)} or a strptime pattern, got {self.format!r}")
        if self.earliest >= self.latest:
            raise ValueError(f"earliest must lie before latest, got {self.earliest} and {self.latest}")
        return self

    @model_serializer(mode="wrap")
    def _changed(self, every: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Bounds only where they are not the default: specs fitted before there were any keep their digest."""
        fields = type(self).model_fields
        usual = {name for name in ("earliest", "latest") if getattr(self, name) == fields[name].default}
        return {name: value for name, value in every(self).items() if name not in usual}

    @property
    def bounds(self) -> tuple[int, int]:
        """The first moment that can be, and the one past the last."""
        first, stop = ((bound - Date(1970, 1, 1)).days * DAY for bound in (self.earliest, self.latest))
        return first, stop

    @property
    def directives(self) -> npt.NDArray[np.uint8]:
        """The pattern as the kernel reads it: literal bytes, directives as 128 + letter; T is ISO 8601's rest."""
        return _directives(self.format)


@cache
def _directives(pattern: str) -> npt.NDArray[np.uint8]:
    text = "%Y-%m-%d%T" if pattern == "auto" else pattern
    pieces = re.findall(rb"%(.)|([^%])", text.encode("ascii", "replace"), re.S)
    return np.array([ord(d) + 128 * (d != b"%") if d else ord(c) for d, c in pieces], np.uint8)


def _time(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


Time = Annotated[TimeConfig, BeforeValidator(_time)]
"""``time: column`` or the full block."""


_UNITS = {"d": DAY, "h": HOUR, "m": 60_000_000, "s": 1_000_000}


_LONGEST_DAYS = 100_000
"""Of a duration: so long before any day that is taken there is still a calendar."""


def microseconds(duration: str) -> int:
    """Of a ``Duration``."""
    found = re.fullmatch(r"([1-9]\d*)([dhms])", duration)
    if found is None:
        raise ValueError(f"must be a duration written as 30d, 6h, 90m or 45s, got {duration!r}")
    length = int(found[1][:20]) * _UNITS[found[2]]
    if length > _LONGEST_DAYS * DAY:
        raise ValueError(f"must be a duration of at most {_LONGEST_DAYS}d, got {duration[:40]!r}")
    return length


def _duration(value: str) -> str:
    microseconds(value)
    return value


Duration = Annotated[str, AfterValidator(_duration)]
"""``30d``, ``6h``, ``90m`` or ``45s``."""


def to_utc(local: Int64, zone: str) -> Int64:
    """Wall-clock microseconds of a zone as UTC. An hour that occurs twice is the earlier, a skipped one is shifted."""
    if zone == "UTC" or not len(local):
        return local
    stamps = pa.array(local).cast(pa.timestamp("us"))
    return pc.assume_timezone(stamps, zone, ambiguous="earliest", nonexistent="latest").cast(pa.int64()).to_numpy()


def to_local(moments: Int64, zone: str) -> Int64:
    """UTC microseconds as wall-clock microseconds of a zone (Arrow's zones know no summer time after 2037)."""
    if zone == "UTC" or not len(moments):
        return moments
    return pc.local_timestamp(pa.array(moments).cast(pa.timestamp("us", zone))).cast(pa.int64()).to_numpy()


def show_moment(moment: int, zone: str) -> str:
    """ISO 8601 in a zone, with its offset; to the second."""
    return datetime.fromtimestamp(moment // 1_000_000, ZoneInfo(zone)).isoformat()


def part_of(local: Int64, part: str) -> Int64:
    """Index of the part, from 0, of wall-clock microseconds."""
    days = local // DAY
    if part == "minute":
        return local // 60_000_000 % 60
    if part == "hour":
        return local // HOUR % 24
    if part == "weekday":
        return (days + 3) % 7
    if part == "hour_of_week":
        return (local // HOUR + 72) % 168
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    if part == "day":
        return (dates - months.astype("datetime64[D]")).astype(np.int64)
    return months.astype(np.int64) % 12


def part_name(part: str, index: int) -> str:
    """How people read an index of ``part_of``."""
    if part == "weekday":
        return _WEEKDAYS[index]
    if part == "hour_of_week":
        return f"{_WEEKDAYS[index // 24]} {index % 24:02d}h"
    return str(index + 1 if part in ("day", "month") else index)
