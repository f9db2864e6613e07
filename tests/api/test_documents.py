"""Configs that are no files: what is written is what was meant, and mistakes are told before anything is written."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import fieldwise as fw
from fieldwise.api.documents import overrides_of
from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.config.document import Yaml, dumped
from fieldwise.pipelines.config.load import load_config
from tests.snapshots import PLANTED

DOCUMENT: dict[str, Any] = yaml.load(PLANTED, Loader=Yaml)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_with_keywords_over_it(here: Path) -> None:
    (here / "planted.yaml").write_text(PLANTED)
    pipeline = fw.Pipeline("planted.yaml", training={"epochs": 3, "checkpoint": {"keep": 5}}, label="click > 0")
    expected = load_config("planted.yaml", ["training.epochs=3", "training.checkpoint.keep=5", "label=click > 0"])
    assert pipeline.config.model_dump() == expected.model_dump()
    assert pipeline.config.overrides == ["training.epochs=3", "training.checkpoint.keep=5", 'label="click > 0"']
    assert pipeline.workspace == str(here / "work" / "planted")
    assert not (here / "work").exists(), "a config that has a file writes none"


def test_a_dict_and_keywords_are_one_config(here: Path) -> None:
    model, rest = DOCUMENT["model"], {key: value for key, value in DOCUMENT.items() if key != "model"}
    by_dict, by_keywords = fw.Pipeline(DOCUMENT).config, fw.Pipeline(**DOCUMENT).config
    mixed = fw.Pipeline(rest, model=model).config
    assert by_dict == by_keywords == mixed
    assert by_dict.source.path == [str(here / "log.csv")], "relative paths count from the current directory"
    assert by_dict.file == str(here / "work" / "planted" / "pipeline.yaml")
    assert load_config(by_dict.file) == by_dict, "commands and ranks read it there"


def test_paths_of_every_block_are_anchored(here: Path) -> None:
    side = {"path": Path("users.csv")}
    catalog = {"contexts": side, "items": {"path": "s3://shop/items.csv"}, "context_id": "user", "item_id": "item"}
    pipeline = fw.Pipeline(DOCUMENT, join=[{**side, "on": "user"}], catalog=catalog, workspace="elsewhere")
    config = pipeline.config
    assert config.join[0].path == [str(here / "users.csv")]
    assert config.catalog is not None
    assert config.catalog.contexts.path == [str(here / "users.csv")]
    assert config.catalog.items.path == ["s3://shop/items.csv"]
    assert config.file == str(here / "elsewhere" / "pipeline.yaml")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"training": {"epoch": 3}}, r"the config, training.epoch: .* Did you mean `epochs`\?"),
        ({"model": {"kind": "fffm"}}, "the config, model.kind"),
        ({"name": "../else"}, "the config, name: expected a name of letters"),
        ({"weight": object()}, r"weight: expected a text, a number, .* found a object\."),
        ({"fields": []}, "the config, fields"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(here: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fw.Pipeline(DOCUMENT, **more)
    assert list(here.iterdir()) == []


def test_names_that_are_shown() -> None:
    shown = [name for name in dir(fw) if not name.startswith("__")]
    assert shown == ["Model", "Pipeline", "fit", "load"]
    assert fw.__version__ == "0.1.0"
    with pytest.raises(AttributeError, match="no attribute 'import_module'"):
        fw.import_module  # noqa: B018


def test_what_is_written_reads_as_it_was_meant() -> None:
    """Texts that YAML 1.1 or 1.2 would take for something else, among them."""
    texts = ["yes", "on", "1e-6", "1.0e+3", "null", "~", "2026-01-31", "0x1f", "1_000", "a: b", "# c", "é\u2028\n", ""]
    texts += [" ", "true", "12:30:45", "=", "<<", "- a", "{", "*a", "&a", "!x", "%", "@", "'", '"']
    values = [*texts, True, False, None, 1, -2, 1e-9, 1e300, 0.1, [], {}, {"on": [1, {"no": "y"}]}]
    assert yaml.load(dumped({"a": values}), Loader=Yaml) == {"a": values}


def test_overrides_hold_what_numpy_and_tuples_hold() -> None:
    found = overrides_of({"training": {"epochs": np.int64(3), "l2": np.float32(0.5)}, "fields": ({"name": "a"},)})
    assert found == ["training.epochs=3", "training.l2=0.5", 'fields=[{"name": "a"}]']
    moment = datetime(2026, 1, 31, 19)
    for same in (moment, pd.Timestamp(moment), np.datetime64(moment)):
        assert overrides_of({"time": same})[0].startswith('time="2026-01-31T19:00:00')
    assert overrides_of({"fixed": {"a.b": 1, "c": 2}}) == ['fixed={"a.b": 1, "c": 2}'], "no path of keys"
