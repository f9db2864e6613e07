"""Settings that the data chooses: a short walk from the model's priors, each step a training that early stopping ends.

What a config leaves open of learning rate, l2 and dim is moved, one setting at a time, by a factor, and again while the
validation logloss falls: pattern search (Hooke and Jeeves 1961). It starts from what `training.models.defaults` would
settle. Large data are sampled, and the search has two rounds: in the second, on a larger sample, what was found is
compared with the priors again, then moved by the factors' roots.

The budget is counted in rows that pass through training, never in seconds, so the same input gives the same settings:
``PASSES`` times the training rows and what ``NUMBERS`` buys, seconds on any machine. A Gaussian prior does not depend
on how many rows there are, so l2 = precision / rows is carried over from sample to all rows as that precision. A trial
that gains next to nothing, or that is behind the best one and falls too slowly to come first, is given up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from fieldwise.features.errors import DivergedError
from fieldwise.features.terminal import say
from fieldwise.training.config import ModelConfig, TrainingConfig
from fieldwise.training.data.batch import layout_of
from fieldwise.training.data.cache import Seen, copies_of
from fieldwise.training.data.splits import TrainData
from fieldwise.training.evaluation.clustered import ClusteredLoss, surely_lower
from fieldwise.training.loop.run import TrainRun
from fieldwise.training.loop.trainer import Trainer
from fieldwise.training.loop.trials import Kept, Point, Trial
from fieldwise.training.models import MODELS, resolved
from fieldwise.training.models.base import build_model
from fieldwise.training.models.defaults import Chosen, settle
from fieldwise.training.models.layout import slot_pairs
from fieldwise.training.ranks.world import StopSignal, World

PASSES = 3
"""Through all training rows; a training itself takes about as many and more."""
NUMBERS = 1.2e10
"""Numbers of table rows that the search may touch beside: about ten seconds of one core."""
SAMPLES = (1 / 160, 1 / 40)
"""Of the budget, by round: for half of it some ten trials, then some four of a larger sample."""
FIRST_SHARE = 0.5
"""Of the budget that the first round may spend where another sample follows."""
MOST_EPOCHS = 30
"""Of a trial."""
PATIENCE = 2
"""Epochs in which a trial must fall by ``BETTER``, or it ends."""
LONGEST = 100
"""Epochs of a training whose config names none: patience ends it while time is well spent."""
LEAST_ROWS = 20_000
"""Of a sample."""
LEAST_POSITIVES = 2_000
"""Rows of the rarer class in it, where there are as many."""
FEWEST = 100
"""Rows of the rarer class without which there is no search."""
WIDER = 2e-3
"""Share by which it must be lower for a larger dim, which makes the model larger and slower."""
MOST_NUMBERS = 1 << 27
"""Of a table that a larger dim may make: memory is the machine's, and the choice must not be."""
BESIDE = 60
"""What a column of a row takes beside its numbers, in these."""
SURE = 0.05
"""The same of what is chosen against the priors, which are right more often than not."""
FACTORS = {"learning_rate": 3.0, "l2": 4.0, "dim": 2.0}
"""By which a setting is moved at first."""
MOST_DIM = 4
"""Times the dim that the model has by default."""
BETTER, CHANCE = 2e-4, 0.02
"""Share by which a logloss must be lower to be a step on, and that times the root of the validation rows of the rarer
class: less is chance."""


def open_keys(model: ModelConfig, training: TrainingConfig) -> list[str]:
    """What a search may move: keys that the config leaves out."""
    wanted = {
        "learning_rate": training.learning_rate is None,
        "dim": MODELS[model.kind].latent and model.dim is None,
        "l2": training.l2 is None,  # last: it depends on both
    }
    return [name for name, is_open in wanted.items() if is_open]


