"""The notebooks of examples/: whole and clean in every run, executed in slow ones."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import fieldwise as fw
from fieldwise.jobs.cli import parser
from tests.commands import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
_MAGIC = re.compile(r"^(?:\w+ = )?!(.*)$", re.M)


def drawn(text: str) -> Iterator[str]:
    """Lines as a notebook shows them: what follows a carriage return is written over what stood there."""
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part) :]
        yield shown


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_are_code_and_commands_are_commands(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], "outputs name the machine that ran it"
            assert cell["execution_count"] is None
            source = "".join(cell["source"])
            tree = ast.parse(_MAGIC.sub("None", source))
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "fw":
                    assert node.attr in fw.__all__
            for command in _MAGIC.findall(source):
                name, *rest = shlex.split(command)
                assert name == "fieldwise"
                assert parser().parse_args(rest).called


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a fresh directory; nothing that draws over its own line reaches a cell."""
    nbclient, nbformat = (pytest.importorskip(name) for name in ("nbclient", "nbformat"))
    data = Path(os.environ.get("FIELDWISE_DATA", ROOT.parent / "shared" / "data"))
    if path.stem == "movielens" and not data.is_dir():
        pytest.skip(f"no real data at {data}; set FIELDWISE_DATA")
    for name in ("MLFLOW_TRACKING_URI", "FIELDWISE_LOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FIELDWISE_DATA", str(data))
    monkeypatch.setenv("SPARK_MASTER", "local[2]")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    where = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=900, kernel_name="python3", resources=where).execute()
    if kept := os.environ.get("FIELDWISE_KEEP"):
        nbformat.write(notebook, Path(kept) / path.name)
    for cell in notebook.cells:
        said = "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")
        lines = list(drawn(said))
        assert [line for line in lines if "Traceback" in line or "Warning" in line] == []
        if not _MAGIC.search(cell.get("source", "")):  # IPython gives those a terminal of their own
            assert [line for line in lines if "\x1b" in line or "%|" in line] == [], "no bar is left behind"
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type != "stream"]
    assert any("<table" in output.data.get("text/html", "") for output in shown)
