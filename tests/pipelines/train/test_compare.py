"""Models side by side: the metrics of ``evaluate``, paired differences, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldwise.features.errors import ArtifactError, ConfigError
from fieldwise.jobs.cli import main
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.compare import compare_models, measure
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.pipelines.train.family import choose
from fieldwise.pipelines.train.train import open_days, train_model
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import Bundle, load_bundle, save_bundle
from fieldwise.training.network.network import Network
from tests.snapshots import PLANTED, hash_spec, planted_logit, write_snapshot

ROWS = 4000
CONFIG = PLANTED + "evaluation: {slices: [f0]}\ntraining: {batch_size: 256, epochs: 1, threads: 1, auto: false}\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Linear models beside a snapshot: the truth's linear part, nearly the same, and one that is turned round."""
    folder, spec = tmp_path_factory.mktemp("compare"), hash_spec((10, 10))
    write_snapshot(folder / "work/planted/snapshots/all", spec, {"train": [900], "valid": [300], "test": [ROWS]})
    (folder / "planted.yaml").write_text(CONFIG)
    network = Network(spec, settings_of("lr"))
    draw = np.random.default_rng(7)
    truth = draw.normal(0, 0.5, (2, max(field.size for field in spec.fields)))  # as `planted_logit` draws it
    rows = np.zeros(tuple(network.table.weight.shape), np.float32)
    for field, weights in zip(spec.fields, truth, strict=True):
        rows[field.offset : field.offset + field.size, 0] = weights[: field.size]
    near = rows + np.random.default_rng(2).normal(0, 0.02, rows.shape).astype(np.float32)
    for name, weight in {"good": rows, "near": near, "bad": -rows}.items():
        save_bundle(folder / name, Bundle(network.settings, spec, weight, network.dense(), 0.0))
    return folder


def test_models_side_by_side(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(place / "planted.yaml")
    names = ["good", "near", "bad"]
    found = compare_models(config, [str(place / name) for name in names])
    said = capsys.readouterr().err.splitlines()
    assert (found["role"], found["rows"]) == ("test", ROWS)
    for name, shown in zip(names, found["models"], strict=True):
        alone = evaluate_model(config, model=str(place / name))
        assert shown["metrics"] == alone["metrics"], "the same figures as evaluate's"
        assert shown["digest"] == alone["model"]
        assert shown["model"] == f"lr {alone['model'][:8]}"
        metrics = shown["metrics"]
        (line,) = (line for line in said if line.startswith(shown["model"]) and line.count("+-") == 4)
        assert f"{metrics['logloss']:.5f} +- {metrics['logloss_se']:.5f}  {metrics['auc']:.5f} +- " in line
    pairs = {(each["of"], each["less"]): each for each in found["differences"]}
    good, near, bad = (shown["model"] for shown in found["models"])
    assert list(pairs) == [(good, near), (good, bad), (near, bad)]
    of = {shown["model"]: shown["metrics"] for shown in found["models"]}
    for (one, other), each in pairs.items():
        for metric in ("logloss", "normalized_entropy", "calibration"):
            gap = each[metric]
            assert gap["difference"] == pytest.approx(of[one][metric] - of[other][metric], abs=1e-5)
            assert gap["low"] < gap["difference"] < gap["high"]
        assert each["auc"]["difference"] == pytest.approx(of[one]["auc"] - of[other]["auc"], abs=1e-3)
    assert pairs[good, bad]["logloss"]["high"] < 0
    assert pairs[good, bad]["auc"]["low"] > 0
    assert pairs[good, bad]["logloss"]["significant"]
    assert not pairs[good, near]["logloss"]["significant"]
    by_chance = {line.split("  ")[0] for line in said if line.endswith("  may be chance")}
    assert by_chance == {f"{good} - {near}"}


def test_the_simplest_of_a_family_is_chosen_on_ties(place: Path) -> None:
    config = load_config(place / "planted.yaml")
    split = open_days(config, Days()).test
    good, near, bad = (load_bundle(place / name) for name in ("good", "near", "bad"))
    assert choose(measure({"lr": near, "poly2": good, "fm": bad}, split, config)) == "lr"
    assert choose(measure({"lr": good, "poly2": near}, split, config)) == "lr"
    assert choose(measure({"lr": bad, "poly2": near, "fm": good}, split, config)) == "poly2"
    assert choose(measure({"lr": bad, "fm": good}, split, config)) == "fm"


def test_the_interval_is_that_of_paired_rows(place: Path) -> None:
    """Beside the plain formula of a mean of row differences."""
    config = load_config(place / "planted.yaml")
    found = compare_models(config, [str(place / name) for name in ("good", "bad")])
    spec = hash_spec((10, 10))
    rng = np.random.default_rng(0)  # the snapshot's own draws
    from tests.snapshots import random_slots

    logit = planted_logit(spec)
    for rows in (900, 300, ROWS):
        slots = random_slots(spec, rows, rng)
        label = (rng.random(rows) < 1 / (1 + np.exp(-logit(slots)))).astype(float)
    weights = np.random.default_rng(7).normal(0, 0.5, (2, 13)).astype(np.float32)
    z = weights[np.arange(2), slots].sum(1)
    loss = np.logaddexp(0, z) - label * z - (np.logaddexp(0, -z) + label * z)
    gap = found["differences"][0]["logloss"]
    assert gap["difference"] == pytest.approx(loss.mean(), abs=1e-5)
    half = 1.96 * loss.std() / np.sqrt(ROWS)
    assert (gap["high"] - gap["low"]) / 2 == pytest.approx(half, rel=0.15)


def test_registered_models_are_named_by_version(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = str(place / "planted.yaml")
    trained = train_model(load_config(file))
    assert trained is not None
    capsys.readouterr()
    references = ["models:/planted@champion", str(place / "bad")]
    assert main(["compare", *references, "--config", file, "--role", "valid"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = found["models"]
    assert (first["model"], first["version"], first["reference"]) == ("lr v1", "1", references[0])
    assert (second["version"], second["reference"]) == (None, references[1])
    assert found["rows"] == 300


def refused(place: Path, *names: str, **how: Any) -> dict[str, Any]:
    return compare_models(load_config(place / "planted.yaml"), [str(place / name) for name in names], **how)


def test_what_cannot_be_compared(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"MODEL: expected at least two models, found 1\. .*planted@champion"):
        refused(place, "good")
    with pytest.raises(ConfigError, match=r"MODEL: expected models that differ, found .*good and .*good, both bundle"):
        refused(place, "good", "bad", "good")
    other = hash_spec((10, 12))
    network = Network(other, settings_of("lr"))
    weight = np.zeros(tuple(network.table.weight.shape), np.float32)
    save_bundle(place / "other", Bundle(network.settings, other, weight, network.dense(), 0.0))
    with pytest.raises(ArtifactError, match=rf"expected feature spec {other.digest[:12]} of .*other, found spec"):
        refused(place, "good", "other")
    with pytest.raises(ConfigError, match=r"evaluation\.group: expected fields of the model"):
        load_config(place / "planted.yaml", ["evaluation.group=user"])


def test_a_group_that_is_no_field_is_told_to_count_for_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(place / "planted.yaml")
    beside = load_config(place / "planted.yaml", ["beside=[session]", "evaluation.group=session"])
    models, test = {name: load_bundle(str(place / name)) for name in ("good", "bad")}, open_days(config, Days()).test
    found = measure(models, test, beside)
    assert "warning: evaluation.group 'session' is no field" in capsys.readouterr().err
    assert found.difference("good", "bad") == measure(models, test, config).difference("good", "bad")
