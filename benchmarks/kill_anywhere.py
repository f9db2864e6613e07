"""Trainings killed at random, again and again, through torchrun: no row lost, none twice, the same bundle in the end.

    python benchmarks/kill_anywhere.py --kinds lr poly2 fm ffm --kills 52

Each kind is trained undisturbed, then under its share of the kills, by as many ranks. A kill is a SIGKILL of one rank
or of all (torchrun starts them again) or of torchrun (the ranks write a checkpoint and leave; torchrun is started
again). It falls after a random step, and a random moment later: into a step, a checkpoint, an evaluation.

Rows are counted apart from the trainer's own counters: every rank writes down the rows of each step it has finished.
The lineage that survives is what was written before the position a resume went on from, and what came after it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

from benchmarks.record import record  # noqa: E402
from fieldwise.features.process import die_with_parent  # noqa: E402

FILES = {"train": [3000, 1, 5000, 2500], "valid": [1500]}
EPOCHS, BATCH, EVERY_STEPS, RANKS = 4, 256, 7, 2


def worker(kind: str, place: Path) -> None:
    """One rank."""
    from fieldwise.features.snapshot.manifest import load_snapshot
    from fieldwise.training.config import CheckpointConfig, ModelConfig, TrainingConfig
    from fieldwise.training.data.batches import Work
    from fieldwise.training.data.plan import Plan
    from fieldwise.training.data.splits import TrainData
    from fieldwise.training.loop.run import TrainRun
    from fieldwise.training.loop.trainer import Trainer
    from fieldwise.training.ranks import world as world_module
    from fieldwise.training.ranks.world import StopSignal, join_world

    world_module._ROLL_CALL_SECONDS = 1.0  # who the dead rank was is not asked here

    class Traced(Trainer):
        def train(self) -> Any:
            self.trace = open(place / f"trace-{self.world.rank}", "ab", buffering=0)  # noqa: SIM115
            self.note("resume", self.progress.epoch, self.progress.step, [])
            return super().train()

        def _step(self, plan: Plan, work: Work) -> int:
            epoch, step = self.progress.epoch, self.progress.step
            signals = super()._step(plan, work)
            self.note("step", epoch, step, [list(segment)[1:] for segment in work.batch.origin])
            return signals

        def note(self, *what: Any) -> None:
            self.trace.write(json.dumps(what).encode() + b"\n")

    run = TrainRun(
        TrainData.of_one(load_snapshot(str(place.parent / "snapshot"))),
        ModelConfig(kind=kind, pair_buckets=4096 if kind == "poly2" else None),
        TrainingConfig(
            epochs=EPOCHS,
            batch_size=BATCH,
            threads=1,
            patience=None,
            checkpoint=CheckpointConfig(every_steps=EVERY_STEPS, every_minutes=None),
        ),
        str(place / "bundle"),
        str(place / "checkpoints"),
    )
    with join_world(60) as world:
        (place / f"pid-{world.rank}").write_text(str(os.getpid()))
        with StopSignal() as stop:
            result = Traced(run, world, stop).train()
        if world.first:
            (place / "result").write_text(result.bundle_digest)


class Training:
    """A training under torchrun, started again whenever torchrun is gone."""

    def __init__(self, kind: str, place: Path) -> None:
        self.kind, self.place = kind, place
        self.starts = 0
        place.mkdir()
        self.start()

    def start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
                   f"--nproc-per-node={RANKS}", "--max-restarts=1000", "--monitor-interval=0.05",
                   __file__, "--worker", self.kind, str(self.place)]  # fmt: skip
        own = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        log = open(self.place / "log", "ab")  # noqa: SIM115
        self.torchrun = subprocess.Popen(command, env=own, stdout=log, stderr=log, preexec_fn=die_with_parent)

    def done(self) -> bool:
        return (self.place / "result").exists()

    def steps(self) -> int:
        """Steps that rank 0 has finished, repeated ones included."""
        path = self.place / "trace-0"
        return path.read_bytes().count(b'["step"') if path.exists() else 0

    def wait(self, until: Any, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                raise TimeoutError((self.place / "log").read_text()[-3000:])
            if self.torchrun.poll() is not None and not self.done():
                raise RuntimeError((self.place / "log").read_text()[-3000:])
            time.sleep(0.001)

    def kill(self, what: str, rng: random.Random) -> None:
        ranks = [int((self.place / f"pid-{rank}").read_text()) for rank in range(RANKS)]
        victims = {"rank": [rng.choice(ranks)], "all": ranks, "driver": [self.torchrun.pid]}[what]
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if what == "driver":
            self.torchrun.wait()
            deadline = time.monotonic() + 60
            while any(Path(f"/proc/{pid}").exists() for pid in ranks):
                if time.monotonic() > deadline:
                    raise TimeoutError("ranks outlive torchrun")
                time.sleep(0.01)
            self.start()


def lineage(place: Path, rank: int) -> tuple[int, dict[tuple[int, int], Any]]:
    """Lives of a rank, and what it trained in each step of the lineage that survived."""
    lives, kept = 0, dict[tuple[int, int], Any]()
    for line in (place / f"trace-{rank}").read_bytes().splitlines():
        what, epoch, step, rows = json.loads(line)
        if what == "resume":
            lives += 1
            kept = {at: trained for at, trained in kept.items() if at < (epoch, step)}
        elif (epoch, step) in kept:
            raise AssertionError(f"step {epoch}, {step} twice in one life")
        else:
            kept[epoch, step] = rows
    return lives, kept


def count_rows(places: Path) -> tuple[int, int]:
    """Rows of all epochs that were never trained, and rows trained more than once."""
    times: Counter[tuple[int, int, int]] = Counter()
    for rank in range(RANKS):
        for (epoch, _), segments in lineage(places, rank)[1].items():
            for file, first, rows in segments:
                times.update((epoch, file, row) for row in range(first, first + rows))
    planned = [(e, f, r) for e in range(EPOCHS) for f, rows in enumerate(FILES["train"]) for r in range(rows)]
    return sum(times[row] == 0 for row in planned), sum(n - 1 for n in times.values() if n > 1)


def disturb(kind: str, kills: int, folder: Path, rng: random.Random) -> dict[str, Any]:
    """One kind undisturbed, then killed ``kills`` times."""
    calm = Training(kind, folder / f"{kind}-calm")
    calm.wait(lambda: calm.torchrun.poll() is not None)
    total = calm.steps()
    killed: Counter[str] = Counter()
    trainings: list[Training] = []
    while sum(killed.values()) < kills:
        training = Training(kind, folder / f"{kind}-{len(trainings)}")
        trainings.append(training)
        while sum(killed.values()) < kills and not training.done():
            lives = sum(1 for _ in training.place.glob("trace-0")) and lineage(training.place, 0)[0]
            training.wait(lambda t=training, n=lives: t.done() or _alive(t, n))
            position = max(lineage(training.place, 0)[1], default=(0, 0))
            left = total - position[0] * (total // EPOCHS) - position[1]
            goal = training.steps() + rng.randrange(max(1, min(left, 3 * EVERY_STEPS)))
            training.wait(lambda t=training, n=goal: t.done() or t.steps() >= n)
            time.sleep(rng.random() * 0.02)
            if training.done():
                break
            what = rng.choice(["rank", "rank", "all", "driver"])
            killed[what] += 1
            training.kill(what, rng)
        training.wait(lambda t=training: t.torchrun.poll() is not None)
    digest = (calm.place / "result").read_text()
    rows = [count_rows(training.place) for training in trainings]
    return {
        "kills": dict(killed),
        "trainings": len(trainings),
        "resumes": sum(lineage(training.place, 0)[0] - 1 for training in trainings),
        "steps": total,
        "steps_repeated": sum(training.steps() - total for training in trainings),
        "lost_rows": sum(lost for lost, _ in rows),
        "duplicate_rows": sum(twice for _, twice in rows),
        "identical_bundles": sum((training.place / "result").read_text() == digest for training in trainings),
        "files_left": sum(len(list((training.place / "checkpoints").glob(".*"))) for training in trainings),
    }


def _alive(training: Training, lives: int) -> bool:
    """Whether rank 0 lives again since it had so many lives, and all ranks have said who they are."""
    there = [(training.place / f"trace-{rank}").exists() for rank in range(RANKS)]
    return (
        all(there)
        and all(lineage(training.place, rank)[0] > 0 for rank in range(RANKS))
        and (lineage(training.place, 0)[0] > lives - 1)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["lr", "poly2", "fm", "ffm"])
    parser.add_argument("--kills", type=int, default=52, help="over all kinds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", nargs=2, metavar=("KIND", "PLACE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker[0], Path(options.worker[1]))
    from tests.snapshots import hash_spec, write_snapshot

    started, rng, found = time.monotonic(), random.Random(options.seed), {}
    with tempfile.TemporaryDirectory(prefix="fieldwise-kills-") as folder:
        write_snapshot(Path(folder) / "snapshot", hash_spec((200, 300, 50, 60), (1, 1, 1, 2)), FILES)
        for kind in options.kinds:
            found[kind] = disturb(kind, -(-options.kills // len(options.kinds)), Path(folder), rng)
            print(f"{kind}: {found[kind]}", file=sys.stderr, flush=True)
    names = ("trainings", "resumes", "lost_rows", "duplicate_rows", "identical_bundles", "files_left")
    total = {name: sum(of[name] for of in found.values()) for name in names}
    total["kills"] = sum(sum(of["kills"].values()) for of in found.values())
    suffix = "" if len(options.kinds) > 1 else f"_{options.kinds[0]}"
    record(f"kill_anywhere{suffix}", {**total, "by_kind": found, "seconds": round(time.monotonic() - started, 1)})


if __name__ == "__main__":
    main()
