"""From a table to ranked lists in Python: the same numbers as the commands give, whatever library the table is of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fieldwise as fw
from fieldwise.api import fitting
from fieldwise.api.frames import arrow
from fieldwise.features.errors import ArtifactError, ConfigError, InputError, RefusedError
from fieldwise.jobs.cli import main

USERS, ITEMS, ROWS = 30, 40, 4000
SETTINGS: dict[str, Any] = {"batch_size": 256, "epochs": 4, "threads": 1, "auto": False, "learning_rate": 0.1}


def clicks(rows: int = ROWS, seed: int = 5) -> pd.DataFrame:
    """Users of two tastes, items of two kinds: who likes what no single column tells, but for some items."""
    draw = np.random.default_rng(seed)
    user, item = draw.integers(USERS, size=rows), draw.integers(ITEMS, size=rows)
    likes = np.where(user % 2 == item % 2, 0.7, 0.15) + 0.2 * (item % 5 == 0)
    moments = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.sort(draw.integers(14 * 86400, size=rows)), unit="s")
    return pd.DataFrame(
        {
            "user": [f"u{n:02d}" for n in user], "item": [f"i{n:02d}" for n in item], "price": (item % 7) + 0.5,
            "when": moments, "click": (draw.random(rows) < likes).astype(int),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("python")


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


@pytest.fixture(scope="module")
def shop(folder: Path) -> fw.Pipeline:
    """Fitted on a pandas frame, in a fresh directory."""
    before, outer = os.getcwd(), os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.chdir(folder)
    try:
        return fw.fit(clicks(), label="click", time="when", name="shop", training=SETTINGS)
    finally:
        os.chdir(before)
        os.environ |= {"MLFLOW_TRACKING_URI": outer} if outer else {}


def test_a_table_becomes_a_model(shop: fw.Pipeline, here: Path) -> None:
    trained = shop.trained
    assert trained is not None
    assert (trained.kind, trained.model, trained.champion) == ("ffm", "models:/shop/1", True)
    assert trained.metrics["test"]["auc"] > 0.7, "the taste is learned"
    assert [field.name for field in shop.config.fields] == ["user", "item", "price", "hour"]
    assert shop.workspace == str(here / "work" / "shop")
    assert {path.name for path in here.iterdir()} == {"work"}
    assert oct((here / "work" / "shop").stat().st_mode)[-1] == "0", "as with commands, for its user and group"


def test_what_gives_the_label_away_is_no_field(capsys: pytest.CaptureFixture[str]) -> None:
    frame = clicks(1000)
    frame["paid"] = np.where(frame["click"] == 1, "yes", "no")
    frame["stars"] = np.where(frame["click"] == 1, 5.0, np.nan)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    names = [field["name"] for field in fitting._fields(table, None, "click", {"click", "when"})]
    assert names == ["user", "item", "price"]
    said = capsys.readouterr().err
    assert "paid: LEAK: it alone explains" in said
    assert "stars: LEAK: set in 100.0% of the positives and 0.0% of the others" in said
    asked = fitting._fields(table, ["user", "paid"], "click", set())
    assert [field["name"] for field in asked] == ["user", "paid"]
    assert "it is a field, since it was asked for" in capsys.readouterr().err


def test_nothing_is_left_out_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of a small log, whose columns of moments, of nothing and of one value for each row tell nothing."""
    frame = clicks(200).rename_axis(index="row").assign(
        since=lambda rows: rows["when"] - pd.Timestamp("2025-12-31"), joined=lambda rows: rows["when"].dt.date,
        seen=lambda rows: rows["when"] - pd.Timedelta(days=3), empty=None, shop="north",
        note=[f"n{n}" for n in range(200)], vip=np.where(np.arange(200) % 3, "yes", None),
        rare=[f"r{n // 3}" for n in range(200)],
    )  # fmt: skip
    fields = fitting._fields(arrow(frame), None, "click", {"click", "when"})
    assert fields == [
        {"name": "user", "kind": "vocabulary"},
        {"name": "item", "kind": "vocabulary"},
        {"name": "price", "kind": "number", "quantiles": 10},
        {"name": "vip", "kind": "vocabulary"},
        {"name": "rare", "kind": "vocabulary", "min_count": 1},
    ]
    said = capsys.readouterr().err
    for name, why in {
        "row": "ID: 200 values, as many as rows", "since": "durations (duration[us]): no field. Pass them as numbers",
        "joined": 'moments (date32[day]), of which only `time` becomes fields: no field. Pass a number of it',
        "seen": '{"name": "seen_month", "kind": "time", "part": "month", "of": "seen"}',
        "empty": "no value in all rows", "shop": "one value in all rows: no field",
        "note": "ID: 200 values, as many as rows",
    }.items():  # fmt: skip
        assert [line for line in said.splitlines() if line.startswith(f"warning: {name}: ") and why in line], name
    assert len(said.splitlines()) == 7


def test_very_many_values_are_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"a": [str(n % 30_000) for n in range(60_000)], "click": [n % 2 for n in range(60_000)]})
    hashed = fitting._fields(table, None, "click", {"click"})
    assert [(field["name"], field["kind"]) for field in hashed] == [("a", "hash")]
    monkeypatch.setattr(fitting, "_LOOKED", 50)
    assert fitting._fields(table, None, "click", {"click"}), "values come again in later rows"


