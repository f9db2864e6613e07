"""Reasons in the words of the data, of rows, of pairs as they are scored, of whole models."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.errors import ConfigError, InputError
from fieldwise.jobs.cli import main
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.explain import explain_rows
from fieldwise.pipelines.score.words import text_of
from tests.pipelines.catalogs import DAY, published, rows_of
from tests.pipelines.shop import FIELDS, shop_config, write_bundle, write_shop

MORE = [
    {"name": "weekday", "kind": "time", "part": "weekday", "of": "when"},
    {"name": "both", "kind": "cross", "of": ["user", "item"], "buckets": 50},
    {"name": "colors", "kind": "vocabulary", "flags": ["red", "blue"], "min_count": 1},
]


def write_log(folder: Path, *rows: str) -> Config:
    write_shop(folder)
    head, *usual = (folder / "log.csv").read_text().splitlines()
    lines = [f"{head},red,blue", *rows, *(f"{row},1,{n % 2}" for n, row in enumerate(usual))]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    return shop_config(folder, "fm", fields=[*FIELDS, *MORE], fixed={"position": 1, "red": 1, "blue": 0})


def test_values_in_words(tmp_path: Path) -> None:
    seen = "u001,33,i002,a,p|q,2026-01-05T14:00:00,1,1,1,1"
    new = "u999,81,i999,,x|p,2026-01-04T03:00:00,1,0,0,0"
    config = write_log(tmp_path, seen, new)
    bundle = write_bundle(tmp_path, config)
    known, unknown = explain_rows(config, model=bundle, rows=2)["rows"]
    assert known["values"] == {
        "user": "u001", "age": "33 in [20, 40)", "item": "i002", "category": "a", "tags": "p, q", "hour": "14",
        "position": "1", "weekday": "Monday", "both": "u001, i002", "colors": "red, blue",
    }  # fmt: skip
    assert known["raw"]["hour"] == "2026-01-05T14:00:00"
    assert unknown["values"] == {
        "user": "u999", "age": "81 in [60, inf)", "item": "i999 (unseen)", "category": "missing", "tags": "unseen, p",
        "hour": "3", "position": "1", "weekday": "Sunday", "both": "u999, i999", "colors": "missing",
    }  # fmt: skip


def test_values_have_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_log(tmp_path, "u001,33,i002,a,p|q,2026-01-05T14:00:00,1,1,1,1")
    (tmp_path / "items.csv").write_text("item,category,tags,stock,title\ni002,a,p,1,Al\x1bien\n")
    found = explain_rows(config, model=write_bundle(tmp_path, config), top=100)["rows"][0]
    assert found["values"]["item"] == "i002 Al\x1bien"
    assert "item=i002 Al\\x1bien" in capsys.readouterr().err, "no data moves a cursor"


@pytest.mark.parametrize("kind", ["lr", "poly2", "ffm"])
def test_a_pair_is_explained_as_it_is_scored(tmp_path: Path, kind: str) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path, kind)
    bundle = write_bundle(tmp_path, config)
    for context, _, item, probability in rows_of(published(score_catalog(config, model=bundle, date=DAY)))[::60]:
        (found,) = explain_rows(config, model=bundle, context=context, item=item, date=DAY)["rows"]
        assert found["probability"] == probability
        parts = [found["bias"], *(term["logit"] for term in found["terms"])]
        assert math.fsum(parts) == pytest.approx(found["logit"], abs=1e-6)
        assert (found["values"]["user"], found["values"]["hour"]) == (context, "18")
    with pytest.raises(InputError, match=r"--item: expected a value of column 'item' in catalog.items, found 'i0'"):
        explain_rows(config, model=bundle, context=context, item="i0", date=DAY)
    with pytest.raises(ConfigError, match="--context and --item together, found --item alone"):
        explain_rows(config, model=bundle, item="i001")


def test_a_field_that_mixes_both_sides(tmp_path: Path) -> None:
    write_shop(tmp_path)
    cross = {"name": "both", "kind": "cross", "of": ["user", "category"]}
    config = shop_config(tmp_path, "fm", fields=[*FIELDS, cross])
    bundle = write_bundle(tmp_path, config)
    for context, _, item, probability in rows_of(published(score_catalog(config, model=bundle, date=DAY)))[::90]:
        (found,) = explain_rows(config, model=bundle, context=context, item=item, date=DAY)["rows"]
        assert found["probability"] == probability


def test_the_command_takes_a_row_a_pair_or_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path)
    bundle = write_bundle(tmp_path, config)
    command = ["explain", "--config", config.file, "--model", bundle]
    assert main([*command, "--context", "u001", "--item", "i001", "--date", DAY]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["raw"]["user"] == "u001"
    assert main([*command, "--context", "u001", "--item", "i001", "--importance"]) == 2
    assert "expected a pair or the whole model, found both" in capsys.readouterr().err


def test_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of rows a page, of one row or pair also a drawing; whatever the data says stays text."""
    config = write_log(tmp_path, "u001,33,i002,a,p|q,2026-01-05T14:00:00,1,1,1,1")
    (tmp_path / "items.csv").write_text("item,category,tags,stock,title\ni002,a,p,1,<script>\x1b\n")
    bundle = write_bundle(tmp_path, config)
    page, drawing = tmp_path / "why.html", tmp_path / "why.svg"
    found = explain_rows(config, model=bundle, rows=2, top=3, plot=str(page))["rows"]
    assert f"picture: {page}" in capsys.readouterr().err
    text = page.read_text()
    assert text.count("<svg") == 2
    assert "<script" not in text
    assert "\x1b" not in text
    assert "i002 &lt;script&gt;\\x1b" in text
    assert f"{len(found[0]['terms']) - 3:,} more" in text
    assert "&#39;unsafe-inline&#39;" not in text, "the policy is a template's, not a value's"
    explain_rows(config, model=bundle, top=100, plot=str(drawing))
    row, shares = found[0], ElementTree.parse(drawing).iter("{http://www.w3.org/2000/svg}text")
    numbers = [float(each.text) for each in shares if each.text and re.fullmatch(r"[+-]\d+\.\d{4}", each.text)]
    assert numbers == [pytest.approx(value, abs=5e-5) for value in [*(t["logit"] for t in row["terms"]), row["bias"]]]
    for path, rows, said in (("why.png", 1, "ends in .html or .svg"), ("why.svg", 2, "one row for an .svg file")):
        with pytest.raises(ConfigError, match=said):
            explain_rows(config, model=bundle, rows=rows, plot=path)


def test_nothing_but_text_comes_of_arrow() -> None:
    assert text_of(pa.scalar(1.5)) == "1.5"
    assert text_of(pa.scalar(None, pa.string())) == ""
    assert text_of(pa.scalar(np.nan)) == ""
    assert text_of(pa.scalar(["a", None])) == "a, "
    assert text_of(pa.scalar(True)) == "true"
