"""A calibrated model as its users meet it: the same order, other probabilities, wherever one leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fieldwise.features.fields.encoder import Encoder
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.score.explain import explain_rows
from fieldwise.pipelines.score.score_rows import score_rows
from fieldwise.training.network.bundle import load_bundle, save_bundle
from fieldwise.training.network.calibration import Isotonic, Platt
from fieldwise.training.scoring.scorer import Scorer
from tests.pipelines.catalogs import DAY, published, read
from tests.pipelines.shop import shop_config, write_bundle, write_shop

COARSE = Isotonic(logits=[-1.0, 0.0, 0.25, 1.5], calibrated=[-2.0, -1.0, -1.0, 0.5])
"""Constant below, between and above: many ties."""


@pytest.mark.parametrize("calibrator", [COARSE, Platt(slope=0.4, intercept=-0.7)])
def test_rows_lists_and_explanations(
    tmp_path: Path, calibrator: Isotonic | Platt, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shop(tmp_path)
    config = shop_config(tmp_path)
    plain = load_bundle(write_bundle(tmp_path, config))
    place = str(tmp_path / "calibrated")
    save_bundle(place, replace(plain, calibrator=calibrator))

    log = read(tmp_path / "log.csv")
    z = Scorer(plain).logits(Encoder(plain.spec).encode(log).slots).astype(np.float64) + plain.logit_shift
    wanted = 1 / (1 + np.exp(-calibrator(z)))
    found = published(score_rows(config, model=place))["probability"].to_numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    explained = explain_rows(config, model=place)["rows"][0]
    assert explained["calibration"] == calibrator.method
    assert explained["calibrated_logit"] == pytest.approx(calibrator(z[:1])[0])
    assert explained["probability"] == pytest.approx(wanted[0], rel=1e-6)
    assert f"by {calibrator.method} calibration, bias" in capsys.readouterr().err

    before, after = (
        published(score_catalog(config, model=model, date=DAY)).sort_by(
            [("context_id", "ascending"), ("rank", "ascending")]
        )
        for model in (str(tmp_path / "bundle"), place)
    )
    for column in ("context_id", "rank", "item_id"):
        assert after[column].equals(before[column]), "lists are sorted by the logit, ties of probabilities or not"
    context = after["context_id"].to_numpy(zero_copy_only=False)
    falls, own = (np.diff(each["probability"].to_numpy())[context[1:] == context[:-1]] for each in (after, before))
    assert (falls <= 0).all()
    assert (falls != own).any()
    assert ((falls == 0).sum() > (own == 0).sum()) == isinstance(calibrator, Isotonic)
