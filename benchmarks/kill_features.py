"""A feature build whose driver is killed at a random moment: never a partial snapshot, and a rerun that succeeds.

Every point is a driver of its own (of the Spark engine with its JVM and session), whose whole process group gets
SIGKILL at a moment drawn evenly from a little more than the build takes. Then, from another process:

    whole      no manifest is there, or one whose files have the right checksums and digest
    rerun      the same build is run again: it succeeds with the digest of a build nobody killed
    cleaned    nothing but the manifest and its data is left, after that rerun or the next one

    python benchmarks/kill_features.py --points 200 --engine spark

The last line of stdout is one JSON object; ``--add`` adds to the points recorded before. Exit code 1 if a point failed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import RESULTS, record  # noqa: E402
from fieldwise.features import store  # noqa: E402
from fieldwise.features.errors import ArtifactError, FieldwiseError  # noqa: E402
from fieldwise.features.process import die_with_parent  # noqa: E402
from fieldwise.features.snapshot.manifest import MANIFEST, load_snapshot  # noqa: E402
from fieldwise.pipelines.build.features import build_features  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402

ROWS = 2000
BEYOND = 1.1
"""Moments are drawn from this many times the build's duration, so that some fall behind its end."""
_FORK = multiprocessing.get_context("fork")  # of a process that has the imports, but no Spark and no threads yet


def write_source(place: Path) -> Path:
    """A small log of one vocabulary, one hashed and one number field; returns the config's path."""
    drawn = random.Random(1)
    rows = [f"{drawn.random() < 0.3:d},u{int(drawn.paretovariate(1))},i{drawn.randrange(50)},{drawn.randrange(9)}.5"
            for _ in range(ROWS)]  # fmt: skip
    (place / "log.csv").write_text("\n".join(rows) + "\n")
    path = place / "config.yaml"
    path.write_text(
        "name: kill\nsource: {path: log.csv, columns: [label, user, item, price]}\nlabel: label\nsplit: {by: none}\n"
        "fields:\n  - {name: user, kind: vocabulary}\n  - {name: item, kind: hash, buckets: 64}\n"
        "  - {name: price, kind: number, quantiles: 4}\nmodel: {kind: lr}\nsnapshot: {rows_per_file: 300}\n"
    )
    return path


def build(config: Path, workspace: Path, engine: str) -> dict[str, Any]:
    return build_features(load_config(config, [f"workspace={workspace}", f"engine={engine}"]))


def drive(config: Path, engine: str, told: Connection) -> None:
    """A driver that says when it is ready, and builds into each workspace it is told."""
    os.setsid()
    die_with_parent()
    if engine == "spark":
        from fieldwise.features.spark.session import spark_session

        spark_session("kill_features")
    told.send("ready")
    while True:
        try:
            workspace = told.recv()
        except EOFError:
            return
        started = time.perf_counter()
        try:
            with redirect_stderr(io.StringIO()):
                digest = build(config, workspace, engine)["digest"]
        except FieldwiseError as error:
            digest = str(error)
        told.send((time.perf_counter() - started, digest))


def start(config: Path, engine: str) -> tuple[BaseProcess, Connection]:
    ours, theirs = _FORK.Pipe()
    process = _FORK.Process(target=drive, args=(config, engine, theirs))
    process.start()
    theirs.close()
    return process, ours


def visible(directory: str, digest: str) -> str:
    """What a reader sees: nothing, a published snapshot that is whole (its digest, all checksums), or a partial one."""
    if not store.exists(store.join(directory, MANIFEST)):
        return "nothing"
    try:
        snapshot = load_snapshot(directory)
    except ArtifactError:
        return "partial"
    entries = snapshot.manifest.files
    sums = [hashlib.sha256(store.read_bytes(snapshot.path(entry))).hexdigest() for entry in entries]
    is_whole = snapshot.manifest.digest == digest and sums == [entry.sha256 for entry in entries]
    return "whole" if is_whole else "partial"


def is_clean(directory: str) -> bool:
    """Whether only the manifest and the data it names are there."""
    return set(os.listdir(directory)) == {MANIFEST, load_snapshot(directory).manifest.data}


def kill_points(place: Path, points: int, seed: int, seconds: float = math.inf, *, engine: str) -> dict[str, Any]:
    """Run the points until time is up, the next driver starting meanwhile; counts of what happened."""
    stop = time.monotonic() + seconds
    config = write_source(place)
    drawn = random.Random(seed)
    helper, rerun = start(config, engine)  # builds again; its session stays
    following = start(config, engine)
    rerun.recv()
    rerun.send(place / "whole")
    duration, digest = rerun.recv()  # its first build, as slow as those that will be killed
    counts: Counter[str] = Counter()
    failed = []
    done = 0
    while done < points and time.monotonic() < stop:
        (process, told), workspace = following, place / f"point-{done}"
        directory = str(workspace / "snapshots" / "all")
        told.recv()
        moment = drawn.uniform(0, BEYOND * duration)
        told.send(workspace)
        time.sleep(moment)
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        following = start(config, engine) if done + 1 < points else following
        seen = visible(directory, digest)
        counts["staged" if seen == "nothing" and os.path.exists(directory) else seen] += 1
        reruns: list[str] = []
        while len(reruns) < 2 and not (reruns and is_clean(directory)):
            rerun.send(workspace)
            reruns.append(rerun.recv()[1])
        counts["reruns"] += reruns[0] == digest
        counts[f"cleaned by run {len(reruns)}"] += is_clean(directory)
        if (
            seen == "partial"
            or set(reruns) != {digest}
            or visible(directory, digest) != "whole"
            or not is_clean(directory)
        ):
            left = sorted(os.listdir(directory))
            failed.append({"seed": seed, "point": done, "moment": moment, "seen": seen, "reruns": reruns, "left": left})
        done += 1
    for process in (helper, following[0]):
        process.kill()
        process.join()
    return {"points": done, "seconds_of_a_build": round(duration, 2), "counts": dict(counts), "failed": failed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--engine", choices=["local", "spark"], default="local")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=math.inf, help="start no point after this time")
    parser.add_argument("--add", action="store_true", help="to the points recorded before (with another seed)")
    arguments = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", "local[2]")
    os.environ.setdefault("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")  # JVMs that live for seconds
    with tempfile.TemporaryDirectory() as folder:
        figures = kill_points(
            Path(folder), arguments.points, arguments.seed, arguments.seconds, engine=arguments.engine
        )
    name = "kill_features" if arguments.engine == "spark" else "kill_features_local"
    known = RESULTS / f"{name}.json"
    if arguments.add and known.exists():
        before = json.loads(known.read_text())["figures"]
        figures["points"] += before["points"]
        figures["counts"] = dict(Counter(before["counts"]) + Counter(figures["counts"]))
        figures["failed"] += before["failed"]
    record(name, figures)
    if figures["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
