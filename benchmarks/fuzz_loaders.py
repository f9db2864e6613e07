"""Damaged and hostile artifacts through every loader: an error of ours with the file's name, or a clean load.

    python benchmarks/fuzz_loaders.py --cases 10000

A case changes one file of a good artifact (snapshot, its data files, bundle, checkpoint, journal, lease, config), of
what a workspace keeps for itself (a day's record, a trial, the manifest of scores) or of a source (csv, jsonl, Parquet
of many types, plain and compressed): bytes (flipped, cut, repeated, inserted) or, in JSON and YAML, a
value (to a huge one, another type, a path that leads out, deep nesting). Checksums and digests that cover the change
are made to fit every other time, so that damage also reaches what lies behind them. Counted as findings: an exception
that is none of ours, a load longer than ten seconds, memory past a limit (RLIMIT_AS), a file opened outside the
artifact, a process started, a crash of the interpreter.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

import torch  # noqa: E402
import yaml  # noqa: E402

import fieldwise.features.kernels.jsonl  # noqa: E402, F401
from benchmarks.fuzz_artifacts import COLUMNS, DAY, REQUEST, TRIAL, artifacts  # noqa: E402
from benchmarks.record import record  # noqa: E402
from fieldwise.features.columns.text import canonical  # noqa: E402
from fieldwise.features.config import SourceConfig  # noqa: E402
from fieldwise.features.errors import FieldwiseError, InputError  # noqa: E402
from fieldwise.features.files.listing import list_files  # noqa: E402
from fieldwise.features.kernels.compile import ENTRIES  # noqa: E402
from fieldwise.features.snapshot.manifest import load_snapshot, snapshot_digest  # noqa: E402
from fieldwise.features.snapshot.publish import clean  # noqa: E402
from fieldwise.features.source.raw import column_names, count_rows, read_range, split_ranges  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.cycle.record import Record  # noqa: E402
from fieldwise.pipelines.cycle.start import require_same  # noqa: E402
from fieldwise.pipelines.score.output import Output  # noqa: E402
from fieldwise.pipelines.train.sweep import _read  # noqa: E402
from fieldwise.training.data.cache import Seen  # noqa: E402
from fieldwise.training.data.plan import Plan  # noqa: E402
from fieldwise.training.data.reader import PlanReader  # noqa: E402
from fieldwise.training.data.splits import TrainData  # noqa: E402
from fieldwise.training.loop.checkpoint import Checkpoints, _digest, read_into  # noqa: E402
from fieldwise.training.network.bundle import load_bundle  # noqa: E402
from fieldwise.training.tracking.journal import Journal  # noqa: E402

MEMORY, SECONDS = 1 << 30, 10
"""Bytes a load may add to the process, and how long it may take."""
STRANGE: list[Any] = [
    None, True, -1, 0, 1, 3, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "x", "../../../etc/passwd",
    "/etc/passwd", "C{1..999999999}", "file:///etc/passwd", "http://127.0.0.1:9/x", "\x00", "ü" * 3, [], {}, [[]],
    {"x": 1}, ["a"] * 50, "9" * 5000, "2001-99-99", "!!python/object/apply:os.system ['true']",
]  # fmt: skip
KINDS = ["snapshot", "data", "data", "bundle", "config", "config", "checkpoint", "journal", "lease", *["source"] * 4,
         "day", "trial", "scores"]  # fmt: skip


def _read_source(place: Path) -> None:
    """The changed file: the one whose bytes are not the good one's."""
    (name,) = place.glob("changed-*")
    kind = name.name.removeprefix("changed-log.").partition(".")[0]
    config = SourceConfig.model_validate({"path": name.name, "format": kind})
    files = list_files(config, str(place))
    names = column_names(config, files[0].path) or COLUMNS
    for rng in split_ranges(config, files, 4096):
        count_rows(config, rng)
        for batch in read_range(config, rng, names):
            for column in batch.columns.batch():
                with suppress(InputError):  # a list, say, has no text
                    canonical(column)
            for row in range(batch.columns.rows):
                batch.raw(row)


def _read_data(place: Path) -> None:
    """Every row of a snapshot, as a training rank reads them."""
    split = TrainData.of_one(load_snapshot(str(place))).train
    plan = Plan([file.rows for file in split.files], batch_size=16, seed=1, epoch=0)
    names = load_snapshot(str(place)).spec.slot_names
    for _ in PlanReader(split.files, plan, plan.streams_of(0, 1), names).read(Seen(verify=True)):
        pass


