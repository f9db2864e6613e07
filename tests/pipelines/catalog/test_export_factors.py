"""Exported vectors in an exact inner-product index give the published lists."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fieldwise.features.errors import ConfigError
from fieldwise.jobs.cli import main
from fieldwise.pipelines.catalog.export_factors import export_factors
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from tests.pipelines.catalogs import DAY, published
from tests.pipelines.shop import shop_config, write_bundle, write_shop


@pytest.mark.parametrize("kind", ["lr", "fm", "ffm", "fwfm"])
def test_an_exact_index_gives_our_lists(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path, kind)
    bundle = write_bundle(tmp_path, config)
    command = ["export-factors", "--config", str(config.file), "--model", bundle, "--date", DAY]
    assert main(command) == 0
    exported = json.loads(capsys.readouterr().out)
    assert (exported["contexts"], exported["items"]) == (40, 60)
    folder = Path(exported["dir"])
    contexts, items = np.load(folder / "contexts.npy"), np.load(folder / "items.npy")
    assert contexts.dtype == items.dtype == np.float32
    ids, bias = (pq.read_table(folder / "contexts.parquet")[name].to_pylist() for name in ("id", "bias"))
    item_ids = pq.read_table(folder / "items.parquet")["id"].to_pylist()
    # what an exact inner-product index computes; not by a matrix product, which may round equal items apart
    scores = (contexts[:, None].astype(np.float64) * items).sum(axis=2)
    lists = {c: [item_ids[i] for i in np.argsort(-row, kind="stable")[:7]] for c, row in zip(ids, scores, strict=True)}
    rows = published(score_catalog(config, model=bundle, date=DAY)).to_pylist()
    found: dict[str, list[str]] = {c: [] for c in ids}
    for row in rows:
        found[row["context_id"]].append(row["item_id"])
        logit = (
            bias[ids.index(row["context_id"])] + scores[ids.index(row["context_id"]), item_ids.index(row["item_id"])]
        )
        assert row["probability"] == pytest.approx(1 / (1 + np.exp(0.5 - logit)), abs=1e-6)
    assert found == lists


def test_poly2_has_no_vectors(tmp_path: Path) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path, "poly2")
    with pytest.raises(ConfigError, match=r"expected a score that is an inner product .* found model.kind poly2"):
        export_factors(config, model=write_bundle(tmp_path, config), date=DAY)
