"""Which text encodings a source may have."""

from __future__ import annotations

import codecs

import numpy as np

from fieldwise.features.arrays import Int32


def code_points(encoding: str) -> Int32:
    """Code point of each byte, -1 where undefined; empty for UTF-8. ValueError for what is neither."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"encoding must be one that Python knows, got {encoding!r}") from None
    if name in ("utf-8", "utf-8-sig"):
        return np.empty(0, np.int32)
    try:
        texts = [bytes([byte]).decode(name, "ignore") for byte in range(256)]
    except LookupError:  # of bytes or texts among themselves, such as zlib and rot13
        raise ValueError(f"encoding must be that of a text, got {encoding!r}") from None
    if any(len(text) > 1 for text in texts) or "".join(texts[:128]) != bytes(range(128)).decode("ascii"):
        raise ValueError(f"encoding must be UTF-8 or a single-byte superset of ASCII, got {encoding!r}")
    try:
        bytes(range(128, 256)).decode(name, "ignore").encode(name)
    except UnicodeError:
        raise ValueError(f"encoding must be UTF-8 or a single-byte superset of ASCII, got {encoding!r}") from None
    return np.array([ord(text) if text else -1 for text in texts], np.int32)