def test_the_commands_go_on_where_python_ended(shop: fw.Pipeline, here: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "--config", "work/shop/pipeline.yaml"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    evaluation = shop.evaluate()
    assert capsys.readouterr().out == "", "stdout is the user's"
    assert evaluation.told == told | {"used_model": told["used_model"] | {"alias": "champion"}}
    assert evaluation.logloss == told["metrics"]["logloss"]
    assert 0.8 < evaluation.calibration < 1.2


def test_probabilities_are_those_of_score_rows(shop: fw.Pipeline, here: Path, capsys: pytest.CaptureFixture) -> None:
    """Whatever the library, and to the last bit."""
    frame = clicks(500, seed=6)
    path = here / "new.parquet"
    pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
    assert main(["score-rows", "--config", "work/shop/pipeline.yaml", "--input", str(path)]) == 0
    scored = pq.read_table(json.loads(capsys.readouterr().out.splitlines()[-1])["dir"])
    wanted = scored["probability"].to_numpy()
    shuffled = frame.sample(frac=1, random_state=1)
    series = shop.predict(shuffled)
    np.testing.assert_array_equal(series.sort_index().to_numpy(), wanted)
    np.testing.assert_array_equal(shop.predict(pl.from_pandas(frame)).to_numpy(), wanted)
    np.testing.assert_array_equal(shop.predict(pa.Table.from_pandas(frame)).to_numpy(), wanted)
    path.unlink()


def test_lists_are_what_every_pair_scores(shop: fw.Pipeline) -> None:
    moment = "2026-01-15T19:00:00"
    items = clicks().drop_duplicates("item")[["item", "price"]].sort_values("item", ignore_index=True)
    lists = shop.top_k(["u00", "u01"], 5, items=items, context_id="user", time=moment)
    for user in ("u00", "u01"):
        pairs = items.assign(user=user, when=pd.Timestamp(moment))
        pairs["p"] = shop.predict(pairs)
        best = pairs.sort_values(["p", "item"], ascending=[False, True], kind="stable").head(5)
        assert lists.of(user) == best["item"].tolist()
    assert lists.of("u00") != lists.of("u01")
    frame = pl.DataFrame({"user": ["u01"]})
    again = shop.top_k(frame, 3, items=items, time=moment)
    assert again.of("u01") == lists.of("u01")[:3]
    assert len(again) == 3
    assert list(lists.to_pandas().columns[:4]) == ["context_id", "rank", "item_id", "probability"]
    assert list(Path(shop.workspace, "python").iterdir()) == [], "nothing is left behind"


def test_ids_of_a_table_and_one_alone(shop: fw.Pipeline) -> None:
    items = clicks().drop_duplicates("item")[["item", "price"]].set_index("item")
    moment = pd.Timestamp("2026-01-15T19:00:00")
    wanted = shop.top_k(["u00", "u01"], 3, items=items, context_id="user", time=str(moment))
    of_series = shop.top_k(pd.Series(["u00", "u01"], name="user"), 3, items=items, time=moment)
    assert of_series.table.equals(wanted.table)
    alone = shop.top_k("u00", 3, items=items, context_id="user", time=moment.to_pydatetime())
    assert alone.of("u00") == wanted.of("u00")
    assert len(alone) == 3


def test_every_column_that_a_list_lacks_is_named_at_once(shop: fw.Pipeline) -> None:
    words = r"fields 'price', 'hour': expected columns 'price', 'when' in contexts or items, found them in neither\. "
    words += r"Add them to a source, or give them values under catalog\.fixed \(`price: \.\.\.`, null for missing\), "
    with pytest.raises(InputError, match=f"{words}and the moment by catalog.time"):
        shop.top_k(["u00"], 3, items={"item": ["i00", "i01"]}, context_id="user")


def test_a_row_is_explained(shop: fw.Pipeline) -> None:
    frame = clicks(3)
    for row in (frame.iloc[1], frame.iloc[1:2], frame.iloc[1].to_dict()):
        found = shop.explain(row)
        assert sum(term["logit"] for term in found.terms) + found.bias == pytest.approx(found.logit, abs=1e-6)
        assert found.probability == pytest.approx(shop.predict(frame).iloc[1])
    with pytest.raises(InputError, match="the row: expected one row, found 3"):
        shop.explain(frame)


def test_a_model_by_name_alone(shop: fw.Pipeline, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = clicks(50)
    model = fw.load("models:/shop@champion")
    assert (model.kind, model.version, model.alias) == ("ffm", "1", "champion")
    assert model.columns == ["user", "item", "price", "when"]
    pd.testing.assert_series_equal(model.predict(frame), shop.predict(frame))
    with pytest.raises(InputError, match="column 'price'"):
        model.predict(frame.drop(columns="price"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArtifactError, match=r"MLflow's database in .*work/shop, found none\. Pass the workspace"):
        fw.load("models:/shop@champion")
    assert list(tmp_path.iterdir()) == [], "none is made"
    for where in ({"workspace": shop.workspace}, {"tracking": f"sqlite:///{shop.workspace}/mlflow.db"}):
        assert fw.load("models:/shop/1", **where).digest == model.digest
    with pytest.raises(ArtifactError, match="neither"):
        fw.load("shop")


@pytest.mark.slow
def test_another_kind_with_the_same_rows(shop: fw.Pipeline, here: Path) -> None:
    """The object's own model is what it trained last, whoever is champion."""
    other = fw.Pipeline("work/shop/pipeline.yaml")
    trained = other.train("lr", training={"epochs": 2}, name="simple")
    assert (trained.kind, trained.version, trained.champion) == ("lr", "2", False)
    assert other.model().kind == "lr"
    assert fw.Pipeline("work/shop/pipeline.yaml").model().kind == "ffm"
    assert other.evaluate(model="models:/shop@champion").logloss < other.evaluate().logloss
    chosen = other.train("auto", training={"auto": False}, model={"pair_buckets": 4096}, name="best")
    assert chosen.kind != "lr"  # which finds nothing in who likes what


def test_another_table_takes_the_place_of_the_first(here: Path) -> None:
    def fitted(rows: int) -> fw.Pipeline:
        fields = ["user", "item"]
        return fw.fit(clicks(rows), label="click", fields=fields, name="twice", kind="lr", training=SETTINGS)

    small = fitted(2000)
    before = small.features()
    assert sum(before.rows.values()) == 2000
    assert set(before.rows) == {"train", "valid", "test"}, "without a time rows are drawn"
    assert fitted(2000).features().told["status"] == "already published"
    after = fitted(2500).features()
    assert sum(after.rows.values()) == 2500
    assert len(list(Path(small.workspace, "data").iterdir())) == 1


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"fields": ["usr"]}, r"fields: expected columns of the table, found 'usr'.*Did you mean `user`\?"),
        ({"fields": ["user", "when"]}, "fields, when: expected a column of values, found moments .*part"),
        ({"label": "clicks", "fields": ["user"]}, "clicks"),
        ({"kind": "fffm", "fields": ["user"]}, r"model.kind"),
    ],
)
def test_mistakes_before_any_work(keys: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, InputError), match=said):
        fw.fit(clicks(50), **{"label": "click", "workspace": tmp_path / "w", **keys})


