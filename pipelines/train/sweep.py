"""Random search of training settings: every trial a nested run, each kind's best chosen on valid alone."""

from __future__ import annotations

import math
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError, ConfigError, DivergedError
from fieldwise.features.report.chart import parallel
from fieldwise.features.snapshot.manifest import snapshot_dir
from fieldwise.features.store.kept import digest_of, read_record, write_record
from fieldwise.features.terminal import printable, say
from fieldwise.pipelines.agreement import say_changes
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.train import open_days
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.splits import TrainData
from fieldwise.training.loop import search
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import train
from fieldwise.training.models import AUTO, FAMILY, resolved
from fieldwise.training.ranks.world import World, join_world
from fieldwise.training.tracking import runs

Result = dict[str, Any]
USUAL_EPOCHS = 10
"""A training's epochs in the estimate of time."""
LOGARITHMIC = ("learning_rate", "l2", "dim", "init_scale")
FIXED = ("training.epochs", "training.patience")
"""Part of a trial's settings, but the same in all trials."""


@dataclass(frozen=True)
class Trial:
    """Settings to train; what was found is kept under a digest of settings and data."""

    kind: str
    number: int
    model: ModelConfig
    training: TrainingConfig
    snapshots: dict[str, str]

    @cached_property
    def file(self) -> str:
        """Name of its result: other data or other settings are another trial."""
        what = [self.model.model_dump(), self.training.digested(), self.snapshots]
        return f"{self.kind}-{self.number:04d}-{digest_of(what)[:12]}.json"

    @property
    def drawn(self) -> dict[str, Any]:
        """What the search chose, by config key."""
        names = ("optimizer", "learning_rate", "l2", "epochs", "patience")
        latent = self.model.model_dump(include={"dim", "init_scale"}, exclude_none=True)
        return {f"training.{n}": getattr(self.training, n) for n in names} | {
            f"model.{n}": v for n, v in latent.items()
        }


