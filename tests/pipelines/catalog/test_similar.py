"""Published neighbours equal those of every pair of exported vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow.parquet as pq
import pytest

from fieldwise.features.errors import ConfigError
from fieldwise.jobs.cli import main
from fieldwise.pipelines.catalog import similar as room
from fieldwise.pipelines.catalog.export_factors import export_factors
from fieldwise.pipelines.catalog.similar import similar
from tests.pipelines.catalogs import DAY, published
from tests.pipelines.shop import shop_config, write_bundle


@pytest.mark.parametrize(("side", "kind", "by"), [("items", "ffm", "cosine"), ("contexts", "fm", "inner")])
def test_equals_every_pair(
    shop: Path,
    side: Literal["items", "contexts"],
    kind: str,
    by: Literal["cosine", "inner"],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(room, "ROWS_PER_FILE", 16)
    config = shop_config(shop, kind)
    bundle = write_bundle(shop, config)
    exported = pq.read_table(Path(export_factors(config, model=bundle, date=DAY)["dir"]) / f"{side}.parquet")
    exported = exported.sort_by("id")
    ids, vectors = exported["id"].to_pylist(), np.array(exported["vector"].to_pylist(), np.float64)
    similarity = (vectors[:, None] * vectors).sum(2)
    if by == "cosine":
        norms = np.sqrt((vectors**2).sum(1))
        similarity /= norms[:, None] * norms
    similarity = similarity.astype(np.float32)
    expected = []
    for at, row in enumerate(similarity):
        best = [other for other in np.argsort(-row, kind="stable") if other != at][:5]
        expected += [(ids[at], rank, ids[other], row[other]) for rank, other in enumerate(best, 1)]
    command = [f"similar-{side}", "--config", config.file, "--model", bundle, "--date", DAY, "--k", "5", "--by", by]
    assert main(command) == 0
    result = json.loads(capsys.readouterr().out)
    rows = published(result).to_pylist()
    assert [(row["id"], row["rank"], row["similar_id"], row["similarity"]) for row in rows] == expected
    assert (result["status"], result["files"], result["rows"]) == ("published", -(-len(ids) // 16), 5 * len(ids))
    assert similar(config, side, model=bundle, date=DAY, k=5, by=by)["status"] == "already published"


def test_models_without_vectors(shop: Path) -> None:
    config = shop_config(shop, "lr")
    with pytest.raises(ConfigError, match=r"items and contexts have vectors, found model\.kind lr"):
        similar(config, "items", model=write_bundle(shop, config), date=DAY)
