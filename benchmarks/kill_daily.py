"""The daily cycle killed at random: the same decisions, models and lists as undisturbed.

    python benchmarks/kill_daily.py --dates 5 --kills 20

Each date runs as a process of its own; SIGKILL falls on it and all it has started after a random time, and it is
started again, until its share of the kills is used up; then it runs to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from benchmarks.streams import shop  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.cycle.record import Record  # noqa: E402

FIRST = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dates", type=int, default=5)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2000, help="of a day")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="fieldwise-kills-") as place:
        calm, killed = Path(place) / "calm" / "shop", Path(place) / "killed" / "shop"
        _, days = shop(calm, drifting=True, days=FIRST + options.dates, rows_per_day=options.rows)
        document = yaml.safe_load((calm / "stream.yaml").read_text())
        document["catalog"] = {"contexts": {"path": "users.csv"}, "context_id": "user", "items": {"path": "items.csv"},
                               "item_id": "item", "k": 5, "time": "{date}T19:00:00",
                               "fixed": {"position": 1, "device": "phone"}}  # fmt: skip
        (calm / "stream.yaml").write_text(yaml.safe_dump(document))
        run(calm, "bootstrap", "--from", days[0], "--to", days[FIRST - 1])
        shutil.copytree(calm, killed)
        seconds, moments = [], []
        for day in days[FIRST:]:
            started = time.perf_counter()
            run(calm, "daily", "--date", day)
            seconds.append(time.perf_counter() - started)
        for number, day in enumerate(days[FIRST:]):
            for _ in range(options.kills // options.dates):
                moment = draw.uniform(0.5, seconds[number])
                moments.append(round(moment, 2))
                run(killed, "daily", "--date", day, kill_after=moment)
            run(killed, "daily", "--date", day)
        states = {name: [state(folder, day) for day in days[FIRST:]] for name, folder in
                  (("calm", calm), ("killed", killed))}  # fmt: skip
    same = states["calm"] == states["killed"]
    record("kill_daily", {"same": same, "kills": len(moments), "after_seconds": moments, "states": states})


def run(folder: Path, *arguments: str, kill_after: float | None = None) -> None:
    """A command, to its end or until it is killed with all its processes."""
    command = [sys.executable, "-m", "fieldwise.jobs.cli", *arguments, "--config", str(folder / "stream.yaml")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SPARK_MASTER": "local[2]"}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            code = process.wait(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return
        log.seek(0)
        if code:
            raise SystemExit(f"{' '.join(arguments)}: exit code {code}\n{log.read().decode(errors='replace')[-4000:]}")


def state(folder: Path, day: str) -> dict[str, Any]:
    """What a date has left behind, without times and places."""
    config = load_config(folder / "stream.yaml", [])
    steps = Record(config.workspace_dir, day).steps
    decision = steps["decision"]
    numbers = json.dumps(decision["metrics"], sort_keys=True)
    return {
        "decision": decision["decision"], "champion": decision["champion"], "challenger": decision["challenger"],
        "now": decision["now"], "findings": decision["findings"], "metrics": numbers,
        "bundle": steps["challenger"].get("trained", {}).get("bundle_digest"), "lists": steps["catalog"]["digest"],
        "line": steps["line"],
        "decisions": len(list((Path(config.workspace_dir) / "decisions").glob("*.json"))),
    }  # fmt: skip


if __name__ == "__main__":
    main()
