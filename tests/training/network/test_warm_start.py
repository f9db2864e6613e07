"""A model moved to the next spec scores rows as it did: its rows are found again by value."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.fitting import fit_spec
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.training.models import MODELS, settings_of
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.network.network import Network
from tests.tallies import tally

LIST = {"separator": "|", "max_values": 3}
FIELDS = [
    {"name": "item", "kind": "vocabulary", "min_count": 1},
    {"name": "user", "kind": "hash", "buckets": 8},
    {"name": "tags", "kind": "vocabulary", "min_count": 1, **LIST},
]


def log(items: str, tags: list[str]) -> pa.Table:
    n = len(items)
    return pa.table({"item": list(items), "user": [f"u{i}" for i in range(n)], "tags": (tags * n)[:n]})


def fitted(rows: pa.Table) -> FeatureSpec:
    config = FeatureConfig.model_validate({"source": {"path": "x"}, "label": "y", "fields": FIELDS})
    return fit_spec(config.fields, tally(config.fields, rows))


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_scores_stay_when_the_spec_moves_on(kind: str) -> None:
    old, new = fitted(log("aaabbc", ["p|q", "q", "q|r"])), fitted(log("ccccdaab", ["r", "s|q", "p|s|q"]))
    pairs = 64 if MODELS[kind].paired else 0
    dim = 4 if MODELS[kind].latent else 0
    settings = settings_of(kind, dim=dim, pair_buckets=pairs)
    network = Network(old, settings)
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((network.table.rows, network.table.width)).astype(np.float32)
    if pairs:
        weight[old.rows :] = 0  # pairs are hashed by table row: they start anew
    dense = {name: draw.standard_normal(value.shape).astype(np.float32) for name, value in network.dense().items()}
    network.load(weight, dense)
    moved = Network(new, settings, seed=5)
    trained = weight.copy()
    trained[old.rows :] = 9.0
    moved.warm_start(Bundle(settings, old, trained if pairs else weight, dense, logit_shift=0.5), 0.2)
    rows = log("abcdxcba", ["p|r", "q|s", "", "s", "x|y", "r|q|p", "p"])
    logits = network.logits(Encoder(old).encode(rows).slots)
    assert moved.logits(Encoder(new).encode(rows).slots) == pytest.approx(logits + 0.3, abs=1e-5)


def test_pairs_stay_where_no_row_moved() -> None:
    once, twice = (fitted(log("aab" * n, ["p|q", "q"])) for n in (1, 2))
    assert once.digest != twice.digest  # by its counts alone
    network = Network(once, settings_of("poly2", pair_buckets=64))
    weight = np.random.default_rng(0).standard_normal((network.table.rows, 1)).astype(np.float32)
    network.load(weight, network.dense())
    moved = Network(twice, settings_of("poly2", pair_buckets=64))
    moved.warm_start(Bundle(settings_of("poly2", pair_buckets=64), once, weight, network.dense()), 0.0)
    assert (moved.table.weight.numpy() == weight).all()
