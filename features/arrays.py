"""Arrays: their types by one name each, and zeros for what is read at random."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
UInt64 = npt.NDArray[np.uint64]
UInt8 = npt.NDArray[np.uint8]


def zeros(*shape: int, dtype: type = np.float32) -> npt.NDArray[Any]:
    """Zeros on huge pages: numpy asks for them in ``empty`` and not in ``zeros``, and rows are read at random."""
    array: npt.NDArray[Any] = np.empty(shape, dtype)
    array.fill(0)
    return array
