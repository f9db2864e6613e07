"""Names and values from data are never YAML, a path, a variable or a line of their own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.config.document import parsed
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.init.init import init
from fieldwise.pipelines.init.yaml_text import Page, flow, scalar

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
NAMES = [
    "a: b", "#c", "x # y", "- z", "*star", "&anchor", "!tag", "on", "true", "null", "1e5", "0x10", "12", "{a: 1}", "[b",
    "%d", "@e", "line\nlabel: evil", "car\rriage", "tab\there", 'quo"te', "apo'strophe", "back\\slash", "<script>",
    "\u202egnp", "\u2028next", "\x85nel", "日本語", "🎈",
    "I{1..3}", "${HOME}", "${NO:-x}", "`tick`", "class", " lead", "",
]  # fmt: skip
"""Of columns."""


@given(TEXTS)
def test_any_text_is_read_as_written(text: str) -> None:
    assert parsed(f"key: {scalar(text)}", "here")[1] == {"key": text}
    value = {"key": [text, {text or "x": text}]}
    assert parsed(flow(value), "here")[1] == value


@given(TEXTS)
def test_a_comment_is_nothing_else(text: str) -> None:
    page = Page()
    page.comment(text)
    page.line("name", "x")
    page.open("fields")
    page.item({"name": text, "kind": "hash"}, text)
    assert parsed(page.text, "here")[1] == {"name": "x", "fields": [{"name": text, "kind": "hash"}]}


def test_hostile_columns(tmp_path: Path) -> None:
    with open(tmp_path / "log.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        rows.writerow(["click", "user", "item", *NAMES])
        for n in range(300):
            values = [f"{name}\n- {n % 7}" for name in NAMES]
            rows.writerow([n % 2, f"u{n % 11}: #", f"- i{n % 13}", *values])
    found = init(str(tmp_path / "log.csv"), out=str(tmp_path / "config.yaml"))
    config = load_config(tmp_path / "config.yaml")
    unnamed = {"", "I{1..3}", "${HOME}", "${NO:-x}"}
    columns = {field.column for field in config.fields}
    assert set(NAMES) - unnamed <= columns
    assert len(columns) == len(NAMES) + 2
    assert not unnamed & columns
    assert found["label"] == "click"
    whole = yaml.safe_load((tmp_path / "config.yaml").read_text().replace(" on:", ' "on":'))
    assert whole.keys() == {"name", "source", "label", "split", "fields", "model", "catalog"}
    text = (tmp_path / "config.yaml").read_text()
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}


@pytest.mark.parametrize("name", ["log{1..3}.csv", "${HOME}.csv"])
def test_paths_that_mean_something_else(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("click,user\n1,a\n0,b\n")
    with pytest.raises(ConfigError, match="expected a path that a config can name"):
        init(str(tmp_path / name), out=str(tmp_path / "config.yaml"))
    assert [path.name for path in tmp_path.iterdir()] == [name]
