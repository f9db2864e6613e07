"""score-rows as its users run it: raw rows in, the same rows with a probability out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fieldwise.features.errors import ConfigError, InputError, RefusedError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.pipelines.registry import registry
from fieldwise.pipelines.score.score_rows import score_rows
from fieldwise.training.models import MODELS
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.network.network import Network
from fieldwise.training.scoring.scorer import Scorer
from fieldwise.training.tracking import runs
from tests.pipelines.catalogs import read
from tests.pipelines.shop import shop_config, write_bundle, write_shop


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_shop(tmp_path)
    return tmp_path


def published(result: dict[str, Any]) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted(Path(result["dir"]).glob("part-*.parquet"))])


@pytest.mark.parametrize("kind", ["lr", "poly2", "fm", "ffm", "fwfm", "deepfm"])
def test_equals_the_training_sides_prediction(shop: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldwise.pipelines.score.score_rows.RANGE_BYTES", 100_000)
    write_shop(shop, rows=10_000)
    config = shop_config(shop, kind)
    bundle = load_bundle(write_bundle(shop, config))
    result = score_rows(config, model=str(shop / "bundle"))
    table, log = published(result), read(shop / "log.csv")
    assert result["files"] > 3
    assert table.drop_columns(["probability"]).equals(log)
    slots = Encoder(bundle.spec).encode(log).slots
    network = Network.from_bundle(bundle)
    logits = network.score(network.lookup(np.ascontiguousarray(slots))).astype(np.float64) + bundle.logit_shift
    bound = 1e-5 if MODELS[kind].dense else 1e-6  # scores are float64 sums, layers multiply what float32 rounds
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-logits)), rtol=0, atol=bound)
    np.testing.assert_array_equal(table["probability"], Scorer(bundle).probabilities(slots))


def test_the_label_may_be_absent_and_inputs_named(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    lines = [line.rpartition(",")[0] for line in (shop / "log.csv").read_text().splitlines()[:51]]
    (shop / "new.csv").write_text("\n".join(lines) + "\n")
    result = score_rows(config, model=bundle, inputs=["new.csv"], out=str(shop / "new"))
    assert (result["rows"], result["dir"]) == (50, str(shop / "new" / "date=all"))
    whole = published(score_rows(config, model=bundle))
    assert published(result)["probability"].to_pylist() == whole["probability"].slice(0, 50).to_pylist()
    slim = published(score_rows(config, model=bundle, columns=["item", "user"], out=str(shop / "slim")))
    assert slim.equals(whole.select(["item", "user", "probability"]))


def test_quoted_line_breaks_and_columns_by_position(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    whole = published(score_rows(config, model=bundle))
    header, *lines = (shop / "log.csv").read_text().splitlines()
    noted = [f'{line},"an ""answer"",\n{lines[0]},\n{lines[-1]},"' for line in lines]
    (shop / "noted.csv").write_text("\n".join(["u,a,i,c,t,w,p,y,note", *noted]))
    source = {"path": ["noted.csv"], "columns": [*header.split(","), "note"], "header": True}
    monkeypatch.setattr("fieldwise.pipelines.score.score_rows.RANGE_BYTES", 1000)
    by_position = config.model_copy(update={"source": config.source.model_validate(source)})
    result = published(score_rows(by_position, model=bundle, out=str(shop / "noted")))
    assert result.drop_columns(["note"]).equals(whole)
    assert result["note"][0].as_py() == f'an "answer",\n{lines[0]},\n{lines[-1]},'
    (shop / "named.csv").write_text("\n".join([header + ",note", *noted]))
    no_header = {**source, "path": ["named.csv"], "header": None}
    with pytest.raises(InputError, match=r"named.csv: expected a row in the first line, .* Set `header: true`"):
        score_rows(config.model_copy(update={"source": config.source.model_validate(no_header)}), model=bundle)


def test_running_again_changes_nothing(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    first, second = score_rows(config, model=bundle), score_rows(config, model=bundle)
    assert (first["status"], second["status"]) == ("published", "already published")
    assert first["digest"] == second["digest"]


def test_unreadable_rows_go_to_quarantine(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    with (shop / "log.csv").open("a") as file:
        file.write("u001,old,i001,a,p,2026-01-01T00:00:00,1,0\nbroken\n")
    with pytest.raises(
        RefusedError,
        match=r"source: expected at most 0.1000% unreadable rows, found 2 of 402 \(0.4975%\): bad_number of age: "
        r"1 row, such as 'old' at .*/log.csv line 402; "
        r"column_count: 1 row, such as 'broken' at .*/log.csv line 403\. Mend",
    ):
        score_rows(config, model=bundle)
    assert not list((shop / "work" / "scores" / "rows").iterdir())
    tolerant = config.model_copy(update={"snapshot": config.snapshot.model_copy(update={"max_bad_fraction": 0.01})})
    result = score_rows(tolerant, model=bundle)
    assert (result["rows"], sum(result["quarantined"].values())) == (400, 2)
    assert [(part["field"], part["samples"][0]["value"]) for part in result["quarantine"]] == [
        ("age", "old"),
        ("", "broken"),
    ]
    assert len(result["moments"]) == 2 * (tolerant.time is not None)
    raw = pq.read_table(Path(result["dir"]) / "_quarantine.parquet")["raw"].to_pylist()
    assert sorted(raw) == [b"broken", b"u001,old,i001,a,p,2026-01-01T00:00:00,1,0"]


def test_shares_of_unseen_values_are_told_and_limited(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    header, *lines = (shop / "log.csv").read_text().splitlines()
    fields = score_rows(config, model=bundle)["fields"]
    assert fields["user"] == {"values": 400, "missing": 0.0, "unseen": None}  # a table of noise: no bucket is untouched
    assert fields["item"]["values"] == 400
    assert 0 < fields["item"]["unseen"] < 0.5
    other = [line.replace(",i0", ",") for line in lines]
    (shop / "new.csv").write_text("\n".join([header, *other]) + "\n")
    with pytest.raises(RefusedError, match=r"source: expected values of field 'item' that training has seen, such as "
                       r"'i\d+', 'i\d+', found 100.0% unseen, such as '\d+'"):  # fmt: skip
        score_rows(config, model=bundle, inputs=["new.csv"])


def test_mistakes_are_named(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    header, *lines = (shop / "log.csv").read_text().splitlines()
    (shop / "empty.csv").write_text(header + "\n")
    with pytest.raises(InputError, match="source: expected rows to score, found none"):
        score_rows(config, model=bundle, inputs=["empty.csv"])
    (shop / "twice.csv").write_text(header.replace("click", "probability") + "\n" + lines[0] + "\n")
    with pytest.raises(ConfigError, match="no column called 'probability'"):
        score_rows(config, model=bundle, inputs=["twice.csv"])
    with pytest.raises(InputError, match=r"expected (a )?column 'colour'"):
        score_rows(config, model=bundle, columns=["colour"])
    with pytest.raises(InputError, match=r"expected at least one file"):
        score_rows(config, model=bundle, inputs=["nowhere.csv"])


def test_the_registered_model_gives_the_same_in_pandas_and_as_a_spark_udf(shop: Path, spark: SparkSession) -> None:
    config = shop_config(shop)
    bundle, tracking = write_bundle(shop, config), registry(config)
    frame = read(shop / "log.csv").drop_columns(["click"]).to_pandas()
    with runs.run("shop", "ffm", config.workspace_dir) as run:
        tracking.register(run.bundle(bundle, frame.head()))
    expected = published(score_rows(config))["probability"].to_numpy()  # by the champion
    champion = f"models:/{config.model_name}@champion"
    model = mlflow.pyfunc.load_model(champion)
    np.testing.assert_array_equal(model.predict(frame), expected)
    np.testing.assert_array_equal(model.predict(pd.concat([frame[:3], frame[3:]])), expected)  # pandas 3: two chunks
    typed = frame.assign(
        age=pd.to_numeric(frame["age"]), position=pd.to_numeric(frame["position"]).astype("Int64"),
        when=pd.to_datetime(frame["when"]), item=frame["item"].astype("category"),
        category=[None if n % 9 == 0 else value for n, value in enumerate(frame["category"])],
    )  # fmt: skip
    frame.loc[frame.index % 9 == 0, "category"] = None
    np.testing.assert_array_equal(model.predict(typed), model.predict(frame))
    frame = read(shop / "log.csv").drop_columns(["click"]).to_pandas()
    probability = mlflow.pyfunc.spark_udf(spark, champion, result_type="double", env_manager="local")
    rows = spark.createDataFrame(frame.assign(row=range(len(frame)))).repartition(2)
    scored = rows.withColumn("p", probability(*frame.columns)).orderBy("row").toPandas()
    np.testing.assert_array_equal(scored["p"], expected)
