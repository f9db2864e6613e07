"""The demo in small: the whole job, its table, and the shop behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fieldwise.features.engine.local import LocalEngine
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.demo import shop as shops
from fieldwise.pipelines.demo.demo import demo
from fieldwise.pipelines.demo.shop import Shop, generate
from fieldwise.pipelines.score.explain import explain_model

CONFIG = Path(__file__).parents[3] / "configs" / "demo.yaml"


def test_the_whole_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FIELDWISE_WORK", str(tmp_path))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config = load_config(CONFIG, ["training.epochs=4", "training.batch_size=1024"])
    result = demo(config, models=["lr", "ffm"], rows=70_000)
    lr, ffm = result["models"]
    assert result["best"] == "ffm"
    (gap,) = result["differences"]
    assert (gap["of"], gap["less"]) == ("lr", "ffm")
    of_logloss = gap["logloss"]
    assert of_logloss["low"] > 0.8 * of_logloss["difference"] > 0
    assert lr["logloss"] - ffm["logloss"] == pytest.approx(of_logloss["difference"], abs=1e-6)
    assert lr["excess"] > ffm["excess"] > 0
    assert ffm["logloss"] - ffm["excess"] == pytest.approx(result["truth_logloss"], abs=1e-6)
    assert result["registered"]["champion"] == "1"
    lists = pq.read_table(result["catalog"]["dir"]).to_pandas()
    assert (lists.groupby("context_id").size() == 10).all()
    said = capsys.readouterr().err
    assert "model  logloss             AUC" in said
    assert f"lr     {lr['logloss']:.5f} +- {lr['logloss_se']:.5f}  {lr['auc']:.5f} +- {lr['auc_se']:.5f}  " in said
    assert f"lr - ffm  {of_logloss['difference']:+.5f} ({of_logloss['low']:+.5f} to " in said
    lines = said.splitlines()
    by_model = 3  # a line before it, one after it, one of its report
    assert len(lines) + 2 * by_model + 5 < 60, "with the two other models, and their differences, on one screen"
    reports = [line.split("; report: ")[1] for line in lines if "; report: " in line]
    assert len(reports) == 2
    assert "Strongest pairs" in Path(reports[1]).read_text()
    strongest = [tuple(each["fields"]) for each in explain_model(config)["pairs"][:3]]
    assert all(pair in shops.PAIRS or pair[::-1] in shops.PAIRS for pair in strongest), strongest


def test_rows_do_not_depend_on_blocks_or_tasks(tmp_path: Path) -> None:
    shop = Shop(3000, seed=5)
    days = generate(LocalEngine(), shop, str(tmp_path / "whole"))
    assert [d["rows"] for d in days] == [428, 429, 428, 429, 428, 429, 429]
    day = np.asarray(shop.rows_of(2))
    whole = shop.log_table(day)[0]
    parts = [shop.log_table(part)[0] for part in np.array_split(day, 3)]
    assert whole.equals(pyarrow.concat_tables(parts).combine_chunks())
    read = pyarrow.csv.read_csv(tmp_path / "whole" / "log" / "2026-01-03-0000.csv")
    assert read["user"].to_pylist() == whole["user"].to_pylist()
    assert read["truth"].to_pylist() == whole["truth"].to_pylist()
    assert Shop(3000, seed=6).log_table(day)[0]["user"].to_pylist() != whole["user"].to_pylist()


def test_clicks_follow_the_stated_truth() -> None:
    """Mean click rate and logloss lie within five standard errors of what the probabilities promise."""
    shop = Shop(210_000)
    x = shop.draw(np.asarray(shop.rows_of(6)))
    p, y, n = x["truth"], x["click"], len(x["click"])
    assert abs((y - p).mean()) < 5 * np.sqrt((p * (1 - p)).mean() / n)
    loss = -np.where(y == 1, np.log(p), np.log(1 - p))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    assert abs((loss - entropy).mean()) < 5 * (loss - entropy).std() / np.sqrt(n)


def test_the_logit_is_the_planted_one() -> None:
    """One row by plain loops."""
    shop = Shop(700)
    x = shop.draw(np.arange(3))
    w, v = shop.planted
    row = {name: [int(i) for i in np.atleast_1d(x[name][1]) if i >= 0] for name in shops.SIZES}
    total = shops.BIAS + sum(np.mean([w[f][i] for i in row[f]]) for f in shops.SIZES)
    for f, g in shops.PAIRS:
        total += np.mean([v[f, g][i] for i in row[f]], axis=0) @ np.mean([v[g, f][j] for j in row[g]], axis=0)
    assert shop.logit(x)[1] == pytest.approx(total, rel=1e-12)


def test_items_arrive_by_day_and_popularity_has_a_long_tail() -> None:
    shop = Shop(350_000)
    seen = [set(np.unique(shop.draw(np.asarray(shop.rows_of(day)))["item"])) for day in range(7)]
    new = {item for item in range(300) if shop.items["since"][item] > 0}
    assert new
    assert not new & seen[0]
    assert seen[6] >= new
    counts = np.sort(np.bincount(shop.draw(np.asarray(shop.rows_of(6)))["item"], minlength=300))[::-1]
    assert counts[:30].sum() > 0.35 * counts.sum()