class Search:
    """Of the settings of one training, on all of its ranks.

    Args:
        data: what trials train and validate on, before it is sampled.
    """

    def __init__(self, run: TrainRun, data: TrainData, world: World, stop: StopSignal | None = None) -> None:
        self.run, self.world, self.stop = run, world, stop
        self.kept = Kept(run)
        known = world.share(self.kept.read() if world.first else None)
        self.known = {(trial.sample, trial.point, trial.free): trial for trial in known}
        self.done: dict[tuple[int, Point, bool], Trial] = {}
        self.work = numbers(run.data, run.model)
        self.budget = budget(run)
        self.left: float = self.budget
        self.samples = [sampled(data, math.ceil(share * self.budget)) for share in SAMPLES]
        self.data = self.samples[0]
        valid = self.samples[-1].valid
        self.fewest = min(valid.positives, valid.rows - valid.positives)
        self.better = max(BETTER, CHANCE / math.sqrt(self.fewest))
        self.seen = Seen(
            verify=run.training.verify_checksums, room=run.training.cache_mb * 10**6, reader=run.training.reader,
            copies=copies_of(run.training),
        )  # fmt: skip

    def choose(self) -> Chosen:
        """Walk from the priors to better settings."""
        names, start = open_keys(self.run.model, self.run.training), Point(dim=resolved(self.run.model).dim)
        best = None
        if "learning_rate" in names:  # first, since priors that are slow can then be given up
            best = self._trial(start.moved("learning_rate", FACTORS["learning_rate"]))
        priors = self._trial(start, best)
        best = priors if best is None else min(priors, best, key=lambda trial: trial.valid)
        larger = self.samples[1].train.rows > self.data.train.rows
        for name in names * 2:
            best = self._along(best, name, FACTORS[name], reserve=self.budget * (1 - FIRST_SHARE) * larger)
        if larger:
            self.data = self.samples[1]
            best = self._trial(best.point)
            priors = self._trial(priors.point, best)
            best = self._surely(best, priors)
        for name in names:
            best = self._along(best, name, FACTORS[name] if name == "dim" else FACTORS[name] ** 0.5)
        if best.point != start and self.left > MOST_EPOCHS * self._each:
            priors = self._trial(start)  # slow ones may come first in the end
        return self._chosen(self._surely(best, priors), priors)

    def _surely(self, best: Trial, priors: Trial) -> Trial:
        """The priors, unless the other is better beyond doubt."""
        lower = best.valid < priors.valid * (1 - max(BETTER, SURE / math.sqrt(self.fewest)))
        return best if lower and (not priors.blocks or surely_lower(best.blocks, priors.blocks)) else priors

    def _along(self, best: Trial, name: str, factor: float, reserve: float = 0) -> Trial:
        """Move one setting up while that helps; else down."""
        for step in (factor, 1 / factor):
            start = best
            while self.left > reserve:
                point = best.point.moved(name, step)
                if point == best.point or (name == "dim" and step > 1 and self._too_wide(point)):
                    break
                trial = self._trial(point, best)
                if not trial.valid < best.valid * (1 - self._worth(point, best.point)):
                    break
                best = trial
            if best is not start:
                break
        return best

    def _trial(self, point: Point, best: Trial | None = None) -> Trial:
        key = (self.data.train.rows, point, best is None)
        for earlier in ((*key[:2], True), key):  # one that went on to its end says as much as one that was given up
            if earlier in self.done:
                return self.done[earlier]
        trial = self.known.get(key) or self._train(point, best)
        self.done[key] = trial
        self.left -= trial.rows * numbers(self.data, self.settings(point, self.data)[0]) / self.work
        if self.world.first:
            self.kept.write(list(self.done.values()))
            self._tell(trial)
        return trial

    @property
    def _each(self) -> int:
        """Training rows that take as long as an epoch with its validation."""
        return self.data.train.rows + self.data.valid.rows // 2

    def _train(self, point: Point, best: Trial | None) -> Trial:
        """Until early stopping, or until it is clear that it will not come first."""
        model, training = self.settings(point, self.data)
        trainer = Trainer(TrainRun(self.data, model, training, bundle_dir=""), self.world, self.stop, self.seen)
        each = self._each
        goal, ahead = (math.inf, ()) if best is None else (best.valid, best.losses)
        losses: list[float] = []
        clustered = ClusteredLoss(self.data.spec)
        blocks: tuple[Any, ...] = ()
        trainer.observers.append(clustered.add)
        try:
            with closing(trainer.epochs()) as epochs:
                for now in epochs:
                    losses.append(now.history[-1].valid["logloss"])
                    taken, lowest = tuple(clustered.take(self.world)), min(losses)
                    blocks = taken if losses.index(lowest) == len(losses) - 1 else blocks
                    slow = len(losses) > 2 and min(losses[:-2]) - lowest < BETTER * lowest
                    behind = lowest > min(ahead[: len(losses)], default=math.inf)
                    if slow or (behind and lowest - hope(losses, training.epochs - now.epoch) > goal):
                        break
        except DivergedError:
            return Trial(self.data.train.rows, point, (), each * (1 + len(losses)), best is None)
        return Trial(self.data.train.rows, point, tuple(losses), each * len(losses), best is None, blocks)

    def settings(self, point: Point, data: TrainData) -> tuple[ModelConfig, TrainingConfig]:
        """Model and training at a point, for so many rows."""
        given = self.run.training
        share = data.train.rows / self.run.data.train.rows
        config = given if given.l2 is None else given.model_copy(update={"l2": given.l2 / share})
        settled = settle(config, self.run.model.kind, data.train.rows, data.train.positives)
        assert settled.learning_rate is not None
        assert settled.l2 is not None
        update: dict[str, Any] = {
            "learning_rate": settled.learning_rate * point.learning_rate,
            "l2": settled.l2 * point.l2,
        }
        if data is not self.run.data:
            update |= {"epochs": min(MOST_EPOCHS, given.epochs), "patience": PATIENCE}
            update |= {"warmup_steps": int(given.warmup_steps * share)}
        model = self.run.model.model_copy(update={"dim": point.dim}) if point.dim else self.run.model
        return model, settled.model_copy(update=update)

    def _worth(self, point: Point, before: Point) -> float:
        """Share by which the logloss must be lower for a point to be better than the one before."""
        return max(self.better, WIDER) if point.dim > before.dim else self.better

    def _too_wide(self, point: Point) -> bool:
        network = build_model(resolved(self.settings(point, self.data)[0]), layout_of(self.data.spec))
        return point.dim > MOST_DIM * network.kind.default_dim or network.rows * network.width > MOST_NUMBERS

    def _chosen(self, best: Trial, first: Trial) -> Chosen:
        if self.world.first:
            why = "the model's priors, which no other is surely better than" if best.point == first.point else "chosen"
            say(f"settings: {self._words(best.point)}: {why}")
        _, training = self.settings(best.point, self.run.data)
        assert training.learning_rate is not None
        assert training.l2 is not None
        return Chosen(
            optimizer=training.optimizer,
            learning_rate=float(f"{training.learning_rate:.4g}"),
            l2=float(f"{training.l2:.4g}"),
            dim=best.point.dim,
            rows=self.run.data.train.rows,
            epochs=best.epochs,
            trials=len(self.done),
            valid=best.valid,
            prior_valid=first.valid if math.isfinite(first.valid) else None,
        )

    def _words(self, point: Point) -> str:
        model, training = self.settings(point, self.run.data)
        words = f"learning_rate {training.learning_rate:.4g}, l2 {training.l2:.3g}"
        return words + (f", dim {model.dim}" if point.dim else "")

    def _tell(self, trial: Trial) -> None:
        _, training = self.settings(trial.point, self.run.data)
        words = self._words(trial.point)
        found = f"valid {trial.valid:.5f} after {trial.epochs} epochs" if trial.epochs else "diverged"
        among = ""
        if trial.epochs and all(trial.valid <= one.valid for one in self.done.values() if one.sample == trial.sample):
            whole = self.data.train.rows == self.run.data.train.rows
            among = ", lowest" if whole else f", lowest on {self.data.train.rows:,} rows"
        say(f"settings {len(self.done)}: {words}: {found}{among}")
        if self.run.tracker is not None:
            values = {"valid_logloss": trial.valid, "learning_rate": training.learning_rate, "l2": training.l2}
            known = {f"settings_{name}": v for name, v in values.items() if v is not None and math.isfinite(v)}
            self.run.tracker.metrics(known | {"settings_dim": float(trial.point.dim)}, len(self.done))


