"""What people, MLflow and the page are told of an evaluation."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.pipelines.config.lists import ListsConfig
from fieldwise.pipelines.lists.measure import Measured, Yardsticks
from fieldwise.pipelines.lists.packed import EVENT, LISTED, Contexts
from fieldwise.pipelines.lists.page import page
from fieldwise.pipelines.lists.results import figures, logged, told


@pytest.fixture
def found() -> dict[str, Any]:
    """Two contexts of a catalog of four items: one list hits at once, the other never."""
    of = Yardsticks((1, 2), np.array([1, 2, 3, 4]), np.array([False, False, False, True]), False, (), {
        "<b>": (["x", "<i>y</i>"], np.array([0, 1, 1, 1], np.int32))})  # fmt: skip
    measured = Measured(of)
    kind = np.array([LISTED, LISTED, EVENT, LISTED, EVENT], np.int32)
    context, item = np.array([0, 0, 0, 1, 1]), np.array([2, 0, 2, 1, 3])
    measured.add(Contexts(pa.array(["a", "b"]), kind, context, item, np.array([1.0, 2, 1, 1, 1]), {}))
    read = {"events": Counter(rows=2, outside=0)}
    lists = ListsConfig(cutoffs=[1, 2])
    made = {"dir": "work/lists", "model": "d", "model_version": "7", "digest": "e"}
    rest = {"date": "2026-01-07", "lists": made, "days": ["2026-01-08"], "items": 4}
    return rest | figures(lists, lists.lengths(10), measured, read, np.array([3, 1, 0, 0]))


def test_differences_and_slices(found: dict[str, Any]) -> None:
    recall = found["metrics"]["recall@1"]
    assert [recall[name]["value"] for name in ("lists", "popularity")] == [0.5, 0]
    assert recall["over_popularity"]["value"] == 0.5
    assert recall["over_random"]["value"] == 0.5 - recall["random"]["value"]
    assert found["exposure"]["coverage@2"] == 0.75
    slices = {each["slice"]: each for each in found["slices"]}
    assert slices["items = new"]["recall@1"]["lists"] == {"value": 0.0, "low": None, "high": None}
    assert slices["items.<b> = <i>y</i>"]["contexts"] == 2
    assert found["by"] == "ndcg@2"


def test_metrics_have_names_that_mlflow_takes(found: dict[str, Any]) -> None:
    metrics = logged(found)
    assert metrics["lists/recall_at_1"] == 0.5
    assert metrics["lists/popularity/recall_at_1"] == 0
    assert metrics["lists/coverage_at_2"] == 0.75
    assert all(re.fullmatch(r"[/\w.\- ]+", name) and np.isfinite(value) for name, value in metrics.items())


def test_the_table_and_the_page_show_texts_as_they_are(found: dict[str, Any]) -> None:
    lines = list(told(found))
    assert lines[0].startswith(
        "lists work/lists: 2 lists of 3 items; wanted from 2026-01-08 to 2026-01-08: 2 pairs of 2"
    )
    assert any(line.startswith("  recall@1") and "0.50000 (" in line for line in lines)
    html = page(found, "shop: lists of <day>")
    assert "<script" not in html
    assert "<title>shop: lists of &lt;day&gt;</title>" in html
    assert "items.&lt;b&gt; = &lt;i&gt;y&lt;/i&gt;" in html
    assert html.count("<svg") == 6 + len(found["slices"])
