"""The same slots wherever the encoder runs: plain Python, Spark's tasks, score-rows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.score_rows import score_rows
from fieldwise.training.data.batch import layout_of
from fieldwise.training.models import settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.network.bundle import Bundle, save_bundle
from fieldwise.training.scoring.scorer import Scorer
from tests.pipelines.every_kind import COLUMNS, FIELDS

pytestmark = pytest.mark.usefixtures("on_spark")

_TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6)
_NUMBER = st.one_of(
    st.just(""),
    st.integers(-(2**70), 2**70).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map("{:.17g}".format),
)
_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["0", "1"]), _TEXT, _TEXT, st.lists(_TEXT, max_size=5).map("|".join),
        _NUMBER, st.one_of(st.just(""), st.integers(0, 2**32).map(str)),
        st.sampled_from(["0", "1", "true", ""]), st.sampled_from(["1", ""]),
    ),
    min_size=60,
    max_size=200,
)  # fmt: skip


def write(place: Path, rows: list[tuple[str, ...]]) -> Config:
    with (place / "log.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    (place / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "same", "source": {"path": "log.csv", "columns": COLUMNS}, "label": "label", "fields": FIELDS,
                "split": {"by": "none"}, "model": {"kind": "lr"}, "snapshot": {"shuffle": "none"},
            }
        )
    )  # fmt: skip
    return load_config(place / "config.yaml")


@given(_ROWS)
@settings(max_examples=3, deadline=None, phases=[Phase.explicit, Phase.generate])  # an example takes seconds
def test_plain_python_spark_and_score_rows_give_the_same_slots(tmp_path_factory: Any, rows: list[Any]) -> None:
    place = tmp_path_factory.mktemp("same")
    rows = [*rows, *[("1", "a", "b", "c", "1", "0", "1", "1")] * 2]  # a value for every vocabulary
    config = write(place, rows)
    snapshot = load_snapshot(build_features(config)["dir"])
    raw = pa.table({name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)})
    plain = Encoder(snapshot.spec).encode(raw)
    assert not plain.problems
    tables = [pq.read_table(snapshot.path(entry)) for entry in snapshot.manifest.files]
    in_spark = np.column_stack([pa.concat_tables(tables)[name] for name in snapshot.manifest.slot_names])
    np.testing.assert_array_equal(in_spark, plain.slots)

    draw = np.random.default_rng(len(rows))  # with a weight of its own for every value, a sum tells the slots
    model = build_model(settings_of("lr", dim=1, pair_buckets=1), layout_of(snapshot.spec))
    weight = draw.standard_normal((model.rows, model.width)).astype(np.float32)
    dense = {n: draw.standard_normal(tuple(p.shape)).astype(np.float32) for n, p in model.named_parameters()}
    bundle = Bundle(model.settings, snapshot.spec, weight, dense, logit_shift=0.0)
    save_bundle(place / "bundle", bundle)
    scores = score_rows(config, model=str(place / "bundle"))
    parts = [pq.read_table(path) for path in sorted(Path(scores["dir"]).glob("part-*.parquet"))]
    probabilities = pa.concat_tables(parts)["probability"]
    np.testing.assert_array_equal(probabilities, Scorer(bundle).probabilities(np.ascontiguousarray(plain.slots)))
