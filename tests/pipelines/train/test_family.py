"""``model.kind: auto``: the family is trained, and the simplest that nothing beats becomes a version."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.errors import ConfigError, DivergedError, InputError
from fieldwise.features.interrupt import Interrupted
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.train import family as module
from fieldwise.pipelines.train import train as training
from fieldwise.pipelines.train.family import train_best
from fieldwise.pipelines.train.sweep import sweep
from fieldwise.pipelines.train.train import open_days
from fieldwise.training.models import FAMILY, MODELS, resolved
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.tracking.journal import Journal
from tests.snapshots import PLANTED, hash_spec, write_snapshot

CONFIG = (
    PLANTED.replace("kind: lr", "kind: auto")
    + "training: {batch_size: 256, epochs: 4, threads: 1, auto: false, learning_rate: 0.1, calibration: platt}\n"
)
SPEC = hash_spec((10, 10))
DIM = "model.dim=2"
ROWS = {"train": [6000], "valid": [2000], "test": [1000]}


@pytest.fixture(autouse=True, scope="module")
def _own_store() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield


def config_of(folder: Path, *overrides: str, rows: dict[str, list[int]] | None = None) -> Config:
    """A pipeline whose snapshot is published already; pairs decide."""
    folder.mkdir(exist_ok=True)
    (folder / "planted.yaml").write_text(CONFIG)
    write_snapshot(folder / "work/planted/snapshots/all", SPEC, rows or ROWS)
    return load_config(folder / "planted.yaml", list(overrides))


@dataclass(frozen=True)
class Whole:
    """A family that nothing disturbs."""

    config: Config
    done: dict[str, Any]
    said: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    config = config_of(tmp_path_factory.mktemp("whole") / "a", DIM)
    with redirect_stderr(io.StringIO()) as said:
        done = train_best(config)
    assert done is not None
    return Whole(config, done, said.getvalue())


def runs_of(config: Config) -> dict[str, Any]:
    client = MlflowClient(f"sqlite:///{config.workspace_dir}/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'planted'")
    return {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}


def bytes_of(bundle: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(bundle).iterdir())}


def test_the_family_is_quick_to_train() -> None:
    assert all(MODELS[kind].score for kind in FAMILY)


def test_the_chosen_model_is_a_version_and_the_others_are_runs(whole: Whole) -> None:
    done, runs = whole.done, runs_of(whole.config)
    models = {each["kind"]: each for each in done["family"]["models"]}
    assert list(models) == list(FAMILY)
    assert done["family"]["chosen"] == done["kind"] != "lr", "pairs decide"
    chosen = models[done["kind"]]
    assert chosen["difference"] == 0.0
    assert chosen["bundle_digest"] == done["bundle_digest"]
    own = done["metrics"]["valid"]["logloss"]
    assert chosen["valid"]["logloss"] == pytest.approx(own, rel=1e-9), "before calibration, which was fitted there"
    assert models["lr"]["low"] > 0
    assert models["lr"]["significant"]
    assert done["registered"]["version"] == "1"
    assert {each["run"] for each in models.values()} == set(runs), "one each"
    names = sorted(run.info.run_name for run in runs.values())
    assert [name.split()[-1] for name in names] == sorted(FAMILY)
    assert len({name.rpartition(" ")[0] for name in names}) == 1, "of one family"
    tags = {run.data.tags.get("fieldwise.family") for run in runs.values()}
    assert runs[done["run"]].data.tags["fieldwise.family"] == "chosen of lr, poly2, fm, ffm"
    assert tags == {None, "chosen of lr, poly2, fm, ffm"}


def test_its_bundle_tells_what_it_was_chosen_against(whole: Whole) -> None:
    opened = open_model(None, whole.config)
    assert opened.bundle.settings.dim == (0 if opened.bundle.kind == "poly2" else 2)
    told = whole.done["family"]
    for place in (opened.directory, whole.done["bundle"]):
        record = json.loads(Path(place, "family.json").read_text())
        assert record["chosen"] == opened.bundle.kind
        assert [each["kind"] for each in record["models"]] == list(FAMILY)
        assert set(told["models"][0]) - set(record["models"][0]) == {"run", "bundle", "seconds"}, "of this run alone"


def test_the_table(whole: Whole) -> None:
    table = [line for line in whole.said.splitlines() if line.startswith((*FAMILY,)) and line.count("+-") == 2]
    assert [line.split()[0] for line in table] == list(FAMILY)
    assert [line.split()[0] for line in table if "chosen" in line] == [whole.done["kind"]]
    lr = whole.done["family"]["models"][0]
    valid = lr["valid"]
    assert table[0].startswith(f"lr     {valid['logloss']:.5f} +- {valid['logloss_se']:.5f}  {valid['auc']:.5f} +- ")
    assert f"  {lr['difference']:+.5f} ({lr['low']:+.5f} to {lr['high']:+.5f})  " in table[0]
    assert table[0].endswith(f" {lr['seconds']:.1f}")


def killed(*_: Any, **__: Any) -> Any:
    raise Interrupted(15)


def test_killed_anywhere_it_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Whole
) -> None:
    config, train = config_of(tmp_path / "a", DIM), training.train_model

    def killed_at_ffm(config: Config, *rest: Any, **how: Any) -> Any:
        return killed() if config.model.kind == "ffm" else train(config, *rest, **how)

    places = [(training, "train", killed, 1), (training, "train_model", killed_at_ffm, 3),
              (module, "measure", killed, 4), (Journal, "register", killed, 4)]  # fmt: skip
    for owner, target, instead, runs in places:
        with monkeypatch.context() as patch:
            patch.setattr(owner, target, instead)
            with pytest.raises(Interrupted):
                train_best(config)
        assert len(runs_of(config)) == runs, "none is trained twice"
        assert list(Path(config.workspace_dir, "training").glob("auto-*.json"))
    done = train_best(config)
    assert done is not None
    assert len({run.info.run_name.rpartition(" ")[0] for run in runs_of(config).values()}) == 1, "of one family"
    assert len(runs_of(config)) == len(FAMILY)
    assert done["registered"]["version"] == "1"
    assert bytes_of(done["bundle"]) == bytes_of(whole.done["bundle"])
    assert {**done["family"], "models": []} == {**whole.done["family"], "models": []}
    assert not list(Path(config.workspace_dir, "training").glob("auto-*.json")), "the next call begins anew"


def test_other_epochs_or_data_are_another_family(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a")
    data = open_days(config, Days())
    first = module._Kept(config, data, None)
    assert module._Kept(config, data, None).name == first.name
    longer = load_config(config.file, ["training.epochs=9"])
    assert module._Kept(longer, data, None).name != first.name
    other = open_days(config_of(tmp_path / "b", rows={"train": [900], "valid": [300]}), Days())
    assert module._Kept(config, other, None).name != first.name
    assert module._Kept(config, data, "mine").name_of("fm") == "mine fm"
    assert first.took("fm", 3.21) == 3.2
    assert module._Kept(config, data, None).took("fm", 0.1) == 3.2, "when it was trained"
    first.forget()
    assert module._Kept(config, data, None).name != first.name


@pytest.mark.slow
def test_a_model_that_diverges_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """sgd with a rate at which only products of weights explode."""
    wild = ["training.optimizer=sgd", "training.learning_rate=40", "training.epochs=6", "model.init_scale=2"]
    done = train_best(config_of(tmp_path / "a", *wild), register=False)
    assert done is not None
    assert {each["kind"] for each in done["family"]["models"]} == {"lr", "poly2"}
    assert "warning: fm is left out: " in capfd.readouterr().err
    every = load_config(tmp_path / "a" / "planted.yaml", [*wild[:1], "training.learning_rate=1e38"])
    with pytest.raises(DivergedError, match=r"model\.kind: expected a model of the family that does not diverge"):
        train_best(every)


@pytest.mark.slow
def test_ranks_train_the_family(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a", "training.epochs=1", "model.pair_buckets=512")
    done = train_best(config, 2)
    assert done is not None
    assert [each["kind"] for each in done["family"]["models"]] == list(FAMILY)
    assert done["registered"]["version"] == "1"
    assert len(runs_of(config)) == len(FAMILY)


def test_a_model_that_goes_on_is_of_that_ones_kind(tmp_path: Path, whole: Whole) -> None:
    names = ("2026-01-05", "2026-01-06")
    days = [write_snapshot(tmp_path / day, SPEC, {"all": [900]}, seed=n, name=day).dir for n, day in enumerate(names)]
    config = load_config(whole.config.file, [DIM, "training.epochs=1", "training.patience=null"])
    done = train_best(config, 1, Days(days[:1], (), days[1:]), init=whole.done["bundle"], register=False)
    assert done is not None
    assert (done["kind"], "family" in done) == (whole.done["kind"], False)
    assert load_bundle(done["bundle"]).kind == whole.done["kind"]


def test_what_it_cannot_do_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(tmp_path / "a", rows={"train": [900], "test": [300]})
    with pytest.raises(InputError, match=r"split valid: expected rows of both classes, found no rows"):
        train_best(config)
    with pytest.raises(ConfigError, match=r"--kinds: expected models, .* found auto\. .*--kinds lr,poly2,fm,ffm"):
        sweep(config)
    with pytest.raises(ConfigError, match=r"--kinds: .*found auto"):
        sweep(config, kinds=["fm", "auto"])
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(ConfigError, match=r"model\.kind: expected one model for ranks of torchrun, found auto"):
        train_best(config)
    assert not Path(config.workspace_dir, "training").exists()
    for override, message in (
        ("training.optimizer=ftrl", r"training\.optimizer: .*found model\.kind fm"),
        ("training.table=bfloat16", r"training\.table: expected float32 .*, found bfloat16 for lr"),
        ("model.hidden=[4]", r"model\.hidden: expected no hidden for auto, found \[4\]"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(config.file, [override])


def test_keys_go_to_the_kinds_that_have_use_for_them(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a", "model.dim=3", "model.pair_buckets=64")
    kinds = {kind: config.of_kind(kind) for kind in FAMILY}
    assert {kind: resolved(one.model).dim for kind, one in kinds.items()} == {"lr": 0, "poly2": 0, "fm": 3, "ffm": 3}
    assert resolved(kinds["poly2"].model).pair_buckets == 64
    for one in kinds.values():  # as ranks load it
        assert load_config(one.file, one.overrides).model == one.model