def load(kind: str, place: Path) -> None:
    if kind == "snapshot":
        load_snapshot(str(place))
    elif kind == "data":
        _read_data(place)
    elif kind == "source":
        _read_source(place)
    elif kind == "day":
        day = Record(str(place), DAY)
        require_same(day, load_config(place / "config"))
    elif kind == "trial":
        _read(str(place), [TRIAL])
    elif kind == "scores":
        Output(str(place / "date=all"), REQUEST).standing()
    elif kind == "lease":
        clean(str(place))
        if not (place / "data-test").is_dir():
            raise AssertionError("the published data is gone")
    elif kind == "bundle":
        load_bundle(place)
    elif kind == "config":
        load_config(place / "c.yaml")
    elif kind == "journal":
        journal = Journal(place, lambda report, answers: {})
        journal.metrics({"loss": 0.5}, 0)
        _ = journal.answers, journal.result
    else:
        found = Checkpoints(place, "request").latest()
        if found is not None:
            read_into(found.state, {"table": torch.zeros(4, 3), "optimizer.steps": torch.tensor(0)})
            if found.best is not None:
                read_into(found.best, {"table": torch.zeros(4, 3)})


def mutate(kind: str, place: Path, rng: random.Random) -> str:
    """Change one file; returns its name."""
    files = sorted(path for path in place.rglob("*") if path.is_file() and path.name != "lock")
    wanted = {"data": ("train-",), "lease": ("lease-",), "source": ("log.",), "day": (DAY,)}.get(kind)
    names = tuple(wanted) if wanted else ("train-", "valid-")
    files = [path for path in files if path.name.startswith(names) == bool(wanted)]
    path = rng.choice(files)
    if kind == "source":
        path = path.rename(path.with_name(f"changed-{path.name}"))
    content = path.read_bytes()
    document: Any = None
    if path.suffix in (".json", ".yaml") and rng.random() < 0.7:
        document = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
        _change(document, rng)
        as_json = path.suffix == ".json" or rng.random() < 0.5 or _deep(document)
        content = (json.dumps(document) if as_json else yaml.dump(document)).encode()
    else:
        for _ in range(rng.choice([1, 1, 2, 8])):
            content = _damage(content, rng)
    path.write_bytes(content)
    if rng.random() < 0.5:
        _make_fit(kind, path, content, document)
    return path.name


def _deep(document: Any) -> bool:
    """Whether writing it as YAML would end in Python's own limit of recursion."""
    return json.dumps(document).count("[[[") > 0


def _change(document: Any, rng: random.Random) -> None:
    """Replace, remove or add a value somewhere."""
    places = []

    def walk(here: Any) -> None:
        for key in list(here) if isinstance(here, dict) else range(len(here)):
            places.append((here, key))
            if isinstance(here[key], dict | list):
                walk(here[key])

    walk(document)
    here, key = rng.choice(places)
    choice = rng.random()
    if choice < 0.1:
        del here[key]
    elif choice < 0.2 and isinstance(here, dict):
        here[rng.choice(["x", "", "kind", "../x"])] = rng.choice(STRANGE)
    elif choice < 0.3:
        nested: Any = 1
        for _ in range(rng.choice([10, 400])):
            nested = [nested]
        here[key] = nested
    else:
        here[key] = rng.choice(STRANGE)


def _damage(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content) + 1)
    end = min(len(content), at + rng.choice([1, 2, 8, 100]))
    return rng.choice(
        [
            lambda: content[:at],
            lambda: content[:at] + rng.randbytes(end - at) + content[end:],
            lambda: content[:at] + content[end:],
            lambda: content[:end] + content[at:end] * rng.choice([1, 50]) + content[end:],
            lambda: content[:at] + rng.randbytes(rng.choice([1, 8])) + content[at:],
            lambda: (
                content[:at] + bytes([content[at % max(1, len(content))] ^ (1 << rng.randrange(8))]) + content[end:]
                if content
                else b"\xff"
            ),
            lambda: (
                content[:at]
                + rng.choice([b"[" * 5000, b"{" * 5000, b"9" * 5000, b"\xff\xff\xff\x7f", b"&a *a"])
                + content[end:]
            ),
        ]
    )()


def _make_fit(kind: str, path: Path, content: bytes, document: Any) -> None:
    """Let checksums that cover the change be right."""
    if kind in (
        "source",
        "lease",
        "day",
        "trial",
        "scores",
    ):  # the last three are no artifacts that come from elsewhere
        return
    if kind == "data":
        manifest = json.loads((path.parents[1] / "manifest.json").read_text())
        for entry in manifest["files"]:
            if entry["path"] == path.name:
                entry |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": max(1, len(content))}
        manifest["digest"] = snapshot_digest(manifest["spec_digest"], _identities(manifest))
        (path.parents[1] / "manifest.json").write_text(json.dumps(manifest))
    elif kind == "checkpoint":
        path.rename(path.with_name(f"{path.name.rpartition('.')[0]}.{_digest(path)}"))
    elif path.name == "weights.safetensors":
        model = json.loads((path.parent / "model.json").read_text())
        model["weights_sha256"] = hashlib.sha256(content).hexdigest()
        (path.parent / "model.json").write_text(json.dumps(model))
    elif path.name == "manifest.json" and isinstance(document, dict):
        try:
            document["digest"] = snapshot_digest(document["spec_digest"], _identities(document))
        except (KeyError, TypeError, AttributeError):
            return
        path.write_text(json.dumps(document))


