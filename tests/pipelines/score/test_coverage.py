"""Which values training has not seen, told by vocabularies and by rows of the table that training never touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.errors import ConfigError, RefusedError
from fieldwise.features.fields import fitting
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.fields.vocabulary import VocabularyField
from fieldwise.features.kernels.strings import FIRST
from fieldwise.features.report.drift import Distribution
from fieldwise.pipelines.build.drift import keep_expected
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.coverage import Coverage, Tally, require_known
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import Bundle
from tests.pipelines.shop import shop_config
from tests.tallies import tally

FIELDS = [
    HashField(name="user", kind="hash", buckets=1024),
    VocabularyField(name="item", kind="vocabulary", min_count=1, separator="|", max_values=3),
]
LOG = {"user": [f"{n:05d}" for n in range(300)], "item": [f"i{n % 9}" for n in range(300)]}


def _spec() -> FeatureSpec:
    return fitting.fit_spec(FIELDS, tally(FIELDS, pa.RecordBatch.from_pydict(LOG)))


def _bundle(spec: FeatureSpec, width: int = 3, l1_rows: int = 0) -> Bundle:
    """As training leaves a table: rows that occurred have a linear weight, the others only their latent start."""
    weight = np.full((spec.rows, width), 0.5, np.float32)
    weight[:, 0] = 0
    slots = Encoder(spec).encode(pa.RecordBatch.from_pydict(LOG)).slots
    for field in spec.fields:
        weight[field.offset + slots[:, field.first_slot], 0] = 1
    weight[:l1_rows] = 0
    settings = settings_of("fm", dim=width - 1) if width > 1 else settings_of("lr")
    return Bundle(settings, spec, weight, {"bias": np.zeros(1, np.float32)})


def _shares(spec: FeatureSpec, coverage: Coverage, rows: dict[str, list[Any]]) -> dict[str, Any]:
    batch = pa.RecordBatch.from_pydict({name: pa.array(values, pa.string()) for name, values in rows.items()})
    tally = Tally(spec, coverage)
    tally.add(Encoder(spec).encode(batch).slots, batch)
    heard = Tally(spec, coverage)
    heard.merge(tally.report())
    return heard.shares({"user", "item"})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return shop_config(tmp_path)


def test_shares(config: Config) -> None:
    spec = _spec()
    rows = {"user": ["00007", "00008", None, "7"], "item": ["i1|new|i2", "", "i3", "i4|i5"]}
    found = _shares(spec, Coverage.of(_bundle(spec), config), rows)
    assert found["item"] == {"values": 7, "missing": 1 / 7, "unseen": 1 / 7, "example": "'i1|new|i2'"}
    filled = len(np.unique(Encoder(spec).encode(pa.RecordBatch.from_pydict(LOG)).slots[:, 0])) / 1024
    assert (found["user"]["missing"], found["user"]["example"]) == (0.25, "'7'")
    assert found["user"]["unseen"] == pytest.approx(0.25 / (1 - filled))


def test_new_values_of_a_hashed_field_are_estimated(config: Config) -> None:
    """A quarter of 1,024 buckets is taken, so a quarter of the new users land in touched ones."""
    spec = _spec()
    half = [f"{n:05d}" for n in range(300)] + [str(n) for n in range(300)]
    found = _shares(spec, Coverage.of(_bundle(spec), config), {"user": half, "item": ["i1"] * 600})
    assert found["user"]["unseen"] == pytest.approx(0.5, abs=0.05)


def test_what_cannot_be_told_is_not_told(config: Config) -> None:
    spec = _spec()
    rows = {"user": ["7"], "item": ["i1"]}
    full = _bundle(spec)
    full.weight[:, 0] = 1
    assert _shares(spec, Coverage.of(full, config), rows)["user"]["unseen"] is None
    never = _bundle(spec)
    never.weight[:, 0] = 0
    assert _shares(spec, Coverage.of(never, config), rows)["user"]["unseen"] is None
    sparse = config.model_copy(update={"training": config.training.model_copy(update={"l1": 0.1})})
    assert _shares(spec, Coverage.of(_bundle(spec, width=1), sparse), rows)["user"]["unseen"] is None
    assert _shares(spec, Coverage.of(_bundle(spec, width=1), config), rows)["user"]["unseen"] == 1
    zeroed = Coverage.of(_bundle(spec, l1_rows=FIRST + 900), sparse)  # rows that l1 made 0 were touched
    assert "user" not in zeroed.touched


def _refused(config: Config, spec: FeatureSpec, user: float | None, missing: float = 0.0, example: str = "'7'") -> bool:
    shares = {"user": {"values": 40, "missing": missing, "unseen": user, "example": example}}
    try:
        require_known(config, spec, "catalog.contexts", shares)
    except RefusedError:
        return True
    return False


def test_nearly_all_unseen_is_refused(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    spec = _spec()
    assert not _refused(config, spec, 0.9)
    assert "catalog.contexts: user 90.0% unseen" in capsys.readouterr().err
    assert _refused(config, spec, 0.91)
    assert _refused(config, spec, 0.5, missing=0.5)  # all that is there
    assert not _refused(config, spec, 0.0, missing=1.0)
    assert not _refused(config, spec, None)
    item = {"item": {"values": 5, "missing": 0.0, "unseen": 1.0, "example": "'1'"}}
    with pytest.raises(
        RefusedError,
        match=r"catalog.items: expected values of field 'item' that training has seen, such as 'i0', 'i1', "
        r"found 100.0% unseen, such as '1'. Write them as the training's log does .*scoring.new_values",
    ):
        require_known(config, spec, "catalog.items", item)


@pytest.mark.parametrize("more", [{"max_unseen": 1}, {"new_values": ["user"]}])
def test_new_values_may_be_meant(config: Config, more: dict[str, Any]) -> None:
    allowed = config.model_copy(update={"scoring": config.scoring.model_copy(update=more)})
    assert not _refused(allowed, _spec(), 1.0)


def test_what_was_rare_in_training_may_be_unseen(config: Config) -> None:
    """Half of the users were rare, so a twentieth that is known is the least."""
    spec = _spec()
    keep_expected(config, Distribution(spec_digest=spec.digest, label=[1, 1], fields={"user": [7, 50, 25, 25]}))
    assert not _refused(config, spec, 0.95)
    assert _refused(config, spec, 0.96)


def test_new_values_name_fields(tmp_path: Path) -> None:
    config = shop_config(tmp_path)
    text = Path(config.file).read_text() + "scoring: {new_values: [usr]}\n"
    Path(config.file).write_text(text)
    with pytest.raises(ConfigError, match=r"scoring.new_values: expected fields of the model: user, age.* found usr"):
        load_config(config.file)