def automatic(run: TrainRun, world: World) -> TrainRun:
    """The training with what its config leaves open chosen: by a search, or as the model that it goes on from has it.

    A config that says ``auto: false``, or leaves nothing open, is left as it is; so is one whose validation rows are
    too few to choose by, which is said. A search that was killed goes on from ``run.checkpoint_dir``.
    """
    training = run.training
    if not training.auto:
        return run
    if run.warm_start is not None:
        return run if run.warm_start.chosen is None else _filled(run, run.warm_start.chosen)
    if training.patience is not None and training.schedule == "constant" and "epochs" not in training.model_fields_set:
        run = replace(run, training=training.model_copy(update={"epochs": LONGEST}))
    names = open_keys(run.model, training)
    if not names:
        return run
    data = run.data
    if not data.valid.files:
        train, valid = data.train.held_out()
        data = replace(data, train=train, valid=valid)
    fewest = min(min(split.positives, split.rows - split.positives) for split in (data.train, data.valid))
    if fewest < FEWEST:
        if world.first:
            say(f"settings: the model's priors, for {fewest} rows of a class are too few to choose {_named(names)} by")
        return run
    with StopSignal() as stop:
        search = Search(run, data, world, stop)
        if world.first:
            rows, sizes = run.data.train.rows, [sample.train.rows for sample in search.samples]
            of = f"all {rows:,}" if sizes[0] == rows else f"{sizes[0]:,}, then {sizes[1]:,} of {rows:,}"
            share = search.budget / rows
            say(
                f"settings: choosing {_named(names)} by trainings on {of} rows, at most {share:,.1f} epochs of them all"
            )
        chosen = search.choose()
    return _filled(run, chosen)


