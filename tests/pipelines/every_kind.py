"""A log with a column for every kind of field, and fields of every kind over it."""

from __future__ import annotations

from typing import Any

COLUMNS = ["label", "a", "b", "tags", "x", "t", "y", "z"]
OF = {"column": "t", "earliest": "1970-01-01", "latest": "2200-01-01"}
FIELDS: list[dict[str, Any]] = [
    {"name": "hash", "kind": "hash", "column": "a", "buckets": 1021},
    {"name": "b", "kind": "vocabulary", "min_count": 1, "max_size": 5},
    {"name": "b2", "kind": "vocabulary", "column": "b", "min_count": 2},
    {"name": "tags", "kind": "vocabulary", "min_count": 1, "separator": "|", "max_values": 3},
    {"name": "a", "kind": "vocabulary", "shares": "b"},
    {"name": "hashes", "kind": "hash", "column": "tags", "separator": "|", "pooling": "sum", "buckets": 64},
    {"name": "flags", "kind": "vocabulary", "min_count": 1, "flags": ["y", "z"]},
    {"name": "log", "kind": "number", "column": "x"},
    {"name": "quantiles", "kind": "number", "column": "x", "quantiles": 5},
    {"name": "edges", "kind": "number", "column": "x", "edges": [-1, 0, 2.5]},
    {"name": "hour", "kind": "time", "part": "hour_of_week", "of": OF},
    {"name": "cross", "kind": "cross", "of": ["a", "b", "x"], "buckets": 509},
]
