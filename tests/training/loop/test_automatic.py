"""Settings that the data chooses: better than priors that do not fit, the same every time, and bounded."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldwise.features.interrupt import Interrupted
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop import automatic as module
from fieldwise.training.loop.automatic import automatic, hope
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.models.defaults import Chosen
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.ranks.world import World
from tests.snapshots import hash_spec, write_snapshot
from tests.training.ranks import run_ranks

SPEC = hash_spec((40, 30))
CONFIG = TrainingConfig(batch_size=256, threads=1)


def strong(slots: np.ndarray) -> np.ndarray:
    """Pairs that decide nearly alone: a prior made for weak ones is too strong, its steps too short."""
    rng = np.random.default_rng(3)
    left, right = rng.normal(0, 2.5, (2, 50, 2))
    return np.asarray((left[slots[:, 0]] * right[slots[:, 1]]).sum(1))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    files = {"train": [3000, 3000], "valid": [1500], "test": [1500]}
    return write_snapshot(tmp_path_factory.mktemp("data") / "snapshot", SPEC, files, logit=strong)


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of some trials."""
    monkeypatch.setattr(module, "NUMBERS", 8e7)


def run_of(snapshot: Snapshot, where: Path, model: dict[str, Any] | None = None, **training: Any) -> TrainRun:
    config = TrainingConfig(**CONFIG.model_dump(exclude_unset=True) | training)
    return TrainRun(
        TrainData.of_one(snapshot), ModelConfig(kind="fm", **model or {}), config, str(where / "bundle"),
        str(where / "checkpoints"),
    )  # fmt: skip


