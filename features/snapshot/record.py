"""What the rows of a snapshot follow from, as its manifest and the bundles trained on it keep it, and what differs.

A record is the config's data part with all defaults: source, join, label, weight, filter, time, label_delay, split and
snapshot. Fields are in the spec. Paths stand as the config has them, environment variables by their names, so moving
data and workspace together changes nothing; passwords in URLs are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fieldwise.features.columns.expression import Expression
from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.base import BaseField
from fieldwise.features.redact import redacted, redacted_tree
from fieldwise.features.store.kept import digest_of

Record = Mapping[str, Any]
READING = ("format", "separator", "quote", "columns", "header", "encoding")
"""How the bytes of a source read."""
EXPRESSIONS = ("label", "weight", "filter")
_SHOWN = 80


def record_of(config: FeatureConfig, paths: Sequence[Sequence[str]] = ()) -> dict[str, Any]:
    """The record of a config; ``paths``: those of the source and of each join as they were written."""
    record = config.asked()
    del record["fields"]
    if "negatives" in record:
        del record["negatives"]["items"]["path"]  # how it reads, not where it lies
    for block, written in zip((record["source"], *record["join"]), paths, strict=False):
        block["path"] = list(written)
    for block in (record["source"], *record["join"]):
        block["path"] = redacted_tree(block["path"])
    return record


def check_record(record: Any) -> None:
    """ValueError for what is no record: it may come from anywhere."""
    joins = record.get("join") if isinstance(record, dict) else None
    blocks = [record.get("source"), *joins] if isinstance(record, dict) and isinstance(joins, list) else [None]
    if not all(isinstance(block, dict) and "path" in block for block in blocks):
        raise ValueError("no record of sources and joins")
    for key in EXPRESSIONS:
        written = record.get(key)
        if not isinstance(written, str | None):
            raise ValueError(f"{key} is no expression")
        if written is not None:
            Expression(written, key)


def without_paths(record: Record) -> dict[str, Any]:
    """The record as a bundle keeps it: digests tell whether two paths are the same, and no more."""

    def hidden(block: Record) -> dict[str, Any]:
        return {**block, "path": digest_of(block["path"])}

    return {**record, "source": hidden(record["source"]), "join": [hidden(join) for join in record["join"]]}


def differences(
    kept: Record, now: Record, keys: Sequence[str], *, names: tuple[str, str], same_paths: bool
) -> list[str]:
    """``key: <names[0]> <value>, <names[1]> <value>`` for what differs under top-level ``keys``.

    Args:
        same_paths: paths must be the same. False: how another file reads is that file's own affair.

    A key that a record of an earlier version lacks had its default.
    """
    ours, theirs = dict(now), dict(kept)
    pairs: list[tuple[str, Any, Any]] = []
    for key in keys:
        if key == "source":
            pairs += _blocks(key, theirs[key], ours[key], same_paths)
        elif key == "join" and len(theirs[key]) != len(ours[key]):
            before, after = ([join.get("on") for join in side[key]] for side in (theirs, ours))
            pairs.append((key, before, after))
        elif key == "join":
            for place, (a, b) in enumerate(zip(theirs[key], ours[key], strict=True)):
                pairs += _blocks(f"join.{place}", a, b, same_paths)
        else:
            pairs += _pairs(key, theirs.get(key), ours.get(key))
    return [f"{key}: {names[0]} {shown(a)}, {names[1]} {shown(b)}" for key, a, b in pairs if not _same(key, a, b)]


def same_files(kept: Record, now: Record, *, source: bool) -> list[str]:
    """Keys of the joins (and the source) of ``now`` that ``kept`` has with the same path but reads otherwise."""
    before = {json.dumps(block["path"]): block for block in (kept["source"], *kept["join"])}
    names = ["source", *(f"join.{place}" for place in range(len(now["join"])))]
    told = []
    for name, block in list(zip(names, (now["source"], *now["join"]), strict=True))[0 if source else 1 :]:
        former = before.get(json.dumps(block["path"]))
        told += [] if former is None else [
            f"{key}: model {shown(a)}, config {shown(b)}" for key, a, b in _pairs(name, former, block) if a != b
            and key.rpartition(".")[2] in (*READING, "on", "select")
        ]  # fmt: skip
    return told


def field_differences(theirs: Sequence[BaseField], ours: Sequence[BaseField], names: tuple[str, str]) -> list[str]:
    """What differs between the fields of a spec and those of a config."""
    before, now = {field.name: field for field in theirs}, {field.name: field for field in ours}
    told = [f"fields: {name} is new" for name in now if name not in before]
    told += [f"fields: {name} is gone" for name in before if name not in now]
    for name in (name for name in before if name in now and before[name] != now[name]):
        a, b = before[name].model_dump(mode="json"), now[name].model_dump(mode="json")
        pairs = _pairs(f"fields.{name}", a, b)
        if a["kind"] != b["kind"]:
            pairs = [(f"fields.{name}.kind", a["kind"], b["kind"])]
        told += [f"{key}: {names[0]} {shown(x)}, {names[1]} {shown(y)}" for key, x, y in pairs if x != y]
    if not told and list(before) != list(now):
        told = [f"fields: {names[0]} in the order {shown(list(before))}, {names[1]} {shown(list(now))}"]
    return told


def shown(value: Any) -> str:
    """A value of a record as one would write it."""
    if isinstance(value, list | tuple):
        text = ", ".join(map(shown, value)) or "none"
    elif isinstance(value, str):
        text = value if value.isprintable() and value == value.strip() and value else repr(value)
    elif value is None or isinstance(value, bool | dict):
        text = "none" if value is None else json.dumps(value)
    else:
        text = f"{value:g}" if isinstance(value, float) else str(value)
    text = redacted(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _blocks(name: str, kept: Record, now: Record, same_paths: bool) -> list[tuple[str, Any, Any]]:
    """Of a source or a join."""
    pairs = _pairs(name, kept, now)
    if same_paths or kept["path"] == now["path"]:
        return pairs
    return [pair for pair in pairs if pair[0].rpartition(".")[2] not in ("path", *READING)]


def _pairs(name: str, kept: Any, now: Any) -> list[tuple[str, Any, Any]]:
    """(dotted key, value before, value now) of what two trees have below a key; lists are values."""
    if not isinstance(kept, Mapping) or not isinstance(now, Mapping):
        whole = [side["column"] if isinstance(side, Mapping) and "column" in side else side for side in (kept, now)]
        return [(name, *whole)]
    keys = list(dict.fromkeys([*kept, *now]))
    return [
        pair
        for key in keys
        if key in kept or now[key] not in (None, [], False)
        for pair in _pairs(f"{name}.{key}", kept.get(key), now.get(key))
    ]


def _same(key: str, a: Any, b: Any) -> bool:
    """Expressions are the same when they mean the same."""
    if key in EXPRESSIONS and a is not None and b is not None:
        return Expression(a, key).meaning == Expression(b, key).meaning
    return bool(a == b)
