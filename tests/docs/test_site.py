"""The documentation as a site: every link and anchor leads somewhere, pages that are made are current."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import yaml

from fieldwise.pipelines.config.catalog import CatalogConfig
from tests.commands import ROOT

DOCS = ROOT / "docs"


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, check=False, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    page = (tmp_path / "api.html").read_text()
    assert "Probabilities of the rows of a table" in page
    assert "&gt;&gt;&gt;" in page, "examples of docstrings are shown"
    loaded = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(https?:[^"' >]+)""", page)
    assert loaded == [], "nothing is loaded from elsewhere"


def test_figures_are_those_of_the_results() -> None:
    page = runpy.run_path(str(DOCS / "benchmarks.py"))["page"]()
    assert (DOCS / "benchmarks.md").read_text() == page, "run: python docs/benchmarks.py > docs/benchmarks.md"


def test_pictures_are_small_and_shown() -> None:
    pages = "".join(path.read_text() for path in [*DOCS.glob("*.md"), ROOT / "README.md"])
    pictures = list((DOCS / "pictures").iterdir())
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 150_000
        assert f"pictures/{picture.name}" in pages


def test_the_catalog_of_the_page_is_one() -> None:
    (block,) = re.findall(r"```yaml\n(catalog:.*?)```", (DOCS / "catalog.md").read_text(), re.S)
    catalog = CatalogConfig.model_validate(yaml.safe_load(block)["catalog"])
    assert catalog.cap is not None
    assert catalog.cap.items == 3