def _identities(manifest: dict[str, Any]) -> list[str]:
    return [file.get("rows_sha256") or file["sha256"] for file in manifest["files"]]


def attempt(first: int, last: int, seed: int, good: str, log: str) -> None:
    """Cases ``first .. last`` in this process; a line in ``log`` before and after each."""
    said = open(log, "a", buffering=1)  # noqa: SIM115
    work = Path(tempfile.mkdtemp(prefix="fieldwise-fuzz-"))
    inside = [str(work), log, sys.prefix, sys.base_prefix, str(ROOT), "/proc", "/sys", "/dev", "/usr/share/zoneinfo"]
    strays: list[str] = []

    def watch(event: str, details: Any) -> None:
        if event == "open" and isinstance(details[0], str | bytes):
            name = os.path.abspath(os.fsdecode(details[0]))
            if not name.startswith(tuple(inside)):
                strays.append(f"open {name}")
        elif event in ("os.system", "subprocess.Popen", "os.exec", "socket.connect", "pickle.find_class"):
            strays.append(f"{event} {details[0]}")

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError("no end")

    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, give_up)
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for case in range(first, last):
        rng = random.Random(f"{seed}-{case}")
        kind = rng.choice(KINDS)
        place = work / kind
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(Path(good) / kind, place)
        name = mutate(kind, place, rng)
        said.write(json.dumps([case, kind, name]) + "\n")
        strays.clear()
        finding = None
        signal.alarm(SECONDS)
        try:
            load(kind, place)
            outcome = "loaded"
        except FieldwiseError as error:
            outcome = "refused"
            if not error.where or not error.fix:
                finding = f"no place or advice: {error}"
        except Exception as error:
            at = traceback.extract_tb(error.__traceback__)
            ours = [
                f"{Path(frame.filename).name}:{frame.lineno}"
                for frame in at
                if str(ROOT) in frame.filename and ".venv" not in frame.filename
            ]
            outcome, finding = "crashed", f"{type(error).__name__} at {ours[-1] if ours else '?'}: {str(error)[:120]}"
        finally:
            signal.alarm(0)
        if strays:
            finding = f"strayed: {strays[0]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        said.write(json.dumps([case, kind, name, outcome, finding, peak]) + "\n")
    shutil.rmtree(work, ignore_errors=True)


def fuzz(cases: int, seed: int = 1, first: int = 0) -> dict[str, Any]:
    """Run the cases in child processes, a new one behind each crash of the interpreter."""
    for each in ENTRIES:
        each.load()  # else a case would open files of the cache of kernels
    outcomes: collections.Counter[str] = collections.Counter()
    findings: list[str] = []
    at, end, most = first, first + cases, 0
    with tempfile.TemporaryDirectory(prefix="fieldwise-good-") as folder:
        artifacts(Path(folder))
        _read_data(Path(folder, "data"))  # numba keeps compiled code as pickles: loaded now, not while we watch
        while at < end:
            log = Path(folder, f"log-{at}")
            log.touch()
            child = multiprocessing.get_context("fork").Process(target=attempt, args=(at, end, seed, folder, str(log)))
            child.start()
            size, since = 0, time.monotonic()
            while child.is_alive():
                child.join(0.1)
                if log.stat().st_size != size:
                    size, since = log.stat().st_size, time.monotonic()
                elif time.monotonic() - since > 3 * SECONDS:
                    child.kill()
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            for case, kind, name, outcome, finding, peak in (line for line in lines if len(line) == 6):
                most = max(most, peak)
                outcomes[f"{kind} {outcome}"] += 1
                findings += [f"case {case} {kind} {name}: {finding}"] if finding else []
            if not lines:
                raise RuntimeError(f"no case was run, exit {child.exitcode}")
            at = lines[-1][0] + 1
            if len(lines[-1]) == 3:
                findings.append(f"case {' '.join(map(str, lines[-1]))}: the interpreter died, exit {child.exitcode}")
    return {"cases": cases, "outcomes": dict(sorted(outcomes.items())), "peak_mb": most, "findings": findings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args()
    started = time.monotonic()
    found = fuzz(options.cases, options.seed, options.first)
    for finding in found["findings"]:
        print(finding, file=sys.stderr)
    record("fuzz_loaders", {**found, "seconds": round(time.monotonic() - started, 1)})


if __name__ == "__main__":
    main()
