"""Every key of a config, given what it cannot mean: one line with file, line and key, in our words."""

from __future__ import annotations

import copy
import datetime
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from fieldwise.features.errors import ConfigError
from fieldwise.features.fields import AnyField
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.reference import _blocks
from fieldwise.pipelines.config.schema import Config

SOURCE = {"path": "log.csv"}
DOCUMENT: dict[str, Any] = {
    "name": "small",
    "source": SOURCE,
    "join": [{"path": "users.csv", "on": "user"}],
    "label": "click",
    "time": {"column": "when"},
    "split": {"by": "time", "valid": 0.1, "test": 0.1},
    "fields": [
        {"name": "user", "kind": "hash"},
        {"name": "item", "kind": "vocabulary"},
        {"name": "age", "kind": "number"},
        {"name": "hour", "kind": "time", "part": "hour"},
        {"name": "both", "kind": "cross", "of": ["user", "item"]},
    ],
    "snapshot": {},
    "model": {"kind": "ffm"},
    "training": {"checkpoint": {}},
    "tracking": {},
    "catalog": {
        "contexts": {"path": "users.csv"},
        "items": {"path": "items.csv"},
        "context_id": "user",
        "item_id": "item",
        "exclude": {"path": "seen.csv"},
        "candidates": {"path": "pairs.csv"},
        "cap": {"column": "kind", "items": 3},
    },
    "daily": {},
    "drift": {},
}
WRONG = [5, -1.5, 10**30, float("inf"), True, None, "no such ) %Q", [], ["x", "x"], [[1]], {"x": 1}, {},
         datetime.date(2026, 1, 31)]  # fmt: skip
PHRASES = [
    "input should", "field required", "should be a valid", "should have", "should match", "extra inputs", "unable to",
    "value error", "input tag", "discriminator", "pydantic", "validation error", "not permitted", "valid dictionary",
    "_type", "_error", "_parsing", "_than", "union_tag", "instance of", "errors.",
]  # fmt: skip


