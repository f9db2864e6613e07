"""Base of every config and artifact model, and the short forms config values may take."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Strict(BaseModel):
    """Base of every config and artifact model: frozen, unknown keys and infinite numbers forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


_MOST_NAMES = 10_000
_BRACES = re.compile(r"^(.*)\{(\d+)\.\.(\d+)\}(.*)$")


def expand_names(value: Any) -> Any:
    """``"I{1..3}"`` -> ``["I1", "I2", "I3"]``, inside lists too. Anything else is returned as it is."""
    items = value if isinstance(value, list) else [value]
    names: list[Any] = []
    for item in items:
        match = _BRACES.match(item) if isinstance(item, str) else None
        if match is None:
            names.append(item)
        else:
            head, first, last, tail = match.groups()
            if int(last[:12]) < int(first[:12]) and len(first + last) <= 12:
                raise ValueError(f"{item!r} stands for no name: write the smaller number first")
            if len(first + last) > 12 or int(last) - int(first) >= _MOST_NAMES:
                raise ValueError(f"{item!r} stands for more than {_MOST_NAMES} names")
            names += [f"{head}{i}{tail}" for i in range(int(first), int(last) + 1)]
    return names if isinstance(value, list) or len(names) > 1 else value


Names = Annotated[list[str], BeforeValidator(lambda v: expand_names(v if isinstance(v, list) else [v]))]
"""A list of column names; ``C{1..26}`` stands for C1 to C26, one name may stand alone."""