def sweep(
    config: Config, *, trials: int = 32, seed: int = 1, kinds: Sequence[str] = (), name: str | None = None
) -> dict[str, Any]:
    """Train ``trials`` draws of every kind on the workspace's snapshot ``all`` and choose each kind's best on valid.

    Args:
        kinds: default: the config's own.
        name: of the sweep, default ``seed-<seed>``. A sweep of the same name goes on with the trials it lacks.

    Returns the chosen settings of every kind with valid and test logloss; tables and plots lie in ``dir`` and in the
    parent run.
    """
    started = time.perf_counter()
    kinds, name = list(kinds) or [config.model.kind], name or f"seed-{seed}"
    if trials < 1:
        raise ConfigError("--trials", expected="at least 1", found=str(trials), fix="Leave it out for 32.")
    if not re.fullmatch(r"\w[\w .-]*", name) or len(name.encode()) > 200:
        fix = "Name it with letters, digits, blanks, - _ and dots, 200 bytes at most."
        raise ConfigError("--name", expected="a name, which is a folder's, too", found=repr(name), fix=fix)
    if AUTO in kinds:
        fix = f"Name them: --kinds {','.join(FAMILY)}."
        raise ConfigError("--kinds", expected="models, each of which is searched", found=AUTO, fix=fix)
    for kind in kinds:
        resolved(ModelConfig(kind=kind))  # refuses unknown kinds before any training
    data = open_days(config, Days())
    say_changes(config, [snapshot_dir(config.workspace_dir, "all")])
    data.valid.require_both_classes()
    runs.connect(config.tracking.uri, config.workspace_dir)
    runs.experiment_id(config.experiment, config.workspace_dir)  # what it refuses, it refuses before any work
    folder = store.join(config.workspace_dir, "sweeps", name)
    store.make_dir(folder)
    draws = {kind: [_draw(kind, seed, number, config, data) for number in range(trials)] for kind in kinds}
    with join_world(config.training.timeout_seconds) as world:
        found = _read(folder, [trial for of_kind in draws.values() for trial in of_kind])
        _say_budget(name, draws, found, data, world)
        with _parent(config, name, folder) as parent:
            parent.tags({"sweep": name, "seed": str(seed), "trials": str(trials), "kinds": ",".join(kinds)})
            chosen = {}
            for kind, of_kind in draws.items():
                for trial in of_kind:
                    if trial.file not in found:
                        found[trial.file] = _run(trial, config, data, world)
                        write_record(store.join(folder, trial.file), found[trial.file])
                        _say_trial(trial, of_kind, found)
                chosen[kind] = _conclude(of_kind, found, folder, parent)
    return {
        "sweep": name, "dir": folder, "run": parent.id, "seed": seed, "trials": trials, "chosen": chosen,
        "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip


def _draw(kind: str, seed: int, number: int, config: Config, data: TrainData) -> Trial:
    own = config.model.model_extra or {} if kind == config.model.kind else {}
    return Trial(kind, number, *search.draw(kind, seed, number, config.training, own), data.snapshots)


def _read(folder: str, trials: Sequence[Trial]) -> dict[str, Result]:
    """Results by trial file, of the trials that were finished before."""
    fix = "Remove the file: the trial is trained again."
    found = {}
    for trial in trials:
        place = store.join(folder, trial.file)
        result = read_record(place, "the result of a trial", fix)
        if result is not None and not _is_whole(trial, result):
            raise ArtifactError(place, expected="the result of a trial", found="one that lacks a part", fix=fix)
        found[trial.file] = result
    return {name: result for name, result in found.items() if result is not None}


def _is_whole(trial: Trial, result: Result) -> bool:
    """Whether all that is told of a result is in it, which records without a seal do not prove."""
    trained = {"test", "epochs"} if result.get("valid") is not None else set()
    return {"number", "valid", "seconds", *trial.drawn, *trained} <= result.keys()


@contextmanager
def _parent(config: Config, name: str, folder: str) -> Iterator[runs.Run]:
    """The sweep's own run: that of an earlier call, where the folder names one."""
    note = store.join(folder, "run")
    earlier = store.read_bytes(note).decode("utf-8", "replace") if store.exists(note) else None
    experiment = config.experiment
    with runs.run(experiment, f"sweep {name}", config.workspace_dir, resume=earlier) as run:
        store.write_atomic(note, run.id.encode())
        yield run


def _run(trial: Trial, config: Config, data: TrainData, world: World) -> Result:
    """Train one trial as a child run. A trial that diverges has no logloss and is no error."""
    experiment = config.experiment
    started = time.perf_counter()
    with (
        runs.run(experiment, f"{trial.kind} {trial.number}", config.workspace_dir) as run,
        tempfile.TemporaryDirectory(prefix="fieldwise-sweep-") as place,
    ):
        result: Result = {"kind": trial.kind, "number": trial.number, "run": run.id, **trial.drawn}
        run.tags({"kind": trial.kind, "trial": str(trial.number)})
        try:
            task = TrainRun(data, trial.model, trial.training, f"{place}/bundle", tracker=run, silent=True)
            trained = train(task, world)
        except DivergedError as error:
            run.tags({"diverged": str(error)})
            return result | {"valid": None, "seconds": time.perf_counter() - started}
    measured = {role: found.values for role, found in trained.evaluations.items()}
    return result | {
        **{role: measured.get(role, {}).get("logloss") for role in ("valid", "test")},
        **{f"{role}_se": measured.get(role, {}).get("logloss_se") for role in ("valid", "test")},
        "epochs": trained.best_epoch + 1,
        "seconds": time.perf_counter() - started,
    }


def _seconds_per_trial(trial: Trial, data: TrainData, world: World) -> float:
    """Of a usual training of this kind: the second of two epochs (the first compiles), times what is usual."""
    two = trial.training.model_copy(update={"epochs": 2, "patience": None})
    with tempfile.TemporaryDirectory(prefix="fieldwise-sweep-") as place:
        history = train(TrainRun(data, trial.model, two, f"{place}/bundle"), world).history
    return USUAL_EPOCHS * history[-1].seconds


def _say_budget(
    name: str, draws: dict[str, list[Trial]], found: dict[str, Result], data: TrainData, world: World
) -> None:
    missing = {kind: [trial for trial in trials if trial.file not in found] for kind, trials in draws.items()}
    seconds = sum(len(trials) * _seconds_per_trial(trials[0], data, world) for trials in missing.values() if trials)
    total, left = (sum(map(len, parts.values())) for parts in (draws, missing))
    kinds = ", ".join(f"{len(trials)} {kind}" for kind, trials in draws.items())
    say(
        f"sweep {name}: {total} trainings ({kinds}), {left} to do, each of at most {search.EPOCHS} epochs of "
        f"{data.train.rows:,} rows, evaluated on {data.valid.rows:,}. "
        f"About {max(1, round(seconds / 60))} min at {USUAL_EPOCHS} epochs each."
    )


def _say_trial(trial: Trial, trials: Sequence[Trial], found: dict[str, Result]) -> None:
    result = found[trial.file]
    scored = _ranked(trials, found)
    shown = "diverged" if result["valid"] is None else f"{_logloss(result, 'valid')} after {result['epochs']} epochs"
    best = f", best {scored[0]['valid']:.5f} (trial {scored[0]['number']})" if scored else ""
    say(f"{trial.kind} {trial.number + 1}/{len(trials)}: {shown}, {result['seconds']:.1f} s{best}")


def _logloss(result: Result, role: str) -> str:
    """For people; results of sweeps that were begun before know no errors."""
    error = result.get(f"{role}_se")
    return f"{role} {result[role]:.5f}" + ("" if error is None else f" +- {error:.5f}")


def _ranked(trials: Sequence[Trial], found: dict[str, Result]) -> list[Result]:
    """Results of the finished trials that did not diverge, lowest validation logloss first."""
    scored = [found[trial.file] for trial in trials if found.get(trial.file, {}).get("valid") is not None]
    return sorted(scored, key=lambda result: (result["valid"], result["number"]))


def _conclude(trials: Sequence[Trial], found: dict[str, Result], folder: str, parent: runs.Run) -> dict[str, Any]:
    """Table, plot and the chosen trial of one kind. Only the chosen one's test logloss is shown."""
    kind, ranked = trials[0].kind, _ranked(trials, found)
    if not ranked:
        raise DivergedError(
            f"sweep of {kind}", expected="a trial with a finite loss", found=f"{len(trials)} diverged",
            fix="Look at the rows' weights.",
        )  # fmt: skip
    best = ranked[0]
    names = list(trials[0].drawn)
    columns = {name.split(".")[1]: [result[name] for result in ranked] for name in names if name not in FIXED}
    columns |= {key: [result[key] for result in ranked] for key in ("epochs", "valid")}
    picture = parallel(f"Trials of {kind}", columns, "valid", [name for name in columns if name in LOGARITHMIC]).alone()
    errors = [result.get("valid_se") or math.nan for result in ranked]
    table = _table({"trial": [result["number"] for result in ranked], **columns, "valid_se": errors})
    chosen = {name: best[name] for name in names}
    test = "" if best["test"] is None else f", {_logloss(best, 'test')}"
    keys = " ".join(f"--set {name}={value}" for name, value in {"model.kind": kind, **chosen}.items())
    chosen_one = f"chosen: {kind} trial {best['number']}, {_logloss(best, 'valid')}{test}"
    say("", *table.splitlines(), "", chosen_one, f"  fieldwise train {keys}")
    store.write_atomic(store.join(folder, f"{kind}.svg"), picture.encode())
    store.write_atomic(store.join(folder, f"{kind}.txt"), table.encode())
    parent.text(picture, f"{kind}.svg")
    parent.text(table, f"{kind}.txt")
    parts = [(role, error) for role in ("valid", "test") for error in ("", "_se")]
    losses = {role + error: best.get(role + error) for role, error in parts}
    known = {f"{kind}_{role}_logloss{error}": losses[role + error] for role, error in parts}
    parent.metrics({name: loss for name, loss in known.items() if loss is not None})
    return {"trial": best["number"], **losses, "set": chosen, "diverged": len(trials) - len(ranked)}


def _table(columns: dict[str, list[Any]]) -> str:
    """Columns as aligned text."""
    cells = [
        [name, *(f"{v:.5g}" if isinstance(v, float) else printable(str(v)) for v in values)]
        for name, values in columns.items()
    ]
    widths = [max(map(len, column)) for column in cells]
    rows = zip(*cells, strict=True)
    return "".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + "\n" for row in rows)
