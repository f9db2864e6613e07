"""One suite over the local disk and an S3 server: every command gives the same in both places."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import psutil
import pytest
import s3fs
import yaml
from botocore.exceptions import ClientError
from pyspark.sql import SparkSession

from fieldwise.features import store
from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import ConfigError, FieldwiseError, known_error
from fieldwise.features.files.listing import list_files
from fieldwise.features.snapshot.manifest import load_snapshot, snapshot_dir
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config, resolve
from fieldwise.pipelines.cycle.bootstrap import bootstrap
from fieldwise.pipelines.cycle.daily import run_day
from fieldwise.pipelines.operate.config_checks import ConfigChecks
from fieldwise.pipelines.operate.prune import prune
from fieldwise.pipelines.score.score_rows import score_rows
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.ranks.world import World
from tests.pipelines.cycle.days import DAY, write_cycle
from tests.s3_server import BUCKET, S3, races, upload

PREFIX = "s3://shop/a place/100%/é"


def write_places(folder: Path, days: int) -> tuple[str, str]:
    """The same config and logs on the disk and on the server; MLflow's databases lie on the disk."""
    write_cycle(folder, "cycle.yaml", days=days)
    document = yaml.safe_load((folder / "cycle.yaml").read_text())
    document["training"] |= {"scratch": str(folder / "scratch"), "auto": False, "epochs": 3}
    document["daily"] = {"window": 1}
    remote = document | {"tracking": {"uri": f"sqlite:///{folder}/remote.db"}}
    place = f"{PREFIX}/{folder.name}"
    upload(folder, place)
    store.write_atomic(f"{place}/cycle.yaml", yaml.safe_dump(remote).encode())
    (folder / "cycle.yaml").write_text(yaml.safe_dump(document))
    return str(folder / "cycle.yaml"), f"{place}/cycle.yaml"


def whole_cycle(path: str) -> list[Any]:
    """What must be the same anywhere, of every command in turn."""
    config = load_config(path, ["retention=2d"])
    bootstrap(config, first=DAY(1), last=DAY(3))
    found: list[Any] = [snapshot_digest(config, DAY(3))]
    found.append(evaluate_model(config, snapshots=[snapshot_dir(config.workspace_dir, DAY(3))])["metrics"])
    found.append(scored(score_rows(config, date=DAY(3))))
    found.append(scored(score_catalog(config, date=DAY(3))))
    for day in (DAY(4), DAY(5)):
        done = run_day(config, date=day)
        found.append([done["decision"], done["learned"], done["metrics"], done["used_model"]["digest"]])
        found.append(scored(done["catalog"]))
    found.append(prune(config))
    return found


def snapshot_digest(config: Config, day: str) -> str:
    return load_snapshot(snapshot_dir(config.workspace_dir, day)).manifest.digest


def scored(result: dict[str, Any]) -> Any:
    return result["digest"]


def test_features_train_and_score_give_the_same_on_s3(spark: SparkSession, s3: S3, tmp_path: Path) -> None:
    def run(path: str) -> list[Any]:
        config = load_config(path)
        built = build_features(config, date=DAY(1))
        data = TrainData.of([load_snapshot(built["dir"])], [], [])
        settings = config.training.model_copy(update={"epochs": 2, "patience": None})
        made = tmp_path / f"bundle-{len(path)}"
        trained = train(TrainRun(data, config.model, settings, bundle_dir=str(made)), World())
        if "://" in path:
            upload(made, bundle := f"{store.parent(path)}/bundle")
        else:
            bundle = str(made)
        rows = score_rows(config, date=DAY(1), model=bundle)
        return [built["digest"], trained.bundle_digest, scored(rows)]

    local, remote = map(run, write_places(tmp_path, 1))
    assert remote == local
    assert len(list((tmp_path / "scratch" / "files").iterdir())) == 1  # fetched once for two epochs and the evaluation


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_cycle_gives_the_same_on_s3(spark: SparkSession, s3: S3, tmp_path: Path) -> None:
    local, remote = map(whole_cycle, write_places(tmp_path, 5))
    assert remote == local


