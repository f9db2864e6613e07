"""Exported vectors in an exact inner-product index give the published lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from features.errors import ConfigError
from pipelines.export_factors import export_factors
from pipelines.score_catalog import score_catalog
from tests.pipelines.shop import shop_config, write_bundle, write_shop
from tests.pipelines.test_score_catalog import DAY, published


@pytest.mark.parametrize("kind", ["lr", "ffm"])
def test_an_exact_index_gives_our_lists(tmp_path: Path, spark: SparkSession, kind: str) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path, kind)
    bundle = write_bundle(tmp_path, config)
    folder = Path(export_factors(config, model=bundle, date=DAY)["dir"])
    contexts, items = np.load(folder / "contexts.npy"), np.load(folder / "items.npy")
    ids, bias = (pq.read_table(folder / "contexts.parquet")[name].to_pylist() for name in ("id", "bias"))
    item_ids = pq.read_table(folder / "items.parquet")["id"].to_pylist()
    logits = np.array(bias)[:, None] + contexts.astype(np.float64) @ items.T.astype(np.float64) - 0.5
    lists = published(score_catalog(config, model=bundle, date=DAY)).to_pylist()
    for row in lists:
        scores = logits[ids.index(row["context_id"])]
        of_rank = np.sort(scores)[::-1][row["rank"] - 1]
        assert scores[item_ids.index(row["item_id"])] == pytest.approx(of_rank, abs=1e-5)
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(-of_rank)), abs=1e-6)


def test_poly2_has_no_vectors(tmp_path: Path) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path, "poly2")
    with pytest.raises(ConfigError, match=r"expected a score that is an inner product .* found model.kind poly2"):
        export_factors(config, model=write_bundle(tmp_path, config), date=DAY)