def fall(losses: Sequence[float]) -> float:
    """By which a loss fell in its last epoch."""
    return losses[-2] - losses[-1] if len(losses) > 1 else math.inf


def hope(losses: Sequence[float], left: int) -> float:
    """By how much a loss may still fall, and hardly more: as it last did in every epoch that is ``left``, or twice what
    a geometric series of its last two steps comes to."""
    last, before = fall(losses), fall(losses[:-1])
    ratio = last / before if 0 < last < before < math.inf else 1.0
    return max(0.0, min(last * left, math.inf if ratio == 1 else 2 * last * ratio / (1 - ratio)))


def _filled(run: TrainRun, chosen: Chosen) -> TrainRun:
    model, training = chosen.fill(run.model, run.training, run.line or run.data.train.rows)
    if run.warm_start is None and training.patience is None and "epochs" not in training.model_fields_set:
        training = training.model_copy(update={"epochs": max(1, chosen.epochs)})
    return replace(run, model=model, training=training, chosen=chosen)


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


def numbers(data: TrainData, config: ModelConfig) -> int:
    """That a training row touches, about, or what takes as long."""
    layout = layout_of(data.spec)
    model = build_model(resolved(config), layout)
    columns = layout.slots + (len(slot_pairs(layout)[0]) if model.kind.paired else 0)
    return columns * (model.width + BESIDE)


def budget(run: TrainRun) -> int:
    """Training rows that may pass through all trials together; of a larger dim, fewer."""
    return PASSES * run.data.train.rows + int(NUMBERS / numbers(run.data, run.model))


def sampled(data: TrainData, rows: int) -> TrainData:
    """So many training rows and half as many to validate, with enough of the rarer class to tell settings apart."""
    parts = {}
    for role, wanted in (("train", rows), ("valid", rows // 2)):
        split = getattr(data, role)
        fewest = min(split.positives, split.rows - split.positives)
        parts[role] = split.sample(max(wanted, LEAST_ROWS, math.ceil(LEAST_POSITIVES * split.rows / fewest)))
    return replace(data, **parts)