def test_labels_of_minus_one_and_one(tmp_path: Path) -> None:
    frame = clicks(200).assign(click=lambda rows: 2 * rows["click"] - 1)
    with pytest.raises((InputError, RefusedError), match=r"compare numbers, such as `label: click >= 1`"):
        fw.fit(frame, label="click", fields=["user"], workspace=tmp_path / "w")


def test_a_field_of_too_rare_values(tmp_path: Path) -> None:
    rare = {"name": "note", "kind": "vocabulary"}
    frame = clicks(200).assign(note=[f"n{n // 2}" for n in range(200)])
    said = r"field 'note': expected a value in the training rows, 4 times \(its min_count\), found none\. Leave"
    with pytest.raises(InputError, match=said):
        fw.fit(frame, label="click", fields=["user", rare], workspace=tmp_path / "w")


def test_results_show_what_data_says_as_text(shop: fw.Pipeline) -> None:
    frame = clicks(2).assign(user="<script>alert(1)</script>")
    page = shop.explain(frame.iloc[0])._repr_html_()
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    for result in (shop.trained, shop.evaluate(), shop.features()):
        assert result is not None
        assert "<table>" in result._repr_html_()
        assert "test" in repr(result)


def test_lists_are_measured_beside_popularity(shop: fw.Pipeline) -> None:
    frame = clicks()
    users, items = (frame[[name]].drop_duplicates() for name in ("user", "item"))
    items = items.merge(frame[["item", "price"]].drop_duplicates("item"))
    lists = shop.top_k(users, 5, items=items, context_id="user", time="2026-01-15T19:00:00")
    found = shop.evaluate_lists(lists)
    assert set(found.metrics["ndcg@5"]) == {"lists", "popularity", "random", "over_popularity", "over_random"}
    gap = found.metrics["ndcg@5"]["over_popularity"]
    assert gap["value"] == pytest.approx(
        found.metrics["ndcg@5"]["lists"]["value"] - found.metrics["ndcg@5"]["popularity"]["value"], abs=1e-9
    )
    assert found.beats_popularity == (gap["low"] > 0)
    assert "than the most popular items: ndcg@5" in repr(found)
    assert found.days == shop.evaluate_lists(lists, first=found.days[0], last=found.days[-1]).days
    assert list(Path(shop.workspace, "python").iterdir()) == [], "nothing is left behind"


def test_predict_tells_of_values_that_training_has_not_seen(shop: fw.Pipeline, capsys: pytest.CaptureFixture) -> None:
    frame = clicks(20)
    shop.predict(frame)
    assert "none of these values" not in capsys.readouterr().err
    shop.predict(frame.assign(item="nowhere"))
    assert (
        "predict: training has seen none of these values of field 'item', such as 'nowhere'" in capsys.readouterr().err
    )
