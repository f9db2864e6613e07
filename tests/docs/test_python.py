"""The examples of docs/python.md, of docstrings and the README's Python, run in order in a fresh directory."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from typing import Any

import pytest

from tests.commands import ROOT


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.S)


def failures(found: dict[str, Any]) -> list[str]:
    """Of the examples in docstrings of `fieldwise.api`, which go on where docs/python.md ends."""
    from fieldwise.api import Model, Pipeline, fit, load

    said: list[str] = []
    finder, runner = doctest.DocTestFinder(recurse=True), doctest.DocTestRunner()
    tests = [test for each in (Pipeline, Model, fit, load) for test in finder.find(each, globs=found) if test.examples]
    assert len(tests) >= 8
    for test in tests:
        runner.run(test, out=said.append, clear_globs=False)
    return said


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.mark.slow
def test_the_page_and_the_readme(here: Path) -> None:
    """The README's lines follow: they speak of the same shop."""
    found: dict[str, Any] = {}
    for block in blocks("docs/python.md"):
        exec(compile(block, "docs/python.md", "exec"), found)
    assert found["shop"].trained.metrics["test"]["auc"] > 0.65
    assert len(found["lists"]) == 20
    assert sum(found["total"].fields.values()) == pytest.approx(1)
    assert found["simple"].trained.kind == "lr"
    assert found["quick"].config.training.epochs == 1
    assert found["model"].predict(found["df"].head(3)).tolist() == found["p"].head(3).tolist()
    assert failures(found) == []
    (lines,) = blocks("README.md")
    assert len([line for line in lines.splitlines() if line]) == 5
    exec(compile(lines, "README.md", "exec"), found)
    assert len(found["best"]) == 2 * 10