STEPS = [  # command, arguments, about how many writes to the store it makes
    ("bootstrap", ["--from", DAY(1), "--to", DAY(3)], 130),
    ("evaluate", ["--snapshot", "{work}/snapshots/" + DAY(3)], 4),
    ("score-rows", ["--date", DAY(3)], 25),
    ("score-catalog", ["--date", DAY(3)], 25),
    ("daily", ["--date", DAY(4)], 150),
    ("daily", ["--date", DAY(5)], 150),
    ("prune", ["--keep", "2d"], 20),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_in_the_middle_of_each_command_and_run_again(spark: SparkSession, s3: S3, tmp_path: Path) -> None:
    """SIGKILL after some number of writes, again and again; a lister sees no manifest without its files."""
    draw = np.random.default_rng(int(os.environ.get("FIELDWISE_SEED", "1")))
    local, remote = write_places(tmp_path, 5)
    calm = whole_cycle(local)
    work = store.join(store.parent(remote), "work")
    with Lister(work) as lister:
        results = []
        for name, written, writes in STEPS:
            arguments = [word.replace("{work}", work) for word in written]
            command = [sys.executable, "-W", "ignore", "-m", "fieldwise.jobs.cli", name, "-q", "--config", remote]
            for _ in range(int(os.environ.get("FIELDWISE_KILLS", "1"))):
                after = s3.writes() + int(draw.integers(1, writes))
                process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                while process.poll() is None and s3.writes() < after:
                    time.sleep(0.005)
                kill_all(process.pid)
                process.communicate()
            done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{name}\n{done.stderr}"
            results.append(json.loads(done.stdout.splitlines()[-1]))
            if name == "bootstrap":  # prune will remove it
                first = snapshot_digest(load_config(remote), DAY(3))
        assert lister.looks > 20
        assert lister.found == []
    _, evaluated, rows, catalog, *dates, pruned = results
    found = [first, evaluated["metrics"], scored(rows), scored(catalog)]
    for done in dates:
        found += [[done["decision"], done["learned"], done["metrics"], done["used_model"]["digest"]]]
        found += [scored(done["catalog"])]
    assert json.loads(json.dumps([*found, pruned["kept"]])) == json.loads(json.dumps([*calm[:-1], calm[-1]["kept"]]))
    left = [path for path in s3.files().find(work) if ".lock." in path or ".aside" in path]
    assert left == []


def kill_all(pid: int) -> None:
    """A process with all it has started."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for each in family:
        with suppress(psutil.NoSuchProcess):
            each.kill()
    psutil.wait_procs(family, timeout=30)


class Lister:
    """Looks all the time, past this project's code, whether every manifest that can be seen has its files."""

    def __init__(self, place: str) -> None:
        self.place, self.looks, self.found = place, 0, list[str]()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Lister:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        files = S3.files()
        while not self._over.wait(0.1):
            self.looks += 1
            for path in files.find(self.place):
                name = path.rpartition("/")[2]
                if name in ("manifest.json", "_manifest.json", "model.json"):
                    self._look(files, path, name)

    def _look(self, files: Any, path: str, name: str) -> None:
        try:
            content = files.cat_file(path)
        except FileNotFoundError:
            return
        told, folder = json.loads(content), path.rpartition("/")[0]
        if name == "model.json":
            needed: dict[str, int | None] = {"weights.safetensors": None, "spec.json": None, "vocabulary.parquet": None}
        else:
            folder = f"{folder}/{told['data']}" if name == "manifest.json" else folder
            needed = {file["path"]: file["bytes"] for file in told["files"]}
        there = {each["name"].rpartition("/")[2]: each["size"] for each in files.find(folder, detail=True).values()}
        bad = [file for file, size in needed.items() if file not in there or size not in (None, there[file])]
        try:
            if bad and files.cat_file(path) == content:  # and not another one's by now
                self.found.append(f"{path}: {bad}")
        except FileNotFoundError:
            return


def test_exactly_one_of_two_publishes(s3: S3) -> None:
    assert races(10) == {"times": 10, "exactly_one_won": 10}


@pytest.mark.slow
def test_exactly_one_of_two_publishes_each_of_a_hundred_times(s3: S3) -> None:
    assert races(100) == {"times": 100, "exactly_one_won": 100}


def test_directories_of_a_store(s3: S3) -> None:
    """Markers of directories are no files; a bucket may be the workspace; relative paths count from a config there."""
    files = s3.files()
    for name, content in (("", b""), ("sub/", b""), ("sub/a.csv", b"a,b\n1,2\n"), ("sub/_x", b"no"), ("b.csv", b"c\n")):
        files.pipe_file(f"{BUCKET}/dirs/{name}", content)
    source = SourceConfig(path=["s3://shop/dirs/"])
    assert [file.path for file in list_files(source, "/")] == ["s3://shop/dirs/b.csv", "s3://shop/dirs/sub/a.csv"]
    source = SourceConfig(path=["../dirs/s*/*.csv"])
    assert [file.path for file in list_files(source, "s3://shop/conf")] == ["s3://shop/dirs/sub/a.csv"]
    assert store.list_sizes("s3://shop/dirs/") == {"sub": 0, "b.csv": 2}
    assert [resolve("s3://shop/", "/x"), resolve("../w", "s3://shop/conf")] == ["s3://shop", "s3://shop/w"]
    store.write_atomic(store.join(resolve("s3://shop/", "/x"), "snapshots", "all", "manifest.json"), b"{}")
    assert "snapshots" in store.list_sizes("s3://shop")


@pytest.mark.slow
def test_more_files_than_one_listing_tells(s3: S3) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.write_new(f"s3://shop/many/{n:04d}.csv", b"x"), range(1100)))
    assert len(store.list_sizes("s3://shop/many")) == 1100
    assert len(list_files(SourceConfig(path=["s3://shop/many"]), "/")) == 1100
    store.remove_tree("s3://shop/many")
    assert store.list_sizes("s3://shop/many") == {}


