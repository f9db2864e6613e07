"""When a day is too unlike the days before it to be learned from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fieldwise.features.schema import Strict


class SuspicionConfig(Strict):
    """What makes a day suspicious: more than recent days differ from one another.

    A suspicious day is published and scored, but neither trained on nor used to decide, until a person says so.
    """

    days: Annotated[int, Field(ge=1, le=3650)] = 14
    """Most sound days before a day that it is compared with."""
    min_days: Annotated[int, Field(ge=2, le=3650)] = 3
    """With fewer, label rate and missing values are judged by the rows that the spec was fitted on, too, and the number
    of rows, unseen values and distributions are not judged."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.001
    """Share of healthy days that may be found suspicious by chance, all checks together."""