def places(block: type[BaseModel] = Config, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key of every block that the document has."""
    for key, field in block.model_fields.items():
        yield (*at, key)
        inner = list(_blocks(field.annotation))
        if key == "fields":
            for number, kind in enumerate(get_args(get_args(AnyField)[0])):
                yield from places(kind, (*at, key, number))
        elif key == "join":
            yield from places(inner[0], (*at, key, 0))
        elif inner and isinstance(here(at), dict) and isinstance(here(at).get(key), dict):
            yield from places(inner[0], (*at, key))


def here(at: tuple[Any, ...]) -> Any:
    value: Any = DOCUMENT
    for part in at:
        value = value[part]
    return value


def said(folder: Path, document: Any, overrides: list[str] | None = None) -> str | None:
    """What the config is refused with."""
    file = folder / "small.yaml"
    file.write_text(document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False))
    try:
        load_config(file, overrides)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("place", list(places()), ids=lambda place: ".".join(map(str, place)))
def test_a_wrong_value_is_refused_in_our_words(place: tuple[Any, ...], tmp_path: Path) -> None:
    refused = 0
    for value in WRONG:
        document = copy.deepcopy(DOCUMENT)
        block = document
        for part in place[:-1]:
            block = block[part]
        block[place[-1]] = value
        text = said(tmp_path, document)
        if text is None:
            continue
        refused += 1
        assert not [phrase for phrase in PHRASES if phrase in text.lower()], (value, text)
        assert re.search(r"small\.yaml line \d+, |small.yaml, ", text), (value, text)
        assert place == ("time",) or any(str(part) in text for part in place[-2:]), (value, text)
        assert "found" in text
    assert refused >= 3


def test_the_document_itself_is_good(tmp_path: Path) -> None:
    assert said(tmp_path, DOCUMENT) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "model.kind",
            "fmm",
            "line 31, model.kind: expected one of lr, poly2, fm, ffm, fwfm, deepfm, found 'fmm'. Did you",
        ),
        (
            "model",
            None,
            "model: expected a block with the key kind, found nothing. Give it a value, or remove",
        ),
        ("model.dim", "16 or so", "whole number at least 1 and at most 100000, found '16 or so'. Change the value."),
        ("model.hidden", [9], "model.hidden: expected no hidden for ffm, found [9]. Remove the key."),
        ("model.dropout", 2, "model.dropout: expected a number at least 0 and below 1, found 2. Change the value."),
        ("model.pair_buckets", 9, "model.pair_buckets: expected no pair_buckets for ffm, found 9. Remove the key."),
        ("training.optimizer", "adagrd", "found 'adagrd'. Did you mean `adagrad`?"),
        (
            "training.dense_l2",
            0.1,
            "training.dense_l2: expected 0: ffm has no parameters beside the table but the bias, found 0.1. Remove",
        ),
        ("training.optimizer", "ftrl", "training.optimizer: expected a model of linear weights (lr, poly2) for ftrl"),
        ("training.l1", 0.5, "training.l1: expected 0: adagrad has no L1 penalty, found 0.5. Use optimizer: ftrl."),
        ("training.batch_size", 100, "training.batch_size: expected a multiple of 8 streams such as 96, found 100."),
        ("training.epochs", True, "training.epochs: expected a whole number at least 1, found true. Change the value."),
        ("training.l2", float("inf"), "training.l2: expected a number at least 0, found Infinity. Change the value."),
        ("label", "rating >=", "line 7, label: expected an expression such as `rating >= 4`, found 'rating >='."),
        ("filter", "a and", "filter: expected an expression such as `rating >= 4`, found 'a and'."),
        ("weight", "f(x)", "weight: expected an expression such as `rating >= 4`, found f(x)."),
        ("catalog.filter", "a =", "catalog.filter: expected an expression such as"),
        ("catalog.k", "ten", "catalog.k: expected a whole number at least 1, found 'ten'. Change the value."),
        ("catalog.time", "noon", "catalog.time: expected ISO 8601, found 'noon'. Example: '{date}T18:00:00'."),
        ("catalog.item_fields", ["itm"], "found itm. Did you mean `item`?"),
        (
            "catalog.cap",
            {"column": "kind"},
            "catalog.cap.items: expected a whole number at least 1, found none: the",
        ),
        (
            "time",
            {"column": "t", "format": "Y-m-d"},
            "expected auto, epoch_s, epoch_ms, epoch_us, epoch_ns or a strptime pattern, found",
        ),
        ("time", {"column": "t", "zone": "Berlin"}, "time.zone: expected an IANA zone such as Europe/Berlin, found"),
        ("split", {"by": "hash", "valid": 0.1, "test": 0.1}, "split: expected split.key, the column to hash"),
        ("split.by", "tme", "split.by: expected one of time, files, hash or none, found 'tme'. Did you mean `time`?"),
        ("fields", {}, "fields: expected a list, each a block with the keys name, kind, at least 1 of them, found {}."),
        ("source.path", [], "source.path: expected a text or a list of texts, at least 1 of them, found []."),
        ("name", "my shop", "name: expected a name of letters, digits, - and _ that begins with"),
        ("name", 2026, "name: expected a text, found 2026. Put it in quotes."),
        ("label_delay", "3", "label_delay: expected a duration written as 30d, 6h, 90m or 45s, found '3'."),
        ("label_delay", "9" * 30 + "d", "label_delay: expected a duration of at most 100000d, found '999"),
        ("snapshot.seed", 10**30, "snapshot.seed: expected a whole number at least 0 and below"),
        ("training.seed", 10**30, "training.seed: expected a whole number at least 0 and below"),
        ("training.timeout_seconds", 1e300, "training.timeout_seconds: expected a number above 0 and at most"),
        ("model.dim", 10**30, "model.dim: expected a whole number at least 1 and at most"),
        ("daily", {"window": 10**9}, "daily.window: expected a whole number at least 1 and at most 3650"),
        ("daily", {"gate": {"ages": [10**9]}}, "daily.gate.ages.0: expected a whole number at least 1 and at most"),
    ],
)
def test_what_a_later_command_would_refuse_is_refused_when_the_file_is_read(
    key: str, value: Any, message: str, tmp_path: Path
) -> None:
    document = copy.deepcopy(DOCUMENT)
    block = document
    *blocks, last = key.split(".")
    for part in blocks:
        block = block[part]
    block[last] = value
    text = said(tmp_path, document)
    assert text is not None
    assert message in text
    assert "small.yaml line " in text


def test_time_is_missing(tmp_path: Path) -> None:
    document = {key: value for key, value in DOCUMENT.items() if key != "time"}
    text = said(tmp_path, document)
    assert text is not None
    assert "fields.3: expected a column of moments to take its part of, found no `time`. Name it: `time:" in text
    document["fields"] = document["fields"][:3]
    text = said(tmp_path, document)
    assert text is not None
    assert "split.by: expected a `time` to split by, found no `time`. Name the column: `time: COLUMN`" in text


def test_the_field_at_fault_is_named(tmp_path: Path) -> None:
    fields = [{"name": "a", "kind": "hash"}, {"name": "b{1..3}", "kind": "hash"}, {"name": "b2", "kind": "hash"}]
    text = said(tmp_path, {**DOCUMENT, "fields": fields, "catalog": None} | {"catalog": DOCUMENT["catalog"]})
    assert text is not None
    assert "line 19, fields.b2: expected each name once, found 'b2' declared twice." in text
    fields = [{"name": "a", "kind": "hash"}, {"name": "b", "kind": "hash", "shares": "c"}]
    text = said(tmp_path, {**DOCUMENT, "fields": fields})
    assert text is not None
    assert "fields.b.shares: expected a field, found 'c', which is no field." in text


def test_the_override_at_fault_is_named(tmp_path: Path) -> None:
    assert said(tmp_path, DOCUMENT, ["training.epochs=many"]) == (
        f"{tmp_path}/small.yaml, --set training.epochs=many, training.epochs: expected a whole number at least 1, "
        "found 'many'. Change the value."
    )
    text = said(tmp_path, DOCUMENT, ["model.kind=fmm", "training.epochs=3"])
    assert text is not None
    assert text.startswith(f"{tmp_path}/small.yaml, --set model.kind=fmm, model.kind: expected one of ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected keys and values, found nothing."),
        ("just words", "expected keys and values, found a single str."),
        (
            "name: a\nmodel: {kind: lr}\nmodel: {kind: fm}\n",
            "line 3, model: expected a key once, found it in line 2",
        ),
        ("name: a\n\tmodel: x\n", "Indent by spaces, not by tabs."),
        ("name: a\nfields:\n  - {name: x, kind: hash, name: y}\n", "line 3, fields.0.name: expected a key once"),
    ],
)
def test_files_that_are_no_config(text: str, message: str, tmp_path: Path) -> None:
    refusal = said(tmp_path, text)
    assert refusal is not None
    assert message in refusal
