"""The training loop: plan -> reader -> lookup -> exchange -> model -> loss -> optimizer, epoch after epoch.

Every rank runs this file. Ranks of one host have one table together; otherwise every rank has a replica, which starts
like the others, sees the same summed gradients and so stays alike; each epoch ends with a proof of that (see
``training.loop.proofs``).
"""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fieldwise.features.errors import DivergedError
from fieldwise.features.interrupt import Interrupted, hurrying
from fieldwise.features.terminal import BarStream, bars, say, warn
from fieldwise.training.data.batches import Passes, Work
from fieldwise.training.data.cache import Seen, copies_of
from fieldwise.training.data.plan import Plan
from fieldwise.training.data.reader import PlanReader
from fieldwise.training.evaluation.calibrate import fit_calibrator
from fieldwise.training.evaluation.evaluate import Observer, collect, evaluate, measure, scan
from fieldwise.training.loop.checkpoint import Checkpoints, read_into
from fieldwise.training.loop.progress import EpochRecord, Progress
from fieldwise.training.loop.proofs import (
    SLOW_SECONDS,
    diverged,
    require_all_rows,
    require_equal_replicas,
    warn_of_straggler,
)
from fieldwise.training.loop.run import TrainResult, TrainRun
from fieldwise.training.loop.schedule import rate_at, require_parts, require_schedule
from fieldwise.training.models.defaults import settle
from fieldwise.training.network.bundle import save_bundle
from fieldwise.training.network.calibration import Isotonic, Platt
from fieldwise.training.network.network import Network
from fieldwise.training.ranks.shared import SharedMemory
from fieldwise.training.ranks.world import StopSignal, World
from fieldwise.training.step.dense import DenseOptimizer
from fieldwise.training.step.exchange import Exchange
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import can_be_direct
from fieldwise.training.step.optim import RowOptimizer, build_optimizer
from fieldwise.training.step.plain import PlainStep, reseed

_STOP, _SAVE = 1, 2  # signals a rank sends along with a step


SAVING_SHARE = 20.0
"""Between checkpoints by time lies at least so many times what the last one took: saving takes 5 % at most."""


def train(run: TrainRun, world: World) -> TrainResult:
    """Train until early stopping or the last epoch, keep the best weights, save them as a bundle, evaluate all splits.

    On SIGTERM or Ctrl-C a checkpoint is written after the step at hand, then `Interrupted` is raised.

    Raises:
        InputError: an empty split, or one whose labels are all equal.
        ArtifactError, ConfigError: a warm start or checkpoint of another spec, model or run; settings without effect.
        IntegrityError: rows lost or damaged, replicas apart, a loss that is not finite, a rank that does not answer.
    """
    with StopSignal() as stop:
        return Trainer(run, world, stop).train()