@pytest.fixture
def strict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A server that knows who asks; the function becomes a user who may do what a policy says."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    server = S3(tmp_path / "config", open_for=8)
    iam = boto3.client("iam", endpoint_url=server.endpoint)
    iam.create_user(UserName="fieldwise")
    key = iam.create_access_key(UserName="fieldwise")["AccessKey"]

    def become(statement: dict[str, Any]) -> None:
        policy = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", **statement}]})
        iam.put_user_policy(UserName="fieldwise", PolicyName="own", PolicyDocument=policy)
        for _ in range(20):  # what is left of the requests that anybody may make
            with suppress(ClientError):
                iam.list_users()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        s3fs.S3FileSystem.clear_instance_cache()

    yield become
    server.end()
    s3fs.S3FileSystem.clear_instance_cache()


def told(call: Callable[[], object]) -> FieldwiseError:
    with pytest.raises(Exception) as raised:  # noqa: PT011  of whatever library
        call()
    found = known_error(raised.value)
    assert found is not None, repr(raised.value)
    assert "\n" not in str(found)
    return found


@pytest.mark.slow
def test_a_refusal_is_one_line(strict: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch) -> None:
    strict({"Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]})
    store.write_atomic("s3://shop/a/x", b"1")
    assert store.read_bytes("s3://shop/a/x") == b"1"
    found = told(lambda: store.list_sizes("s3://shop/a"))  # which may not be asked
    assert (found.exit_code, found.expected) == (2, "credentials that it accepts")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-of-tests")
    s3fs.S3FileSystem.clear_instance_cache()
    for call in (
        lambda: store.read_bytes("s3://shop/a/x"),
        lambda: store.write_atomic("s3://shop/a/x", b"2"),
        lambda: load_config("s3://shop/a/x"),
    ):
        found = told(call)
        assert (found.exit_code, "another-secret" in str(found)) == (2, False)


@pytest.mark.slow
def test_a_bucket_that_is_not_there_and_a_server_that_is_away(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    found = told(lambda: store.write_atomic("s3://no-such-bucket/x", b""))
    assert (found.exit_code, found.expected) == (2, "a bucket that is there")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        found = told(lambda: store.write_atomic("s3://shop/x", b""))
    finally:
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        s3fs.S3FileSystem.clear_instance_cache()
    assert (found.exit_code, found.expected) == (1, "an answer")


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(ConfigError, match=r"pip install 'fieldwise\[gcs\]'"):
        store.exists("gs://bucket/x")


def test_doctor_tries_what_the_workspace_needs(s3: S3, tmp_path: Path) -> None:
    _, remote = write_places(tmp_path, 1)
    config = load_config(remote)
    checked = ConfigChecks(config)._workspace()
    assert checked == f"{config.workspace_dir}: written, read, listed, created once and removed"
    assert s3.files().find(config.workspace_dir) == []
