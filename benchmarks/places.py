"""Object stores: what it costs to train from one, and whether of two publishers one wins.

    python benchmarks/places.py --rows 1000000 --races 100

A snapshot lies on the local disk and on an S3 server of this machine. From each, an FM trains two epochs in processes
of their own, in turn: local, S3 with an empty directory of copies, S3 with the copies of the run before. ``cache_mb``
is 0, so that every epoch reads its files. Then two publishers race for one manifest, again and again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot  # noqa: E402
from fieldwise.training.config import ModelConfig, TrainingConfig  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.run import TrainRun  # noqa: E402
from fieldwise.training.loop.trainer import train  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402
from tests.s3_server import S3, races, upload  # noqa: E402
from tests.snapshots import hash_spec, write_snapshot  # noqa: E402

FIELDS, FILE_ROWS = 20, 50_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--races", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train", metavar="SNAPSHOT", help="of the benchmark itself: train from one, print figures")
    parser.add_argument("--scratch")
    options = parser.parse_args()
    if options.train:
        print(json.dumps(epochs(options.train, options.scratch)))
        return
    with tempfile.TemporaryDirectory(prefix="fieldwise-places-") as place:
        os.environ.update(AWS_CONFIG_FILE=f"{place}/aws", AWS_EC2_METADATA_DISABLED="true")
        server = S3(Path(place, "aws"))
        try:
            figures = throughput(Path(place), options) | {"races": races(options.races)}
        finally:
            server.end()
    record("places", figures | {"s3fs": version("s3fs"), "moto": version("moto")})


def throughput(place: Path, options: argparse.Namespace) -> dict[str, Any]:
    files = [FILE_ROWS] * (options.rows // FILE_ROWS)
    write_snapshot(place / "all", hash_spec((50_000,) * FIELDS), {"train": files}, seed=1, name="all")
    upload(place / "all", "s3://shop/all")
    told: dict[str, list[dict[str, float]]] = {"local": [], "cold": [], "warm": []}
    for number in range(options.rounds):
        for name in ("local", "cold", "warm"):
            snapshot = str(place / "all") if name == "local" else "s3://shop/all"
            command = [sys.executable, "-W", "ignore", __file__, "--train", snapshot]
            command += ["--scratch", str(place / f"scratch-{number}")]
            found = subprocess.run(command, capture_output=True, text=True, check=False)
            if found.returncode:
                raise SystemExit(found.stderr)
            told[name].append(json.loads(found.stdout.splitlines()[-1]))
    digests = {each["digest"] for runs in told.values() for each in runs}
    assert len(digests) == 1, digests
    middle = {
        name: {key: round(statistics.median(each[key] for each in runs)) for key in ("first", "second")}
        for name, runs in told.items()
    }
    return {
        "rows": sum(files), "fields": FIELDS, "megabytes": round(_bytes(place / "all") / 1e6, 1),
        "rows_per_second": middle, "rounds": told,
        "second_epoch_to_local": {
            name: round(middle[name]["second"] / middle["local"]["second"], 3) for name in ("cold", "warm")
        },
    }  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def epochs(snapshot: str, scratch: str) -> dict[str, Any]:
    """Rows per second of two epochs, reading included, and the bundle's digest."""
    data = TrainData.of([load_snapshot(snapshot)], [], [])
    config = TrainingConfig(epochs=2, patience=None, auto=False, cache_mb=0, scratch=scratch, learning_rate=0.1)
    with tempfile.TemporaryDirectory() as place:
        run = TrainRun(data, ModelConfig(kind="fm", dim=16), config, bundle_dir=f"{place}/bundle")
        done = train(run, World())
    first, second = (record.rows_trained / record.seconds for record in done.history[:2])
    return {"first": first, "second": second, "digest": done.bundle_digest}


if __name__ == "__main__":
    main()