class Trainer:
    """One rank's share of a training run."""

    def __init__(self, run: TrainRun, world: World, stop: StopSignal | None = None, seen: Seen | None = None) -> None:
        self.task, self.world, self.config, self.data = run, world, run.training, run.data
        self.stop = stop or StopSignal()
        self.data.require_both_classes(valid=run.validates)
        world.use_threads(self.config.threads)
        self.network = Network.configured(
            self.data.spec, run.model, seed=self.config.seed, fused=self.config.fused, device=world.device,
            shared=SharedMemory.of(world), dtype=getattr(torch, self.config.table),
        )  # fmt: skip
        self.config = settle(self.config, run.model.kind, self.data.train.rows, self.data.train.positives, run.line)
        require_schedule(self.config, self._plan(0).steps * self.config.epochs)
        require_parts(self.config, self.network.model.compiled_on(world.device))
        self.logit_shift = math.log(self.data.train.negative_rate or 1.0)
        if run.warm_start is None:
            self.network.start_at(self.data.train.base_rate(world))
        else:
            self.network.warm_start(run.warm_start, self.logit_shift)
        model, table = self.network.model, self.network.table
        self.optimizer = build_optimizer(self.config.optimizer, table, l1=self.config.l1)
        rate = self.config.learning_rate
        assert rate is not None
        share = (self.config.dense_learning_rate or rate) / rate
        self.dense_optimizer = DenseOptimizer(self.config.optimizer, model, share=share, l2=self.config.dense_l2)
        rows = -(-self.config.streams // world.size) * self.config.batch_size // self.config.streams
        self.exchange = Exchange(world, table.rows, table.shared, rows)
        fused = FusedStep.serves(model, world.device, world.size)
        self.step: FusedStep | PlainStep = (
            FusedStep(model, table, self.optimizer, self.exchange) if fused
            else PlainStep(model, table, self.optimizer, self.exchange, accumulate=self.config.accumulate)
        )  # fmt: skip
        if fused and world.size == 1:
            self.network.lookup.direct = can_be_direct(
                model.layout, model.width, model.pair_buckets, self.config.batch_size, torch.get_num_threads()
            )
        verify, room, reader = self.config.verify_checksums, self.config.cache_mb * 10**6, self.config.reader
        self.seen = seen or Seen(verify=verify, room=room, reader=reader, copies=copies_of(self.config))
        self.observers: list[Observer] = []
        """Of the validation rows of every epoch."""
        self.warned_at = -math.inf if run.bundle_dir else math.inf  # trials are too short to say who is slow
        self.progress = Progress()
        self.best: dict[str, Tensor] | None = None
        self.checkpoints = None
        if run.checkpoint_dir is not None:
            self.checkpoints = Checkpoints(run.checkpoint_dir, run.request, self.config.checkpoint.keep)
            self._resume(self.checkpoints)
        self.saved_at, self.saving = time.monotonic(), 0.0

    def train(self) -> TrainResult:
        if self.task.tracker is not None and not self.progress.history:
            self.task.tracker.params(
                {"model": self.task.model.model_dump(), "training": self.config.model_dump(), "ranks": self.world.size}
            )
        try:
            for _ in self.epochs():
                pass
        except DivergedError as error:
            fix = f"{error.fix} {self._keep_last_good()}"
            raise DivergedError(error.where, expected=error.expected, found=error.found, fix=fix) from error
        return self._conclude()

    def epochs(self) -> Generator[Progress, None, None]:
        """Train until early stopping or the last epoch; where training stands after each epoch."""
        patience = self.config.patience or self.config.epochs
        readers = self._readers(self.progress.epoch, self.progress.step)
        with self.network.passes(readers, self.seen) as works, self.stop.remembered():
            while self.progress.epoch < self.config.epochs and self.progress.waited() < patience:
                plan = self._plan(self.progress.epoch)
                self._end_epoch(plan, self._train_epoch(plan, works), works)
                yield self.progress

    def _readers(self, epoch: int, step: int) -> Iterator[list[PlanReader]]:
        """From a step on, of every epoch that may come: its training rows, then the validation rows."""
        files, names = self.data.train.files, self.data.spec.slot_names
        while epoch < self.config.epochs:
            plan = self._plan(epoch)
            streams = plan.streams_of(self.world.rank, self.world.size)
            readers = [PlanReader(files, plan, streams, names, start_step=step)]
            if self.data.valid.files:
                readers.append(scan(self.data.valid, self.data.spec, self.world, streams=plan.streams))
            yield readers
            epoch, step = epoch + 1, 0

    def _plan(self, epoch: int) -> Plan:
        config, rows = self.config, [file.rows for file in self.data.train.files]
        return Plan(rows, batch_size=config.batch_size, streams=config.streams, seed=config.seed, epoch=epoch)

    def _train_epoch(self, plan: Plan, works: Passes) -> list[str]:
        """Every step of the epoch that is left; returns each rank's order digest."""
        now = self.progress
        name = f"{self.network.settings.kind} epoch {now.epoch + 1}/{self.config.epochs}"
        bar = tqdm(total=plan.total, initial=now.rows_trained, desc=name, unit=" rows", unit_scale=True, leave=False,
                   mininterval=0.5, disable=not (self.world.first and self.task.bundle_dir and bars()),
                   file=BarStream(sys.stderr), dynamic_ncols=True)  # fmt: skip
        with bar:
            started = time.perf_counter()
            self.exchange.begin()
            for work in works:
                before = now.rows_trained
                signals = self._step(plan, work)
                bar.set_postfix(logloss=f"{now.loss / max(now.weight, 1e-30):.5f}", refresh=False)
                bar.update(now.rows_trained - before)
                every = self.config.checkpoint.every_steps
                if signals or (every and self._steps_before(plan) % every == 0):
                    now.seconds += time.perf_counter() - started
                    self._save()
                    started = time.perf_counter()
                if signals & _STOP:
                    raise hurrying(Interrupted(self.stop.received or signal.SIGTERM))
            now.seconds += time.perf_counter() - started
        return [str(digest) for digest in self.world.gather(works.read.digest.hexdigest())]

    def _step(self, plan: Plan, work: Work) -> int:
        """One optimizer step on the global batch; returns the signals of all ranks."""
        batch, compact = work
        union = self.exchange.union(compact, batch.rows, batch.weight_sum, self._signals())
        rate, l2 = rate_at(self.config, self._steps_before(plan), plan.steps * self.config.epochs), self.config.l2
        assert l2 is not None
        if isinstance(self.step, PlainStep):
            reseed(self.config.seed, self.progress.epoch, self.progress.step, self.world.rank)
        loss, rows, logits = self.step(compact, union, batch.label, batch.weight, rate, l2)
        if not math.isfinite(loss):
            raise diverged(self.progress, self.world, self.data.train.files, plan, batch, logits)
        self.dense_optimizer.step(rate)
        now = self.progress
        now.step += 1
        now.loss += loss * union.weight
        now.weight += union.weight
        now.rows_read += union.rows
        now.rows_trained += rows
        return union.signals

    def _steps_before(self, plan: Plan) -> int:
        return self.progress.epoch * plan.steps + self.progress.step

    def _signals(self) -> int:
        minutes = self.config.checkpoint.every_minutes
        pause = max(60 * (minutes or 0), SAVING_SHARE * self.saving)
        due = self.world.first and minutes is not None and time.monotonic() - self.saved_at > pause
        return _STOP * bool(self.stop.received) | _SAVE * (due and self.checkpoints is not None)

    def _end_epoch(self, plan: Plan, order_digests: list[str], works: Passes) -> None:
        """Prove the epoch, validate, record, remember the best weights."""
        now = self.progress
        require_all_rows(now, plan.total)
        require_equal_replicas(self.network, self.world, now.epoch)
        due = time.monotonic() - self.warned_at > SLOW_SECONDS
        if due and warn_of_straggler(self.exchange.busy, now, self.world):
            self.warned_at = time.monotonic()
        valid = self._validated(works) if self.data.valid.files else {}
        record = EpochRecord(
            epoch=now.epoch,
            train_logloss=now.loss / max(now.weight, 1e-30),
            valid=valid,
            rows_planned=plan.total,
            rows_read=now.rows_read,
            rows_trained=now.rows_trained,
            steps=now.step,
            seconds=max(self.world.gather(now.seconds)),
            exchanged_bytes=int(self.world.sum(np.array([float(self.exchange.bytes)]))[0]),
            order_digests=order_digests,
        )
        self.exchange.bytes = 0
        self._report(record)
        better = valid.get("logloss", -math.inf) < now.best_logloss
        if self.world.first and self.task.bundle_dir and not self.task.silent:
            say(f"{record}{'' if better or not valid else ', no better'}")
        if better and self.task.bundle_dir:
            self._remember()
        self.progress = Progress(
            epoch=now.epoch + 1,
            best_epoch=now.epoch if better else now.best_epoch,
            best_logloss=valid.get("logloss", math.inf) if better else now.best_logloss,
            history=[*now.history, record],
        )

    def _validated(self, works: Passes) -> dict[str, float]:
        """Metrics of the validation rows. No weight changes meanwhile, so a stop does not wait: rank 0 saves alone."""
        try:
            with self.stop.at_once():
                valid = self.data.valid
                found = collect(
                    self.network, valid, self.world, works, logit_shift=self.logit_shift, observers=self.observers
                )
                return measure(valid, found).values
        except Interrupted as interrupted:
            if self.checkpoints is not None and self.world.first:
                self.checkpoints.save(self.progress, self._state(), self.best)
                self.task.saved()
            raise hurrying(interrupted) from None

    def _remember(self) -> None:
        """Copy the weights; into the memory of the best ones before."""
        self.best = self.best or self._like_weights()
        self.network.copy_into(self.best)
        self.world.meet()  # each has copied its share

    def _like_weights(self) -> dict[str, Tensor]:
        """Memory for a copy of the weights; of a table that ranks have together, one for all of them."""
        table = self.network.table
        return {
            name: table.beside(table.width, t.dtype)
            if name == "table" and table.shared
            else torch.empty_like(t, device="cpu")
            for name, t in self.network.tensors().items()
        }

    def _report(self, record: EpochRecord) -> None:
        if self.task.tracker is not None:
            plain = ("train_logloss", "rows_planned", "rows_read", "rows_trained", "seconds", "exchanged_bytes")
            values = {name: float(value) for name, value in asdict(record).items() if name in plain}
            values["rows_per_second"] = record.rows_trained / max(record.seconds, 1e-9)
            values |= {f"valid_{name}": value for name, value in record.valid.items() if math.isfinite(value)}
            self.task.tracker.metrics(values, record.epoch)

    def _save_best(self, place: str, *, whole: bool = True) -> str | None:
        """End the training: the network takes the best weights, is calibrated if it is a ``whole`` training, and rank 0
        saves it and knows its digest."""
        assert self.best is not None
        self.network.copy_from(self.best)
        self.best = None
        self.optimizer.state.clear()  # memory for what follows
        self.world.meet()  # each has copied its share
        calibrator = self.calibrator = self._calibrator() if whole else None
        if not self.world.first:
            return None
        weight = self.network.table.weight.cpu().float().numpy()
        bundle = self.network.bundle(weight, self.network.dense(), self.logit_shift)
        found = replace(bundle, calibrator=calibrator, record=self.data.record)
        return save_bundle(place, replace(found, learned=self.task.learned, chosen=self.task.chosen))

    def _keep_last_good(self) -> str:
        """Save the best weights of a run that fails; says what is kept. The table itself has seen part of the step."""
        if self.best is None:
            place = self.task.told(str(self.task.checkpoint_dir))
            stand = "" if self.checkpoints is None else f" Checkpoints in {place} stay as they were."
            return f"No epoch had ended, so no weights are kept.{stand}"
        kept = f"{self.task.bundle_dir}.last-good"
        self._save_best(kept, whole=False)
        return f"The weights after epoch {self.progress.best_epoch + 1} are kept in {self.task.told(kept)}."

    def _calibrator(self) -> Platt | Isotonic | None:
        """Fitted on the validation rows, the same on every rank; without any, that of the model it started from."""
        method, valid, before = self.config.calibration, self.data.valid, self.task.warm_start
        if method is None:
            return None
        if not valid.files:
            return None if before is None else before.calibrator
        reader = scan(valid, self.network.spec, self.world, streams=self.config.streams)
        with self.network.passes([[reader]], self.seen) as works:
            rows = collect(self.network, valid, self.world, works, logit_shift=self.logit_shift)
        found = fit_calibrator(method, rows)
        if found is None and self.world.first:
            warn("not calibrated: on the validation rows, a larger logit does not mean more positives")
        return found

    def _conclude(self) -> TrainResult:
        """Save the best weights and measure them on every split: on the validation rows without the calibrator, which
        was fitted there."""
        digest = self.world.share(self._save_best(self.task.bundle_dir))
        self.seen.room = 0  # what is read now is not read again
        splits = {role: getattr(self.data, role) for role in ("train", "valid", "test")}
        evaluations = {
            role: evaluate(
                self.network, split, self.world, logit_shift=self.logit_shift,
                calibrator=None if role == "valid" else self.calibrator, streams=self.config.streams, seen=self.seen,
            )
            for role, split in splits.items() if split.files
        }  # fmt: skip
        if self.task.tracker is not None:
            final = {f"{role}_{name}": v for role, e in evaluations.items() for name, v in e.told().items()}
            self.task.tracker.metrics({k: v for k, v in final.items() if math.isfinite(v)}, self.progress.epoch)
        history = self.progress.history
        seconds = sum(past.seconds for past in history)
        return TrainResult(
            bundle_dir=str(Path(self.task.bundle_dir)),
            bundle_digest=digest,
            best_epoch=self.progress.best_epoch,
            history=history,
            evaluations=evaluations,
            rows_per_second=sum(past.rows_trained for past in history) / max(seconds, 1e-9),
        )

    def _state(self) -> dict[str, Tensor]:
        """Live tensors a resumed run needs, by name; numbers of steps are copies."""
        state = self.network.tensors()
        for part, optimizer in self._optimizers().items():
            state |= {f"{part}.{name}": tensor for name, tensor in optimizer.state_dict().items()}
        return state

    def _optimizers(self) -> dict[str, RowOptimizer | DenseOptimizer]:
        return {"optimizer": self.optimizer, "dense_optimizer": self.dense_optimizer}

    def _save(self) -> None:
        self.world.meet()  # each has updated its share
        started = time.monotonic()
        if self.checkpoints is not None and self.world.first:
            self.checkpoints.save(self.progress, self._state(), self.best)
            self.task.saved()
        self.saved_at = time.monotonic()
        self.saving = self.saved_at - started

    def _resume(self, checkpoints: Checkpoints) -> None:
        """Go on where the newest checkpoint of any number of ranks stands."""
        saved = self.world.share(checkpoints.latest() if self.world.first else None)
        if saved is None:
            return
        state = self._state()
        if self.world.first:
            read_into(saved.state, state)
        self.world.copy_from_first(state)
        for part, optimizer in self._optimizers().items():
            optimizer.load_state_dict({name: state[f"{part}.{name}"] for name in optimizer.state_dict()})
        self.progress = saved.progress
        if saved.best is not None:
            self.best = self._like_weights()
            if self.world.first:
                read_into(saved.best, self.best)
            self.world.copy_from_first(self.best)