def test_chosen_settings_beat_priors_that_do_not_fit(
    snapshot: Snapshot, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = automatic(run_of(snapshot, tmp_path, {"dim": 4}), World())
    told = capfd.readouterr().err.splitlines()
    chosen = run.chosen
    assert chosen is not None
    assert chosen.prior_valid is not None
    assert chosen.valid < 0.97 * chosen.prior_valid
    assert told[0].startswith("settings: choosing learning_rate and l2 by trainings on all 6,000 rows, at most 1")
    assert len(told) == 2 + chosen.trials
    assert told[-1] == f"settings: learning_rate {chosen.learning_rate:g}, l2 {chosen.l2:.3g}, dim 4: chosen"
    assert any(line.endswith(", lowest") for line in told)
    assert (run.training.learning_rate, run.training.l2) == (chosen.learning_rate, chosen.l2)
    automatic_one, fixed = (
        train(replace(each, checkpoint_dir=None), World()).evaluations["test"].values["logloss"]
        for each in (run, run_of(snapshot, tmp_path / "fixed", {"dim": 4}))
    )
    assert automatic_one < 0.98 * fixed
    assert load_bundle(tmp_path / "bundle").chosen == chosen


@pytest.mark.parametrize(
    "name", ["l2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("learning_rate", "dim"))]
)
def test_a_key_that_is_given_is_kept(snapshot: Snapshot, tmp_path: Path, name: str) -> None:
    given: dict[str, Any] = {"learning_rate": 0.2, "l2": 1e-4, "dim": 3}
    model = {"dim": given["dim"]} if name == "dim" else {}
    run = run_of(snapshot, tmp_path, model, **({} if name == "dim" else {name: given[name]}))
    found = automatic(run, World())
    assert found.chosen is not None
    assert {**found.training.model_dump(), "dim": found.model.dim}[name] == given[name]
    tried = {trial["point"][name] for trial in trials(tmp_path)}
    assert tried == {given[name] if name == "dim" else 1.0}, "nor is it tried otherwise"


def trials(where: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((where / "checkpoints" / "settings.json").read_text())["trials"]
    return found


def test_fixed_priors_and_settings_that_leave_nothing_open_are_left_alone(snapshot: Snapshot, tmp_path: Path) -> None:
    fixed = run_of(snapshot, tmp_path, auto=False)
    assert automatic(fixed, World()) is fixed
    full = run_of(snapshot, tmp_path, {"dim": 4}, learning_rate=0.1, l2=1e-4, epochs=3)
    assert automatic(full, World()) is full


def test_too_few_rows_to_choose_by_keep_the_priors(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    few = write_snapshot(tmp_path / "few", SPEC, {"train": [3000], "valid": [150], "test": [150]}, logit=strong)
    run = automatic(run_of(few, tmp_path), World())
    assert run.chosen is None
    assert (run.training.learning_rate, run.training.l2, run.model.dim) == (None, None, None)
    assert "are too few to choose learning_rate, dim and l2 by" in capfd.readouterr().err


class Killed:
    """A tracker during whose n-th report the process is ended."""

    def __init__(self, at: int) -> None:
        self.at = at

    def params(self, values: Any) -> None: ...

    def metrics(self, values: Any, step: int | None = None) -> None:
        if step == self.at:
            raise Interrupted(15)


def test_a_killed_search_goes_on_and_ends_alike(snapshot: Snapshot, tmp_path: Path) -> None:
    whole = automatic(run_of(snapshot, tmp_path / "whole", {"dim": 4}), World())
    run = run_of(snapshot, tmp_path / "killed", {"dim": 4})
    with pytest.raises(Interrupted):
        automatic(replace(run, tracker=Killed(3)), World())
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole")[:3]
    resumed = automatic(run, World())
    assert resumed.chosen == whole.chosen
    assert trials(tmp_path / "killed") == trials(tmp_path / "whole")
    one, other = (train(each, World()).bundle_digest for each in (whole, resumed))
    assert one == other


def test_trials_that_are_known_are_not_trained_again(
    snapshot: Snapshot, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = run_of(snapshot, tmp_path, {"dim": 4})
    with pytest.raises(Interrupted):
        automatic(replace(run, tracker=Killed(2)), World())
    kept = module.Kept(run)
    first, second = kept.read()
    kept.write([first, replace(second, losses=(0.001,))])  # a loss that no training gives
    found = automatic(run, World())
    assert found.chosen is not None
    assert found.chosen.valid == 0.001

    (tmp_path / "checkpoints" / "settings.json").write_text("{")
    again = automatic(run, World()).chosen
    assert again is not None
    assert again.valid > 0.1
    assert "trials passed over" in capfd.readouterr().err
    other = run_of(snapshot, tmp_path, {"dim": 4}, seed=43)
    assert module.Kept(other).read() == [], "of another training"


def test_without_validation_rows_a_tenth_of_the_others_is_held_out(tmp_path: Path) -> None:
    bare = write_snapshot(tmp_path / "bare", SPEC, {"train": [3000, 3000], "test": [1000]}, logit=strong)
    run = automatic(run_of(bare, tmp_path, {"dim": 4}, patience=None), World())
    assert run.chosen is not None
    assert run.data.train.rows == 6000, "the training itself has all rows"
    assert run.training.epochs == run.chosen.epochs < TrainingConfig().epochs
    assert trials(tmp_path)[0]["rows"] % (5400 + 300) == 0


def test_the_budget_ends_a_search(snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUMBERS", 0)
    monkeypatch.setattr(module, "PASSES", 1)
    run = automatic(run_of(snapshot, tmp_path, {"dim": 4}), World())
    assert run.chosen is not None
    assert run.chosen.trials == 2, "the priors and a faster rate"


def test_large_data_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_ROWS", 1000)
    monkeypatch.setattr(module, "LEAST_POSITIVES", 100)
    large = write_snapshot(tmp_path / "large", SPEC, {"train": [1000] * 20, "valid": [2500]}, logit=strong)
    data = module.sampled(TrainData.of_one(large), 2000)
    assert 1990 <= data.train.rows <= 2020
    assert len(data.train.files) == 10
    assert 995 <= data.valid.rows <= 1005
    assert abs(data.train.positives / data.train.rows - 0.5) < 0.1
    run = run_of(load_snapshot(large.dir), tmp_path, {"dim": 4})
    search = module.Search(run, run.data, World())
    search.data = data
    _, small = search.settings(module.Point(), data)
    _, whole = search.settings(module.Point(), run.data)
    assert small.l2 is not None
    assert whole.l2 is not None
    assert small.l2 * data.train.rows == pytest.approx(whole.l2 * 20_000), "the same prior"


def test_a_model_that_goes_on_keeps_what_was_chosen(snapshot: Snapshot, tmp_path: Path) -> None:
    chosen = Chosen(
        optimizer="adagrad", learning_rate=0.2, l2=1e-3, dim=5, rows=6000, epochs=4, trials=9, valid=0.3,
        prior_valid=0.4,
    )  # fmt: skip
    first = run_of(snapshot, tmp_path / "first", {"dim": 5}, epochs=1, auto=False)
    train(replace(first, chosen=chosen), World())
    run = run_of(snapshot, tmp_path / "second", epochs=1)
    run = automatic(replace(run, warm_start=load_bundle(first.bundle_dir)), World())
    assert (run.model.dim, run.training.learning_rate, run.chosen) == (5, 0.2, chosen)
    assert run.line is not None
    assert run.training.l2 == pytest.approx(1e-3 * 6000 / run.line)
    train(run, World())
    assert load_bundle(tmp_path / "second" / "bundle").chosen == chosen, "and hands it on"


@pytest.mark.slow
def test_ranks_choose_alike(snapshot: Snapshot, tmp_path: Path) -> None:
    one, other = run_ranks(2, tmp_path, chosen_by_rank, snapshot.dir, tmp_path)
    assert one == other
    assert isinstance(one, dict)
    assert one["trials"] > 3


def chosen_by_rank(world: World, snapshot: str, where: Path) -> dict[str, Any]:
    module.NUMBERS = 8e7  # in a process of its own
    run = automatic(run_of(load_snapshot(snapshot), where, {"dim": 4}, batch_size=1024), world)
    assert run.chosen is not None
    return run.chosen.model_dump()


def test_hope() -> None:
    """Of losses 1, 0.8, 0.7: at most 0.1 an epoch, and about 0.1 (1/2 + 1/4 + ...), twice."""
    assert hope([1.0, 0.8, 0.7], 1) == pytest.approx(0.1)
    assert hope([1.0, 0.8, 0.7], 10) == pytest.approx(0.2)
    assert hope([1.0, 0.9, 0.7], 10) == pytest.approx(2.0), "falling ever faster"
    assert hope([1.0], 10) == math.inf
