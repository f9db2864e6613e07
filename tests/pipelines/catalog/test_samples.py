"""What a person sees of lists: some with names, how many differ, a warning where all are the same."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fieldwise.pipelines.catalog import distinct
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.score.names import names_of
from tests.pipelines.catalogs import DAY, published, rows_of
from tests.pipelines.shop import shop_config, write_bundle
from tests.snapshots import PLANTED


def name_the_items(shop: Path) -> None:
    head, *rows = (shop / "items.csv").read_text().splitlines()
    named = [f"{row},{'' if row.startswith('i000') else f'<b>Thing {row[:4]}'}" for row in rows]
    (shop / "items.csv").write_text("\n".join([f"{head},Title", *named]) + "\n")


def test_samples_with_names_and_counts(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name_the_items(shop)
    config = shop_config(shop, "ffm")
    bundle = write_bundle(shop, config)
    result = score_catalog(config, model=bundle, date=DAY)
    rows = rows_of(published(result))
    lists: dict[str, list[str]] = {}
    for context, _, item, _ in rows:
        lists.setdefault(context, []).append(item)
    different = {"lists": len({tuple(each) for each in lists.values()}), "items": len({row[2] for row in rows})}
    assert result["different"] == different | {"exact": True}
    said = capsys.readouterr().err
    sampled = [line for line in said.splitlines() if line.startswith("  user u")]
    assert [line.split()[1].rstrip(":") for line in sampled] == ["u000", "u001", "u002"]
    for line in sampled:
        first = lists[line.split()[1].rstrip(":")][:5]
        told = [f"{item} <b>Thing {item} (" if item != "i000" else "i000 (" for item in first]
        assert [line.index(text) for text in told] == sorted(line.index(text) for text in told)
    assert f"{different['lists']} different lists, which show {different['items']} items" in said
    assert "warning" not in said
    page = Path(result["report"])
    assert page.parent == Path(result["dir"])
    assert f"  report: {page}" in said
    text = page.read_text()
    assert f"{different['lists']} different lists, which show {different['items']} items" in text
    assert "<bdi>&lt;b&gt;Thing i001</bdi> <small><bdi>i001</bdi></small>" in text, "names are data, and stay text"
    cards = re.findall(r"<h3><bdi>user</bdi> <bdi>(u\d+)</bdi></h3>\n<ol>(.*?)</ol>", text, re.S)
    assert len(cards) == 12
    for context, card in cards:
        assert [item for item in lists[context][:10] if f"<bdi>{item}</bdi>" not in card] == []
        assert card.count("<li>") == len(lists[context][:10])
    counts = Counter(row[2] for row in rows)
    most, times = counts.most_common(1)[0]
    first = re.search(r"<th><bdi>listed most.*?<td><bdi>(\w+)</bdi>.*?>(\d+)</bdi>", text, re.S)
    assert first is not None
    assert counts[first[1]] == times == int(first[2]), most
    assert "Warning:" not in text
    again = score_catalog(config, model=bundle, date=DAY)
    assert again["status"] == "already published"
    assert "user u000: " in capsys.readouterr().err


def test_one_list_for_everybody_is_warned_of(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = shop_config(shop, "lr")
    bundle = write_bundle(shop, config)
    result = score_catalog(config, model=bundle, date=DAY)
    assert result["different"]["lists"] == 1
    best = rows_of(published(result))[0][2]
    said = capsys.readouterr().err
    assert "warning: all lists are the same: model kind lr adds up weights of single values" in said
    assert f"`fieldwise train --config {config.file} --set model.kind=ffm`, and promote it" in said
    assert "poly2, fm, ffm" in said
    assert "all lists are the same: model kind lr adds up" in Path(result["report"]).read_text()
    (shop / "seen.csv").write_text(f"user,item\nu000,{best}\n")
    score_catalog(shop_config(shop, "lr", exclude={"path": "seen.csv"}), model=bundle, date=DAY)
    assert "warning: lists differ by what they may not hold alone: model kind lr" in capsys.readouterr().err


def test_contexts_that_the_model_does_not_know(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that crosses fields gives one list, too, to those of whom it knows nothing."""
    (shop / "users.csv").write_text("user,age\n" + "".join(f"x{n},\n" for n in range(9)))
    fields = [{"name": "age", "kind": "number", "edges": [20]}, {"name": "item", "kind": "vocabulary"}]
    config = shop_config(shop, "fm", fields=fields, fixed=None, time=None)
    assert score_catalog(config, model=write_bundle(shop, config))["different"]["lists"] == 1
    assert "warning: all 9 lists are the same: nothing that the model knows" in capsys.readouterr().err


def test_counts_of_parts_are_those_of_the_whole() -> None:
    draw = np.random.default_rng(1)
    for values in (3, 200, 100_000):
        items = draw.permutation(values).astype(np.int64)
        parts = [distinct.smallest(distinct.hashes_of_items(part)) for part in np.array_split(items, 7)]
        found, exact = distinct.count(parts)
        assert exact == (values < distinct.MOST)
        assert found == values if exact else abs(found / values - 1) < 0.25
        assert distinct.count([distinct.smallest(distinct.hashes_of_items(items))]) == (found, exact)


def test_lists_are_told_apart_by_order_and_length() -> None:
    start = np.array([0, 2, 4, 5, 5, 7])
    item = np.array([1, 2, 2, 1, 1, 1, 2])
    assert len(set(distinct.hashes_of_lists(start, item).tolist())) == 3, "12, 21, 1, none, 12"
    assert len(distinct.hashes_of_lists(start, item)) == 4


def test_names_come_from_whichever_table_has_the_key(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,price\na,1\n")
    (tmp_path / "films.csv").write_text("item,ITEM_NAME,title\na,Alien,other\nb,,other\nc," + "x" * 99 + ",other\n")
    (tmp_path / "planted.yaml").write_text(PLANTED)
    joined = load_config(tmp_path / "planted.yaml", ["join=[{path: films.csv, 'on': item}]"])
    assert names_of(joined, "item", ["a", "z"]) == {"a": "other"}, "title before item_name"
    (tmp_path / "films.csv").write_text("item,ITEM_NAME\na,Alien\nb,\nc," + "x" * 99 + "\n")
    assert names_of(joined, "item", ["a", "b", "c", "z"]) == {"a": "Alien", "c": "x" * 57 + "..."}
    assert names_of(joined, "user", ["a"]) == {}
    (tmp_path / "films.csv").write_text("title,item,Name\nother,a,Alien\n")
    assert names_of(joined, "item", ["a"]) == {"a": "Alien"}, "name before title"
    (tmp_path / "films.csv").unlink()
    assert names_of(joined, "item", ["a"]) == {}, "what only a picture needs is no reason to stop"
