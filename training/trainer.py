"""The training loop: plan -> reader -> lookup -> exchange -> model -> loss -> optimizer, epoch after epoch.

Every rank runs this file. The replicas of table and model start alike and see the same summed gradients, so they stay
alike; each epoch ends with a check of that, and of rows planned = rows read = rows trained.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from features.errors import ArtifactError, ConfigError, DivergedError, IntegrityError
from training.batch import Batch, Float32
from training.bundle import Bundle, save_bundle
from training.evaluate import Evaluation, evaluate
from training.exchange import Exchange, Union
from training.models import logloss
from training.network import Network, Work
from training.optim import build_optimizer
from training.plan import Plan
from training.reader import PlanReader, name_rows
from training.run import EpochRecord, TrainResult, TrainRun
from training.world import World

_DENSE_OPTIMIZERS = {"adagrad": torch.optim.Adagrad, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass
class Progress:
    """Where training stands; the sums are of the epoch being trained, over all ranks."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    weight: float = 0.0
    rows_read: int = 0
    rows_trained: int = 0
    seconds: float = 0.0
    exchanged_bytes: int = 0
    best_epoch: int = -1
    best_logloss: float = math.inf
    history: list[EpochRecord] = field(default_factory=list)


class Gradient(NamedTuple):
    """What a step knows before it updates anything; all but ``logits`` is of the global batch."""

    union: Union
    grad: Tensor  # [G, width] of the rows union.ids
    loss: float
    rows: int
    logits: Tensor  # of this rank's rows


def train(run: TrainRun, world: World) -> TrainResult:
    """Train until early stopping or the last epoch, keep the best weights, save them as a bundle, evaluate all splits.

    Raises:
        InputError: an empty split, or one whose labels are all equal.
        ArtifactError, ConfigError: a warm start from another spec or model; settings without effect.
        IntegrityError: rows lost or damaged, replicas apart, or a loss that is not finite.
    """
    return Trainer(run, world).train()


class Trainer:
    """One rank's share of a training run."""

    def __init__(self, run: TrainRun, world: World) -> None:
        self.task, self.world, self.config, self.data = run, world, run.training, run.data
        self._require_splits()
        world.use_threads(self.config.threads)
        torch.manual_seed(self.config.seed)
        self.network = Network.configured(
            self.data.spec, run.model, seed=self.config.seed, fused=self.config.fused, device=world.device
        )
        self.logit_shift = math.log(self.data.train.negative_rate or 1.0)
        self._start_weights()
        self.model = self.network.model if world.size == 1 else DistributedDataParallel(self.network.model)
        self.optimizer = build_optimizer(self.config.optimizer, self.network.table)
        dense = _DENSE_OPTIMIZERS[self.config.optimizer]
        self.dense_optimizer = dense(self.network.model.parameters(), lr=self.config.learning_rate)
        self.exchange = Exchange(world, self.network.table.rows)
        self.verified: set[str] | None = set() if self.config.verify_checksums else None
        self.progress = Progress()
        self.best: tuple[Float32, dict[str, Float32]] | None = None

    def train(self) -> TrainResult:
        if self.task.tracker is not None:
            self.task.tracker.params(
                {"model": self.task.model.model_dump(), "training": self.config.model_dump(), "ranks": self.world.size}
            )
        while not self._finished():
            plan = self._plan()
            self._train_epoch(plan)
            self._end_epoch(plan)
        return self._conclude()

    def _require_splits(self) -> None:
        self.data.train.require_both_classes()
        if self.data.valid.files or self.config.patience is not None:
            self.data.valid.require_both_classes()
        if self.data.test.files:
            self.data.test.require_both_classes()

    def _start_weights(self) -> None:
        """The bias starts at logit(mean label); a warm start takes all weights over."""
        warm = self.task.warm_start
        if warm is None:
            rate = self.data.train.base_rate(self.world)
            with torch.no_grad():
                self.network.model.bias.fill_(math.log(rate / (1 - rate)))
            return
        if warm.spec.digest != self.data.spec.digest:
            raise ArtifactError(
                f"warm start from bundle {warm.digest[:12]}",
                expected=f"feature spec {self.data.spec.digest[:12]} of the data",
                found=f"spec {warm.spec.digest[:12]}",
                fix="Build the snapshots with the bundle's spec (--spec), or train from scratch.",
            )
        ours, theirs = ((of.kind, of.dim, of.pair_buckets) for of in (self.network, warm))
        if ours != theirs:
            raise ConfigError(
                "model", expected=f"{theirs} (kind, dim, pair_buckets) of the warm start's bundle", found=str(ours),
                fix="Use the bundle's model settings, or train from scratch.",
            )  # fmt: skip
        self.network.load(warm.weight, warm.dense)
        with torch.no_grad():  # logits of the bundle's downsampling rate become those of ours
            self.network.model.bias.add_(warm.logit_shift - self.logit_shift)

    def _finished(self) -> bool:
        done = self.progress.epoch
        waited = done - 1 - self.progress.best_epoch
        return done >= self.config.epochs or (
            self.config.patience is not None and done > 0 and waited >= self.config.patience
        )

    def _plan(self) -> Plan:
        return Plan(
            [file.rows for file in self.data.train.files],
            batch_size=self.config.batch_size,
            streams=self.config.streams,
            seed=self.config.seed,
            epoch=self.progress.epoch,
        )

    def _train_epoch(self, plan: Plan) -> None:
        streams = plan.streams_of(self.world.rank, self.world.size)
        reader = PlanReader(
            self.data.train.files,
            plan,
            streams,
            self.data.spec.slot_names,
            start_step=self.progress.step,
            verified=self.verified,
        )
        description = f"{self.network.kind} epoch {self.progress.epoch + 1}/{self.config.epochs}"
        bar = tqdm(total=plan.total, initial=self.progress.rows_trained, desc=description, unit="rows", unit_scale=True,
                   disable=not self.world.first, leave=False)  # fmt: skip
        with bar, self.network.work(reader) as steps:
            started = time.perf_counter()
            for work in steps:
                rows = self._step(plan, work)
                bar.update(rows)
                if self.progress.step % 16 == 0:
                    bar.set_postfix(
                        logloss=f"{self.progress.loss / max(self.progress.weight, 1e-30):.5f}", refresh=False
                    )
            self.progress.seconds += time.perf_counter() - started
        self.order_digests = self.world.gather(reader.digest.hexdigest())

    def _step(self, plan: Plan, work: Work) -> int:
        """One optimizer step on the global batch; returns its rows."""
        step = self.gradient(work)
        if not math.isfinite(step.loss):
            raise self._diverged(plan, work.batch, step.logits)
        ids = step.union.ids.to(self.world.device)
        self.optimizer.step(self.network.table, ids, step.grad, self.config.learning_rate, self.config.l2)
        self.dense_optimizer.step()
        self.progress.step += 1
        self.progress.loss += step.loss * step.union.weight
        self.progress.weight += step.union.weight
        self.progress.rows_read += step.union.rows
        self.progress.rows_trained += step.rows
        return step.rows

    def gradient(self, work: Work) -> Gradient:
        """Of ``sum of w * logloss / sum of w`` over the global batch; dense parameters have theirs in ``grad``."""
        batch, compact = work
        device = self.world.device
        union = self.exchange.union(compact.ids, batch.rows, batch.weight_sum)
        rows = self.network.table.gather(compact.ids.to(device))
        logits = self.model(rows, *self.network.inputs(compact))
        label = torch.from_numpy(batch.label).to(device)
        weight = None if batch.weight is None else torch.from_numpy(batch.weight).to(device)
        loss = logloss(logits, label, weight, union.weight or 1.0)
        self.dense_optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self.network.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= self.world.size  # DDP averages, but the loss is divided by the global weight already
        assert rows.grad is not None
        mine = torch.stack([loss.detach(), loss.new_tensor(len(logits))])
        grad, sums = self.exchange.sum_rows(union, rows.grad, mine)
        total, trained = sums.tolist()
        return Gradient(union, grad, total, int(trained), logits.detach())

    def _diverged(self, plan: Plan, batch: Batch, logits: Tensor) -> DivergedError:
        """Every rank sees the same sum, so all come here in the same step; nothing has been updated by it."""
        bad = ~np.isfinite(logits.cpu().numpy()) | ~np.isfinite(batch.label)
        if batch.weight is not None:
            bad |= ~np.isfinite(batch.weight)
        mine = name_rows(self.data.train.files, plan, batch.origin, np.flatnonzero(bad))
        where = [name for names in self.world.gather(mine) for name in names]
        fix = "Lower training.learning_rate, or look at these rows' weights."
        if self.best is not None:
            kept = f"{self.task.bundle_dir}.last-good"
            if self.world.first:
                save_bundle(kept, self._bundle())
            fix += f" The weights after epoch {self.progress.best_epoch + 1} are kept in {kept}."
        return DivergedError(
            f"epoch {self.progress.epoch + 1}, step {self.progress.step + 1}",
            expected="a finite loss",
            found=f"inf or nan in {'; '.join(where) or 'the sum of the batch'}",
            fix=fix,
        )

    def _end_epoch(self, plan: Plan) -> None:
        """Prove the epoch, validate, record, remember the best weights."""
        now = self.progress
        self._require_all_rows(plan)
        self._require_equal_replicas()
        valid = self._evaluate("valid").values if self.data.valid.files else {}
        bytes_now = int(self.world.sum(np.array([float(self.exchange.bytes)]))[0])
        record = EpochRecord(
            epoch=now.epoch,
            train_logloss=now.loss / max(now.weight, 1e-30),
            valid=valid,
            rows_planned=plan.total,
            rows_read=now.rows_read,
            rows_trained=now.rows_trained,
            steps=now.step,
            seconds=max(self.world.gather(now.seconds)),
            exchanged_bytes=bytes_now - sum(past.exchanged_bytes for past in now.history),
            order_digests=self.order_digests,
        )
        self._report(record)
        history = [*now.history, record]
        better = valid.get("logloss", -math.inf) < now.best_logloss
        if better:
            self.best = (self.network.table.weight.cpu().numpy().copy(), self.network.dense())
        self.progress = Progress(
            epoch=now.epoch + 1,
            best_epoch=now.epoch if better else now.best_epoch,
            best_logloss=valid.get("logloss", math.inf) if better else now.best_logloss,
            history=history,
        )

    def _require_all_rows(self, plan: Plan) -> None:
        now = self.progress
        if not plan.total == now.rows_read == now.rows_trained:
            raise IntegrityError(
                f"epoch {now.epoch + 1}",
                expected=f"{plan.total} rows as planned",
                found=f"{now.rows_read} rows read, {now.rows_trained} trained",
                fix="Verify the snapshot's checksums; if they hold, report this as a defect.",
            )

    def _require_equal_replicas(self) -> None:
        digest = xxhash.xxh3_64(self.network.table.weight.cpu().numpy().data)
        for _, value in sorted(self.network.dense().items()):
            digest.update(value.data)
        digests = self.world.gather(digest.hexdigest())
        apart = [rank for rank, value in enumerate(digests) if value != digests[0]]
        if apart:
            raise IntegrityError(
                f"epoch {self.progress.epoch + 1}",
                expected="the same weights on every rank",
                found=f"ranks {apart} apart from rank 0",
                fix="Check that all hosts run the same packages on the same kind of processor.",
            )

    def _report(self, record: EpochRecord) -> None:
        if self.task.tracker is None:
            return
        values = {f"valid_{name}": value for name, value in record.valid.items() if math.isfinite(value)}
        plain = ("train_logloss", "rows_planned", "rows_read", "rows_trained", "seconds", "exchanged_bytes")
        values |= {name: float(value) for name, value in asdict(record).items() if name in plain}
        values["rows_per_second"] = record.rows_trained / max(record.seconds, 1e-9)
        self.task.tracker.metrics(values, record.epoch)

    def _evaluate(self, role: str) -> Evaluation:
        return evaluate(
            self.network,
            getattr(self.data, role),
            self.world,
            logit_shift=self.logit_shift,
            streams=self.config.streams,
            verified=self.verified,
        )

    def _bundle(self) -> Bundle:
        """The best weights so far; without validation, the present ones."""
        weight, dense = self.best or (self.network.table.weight.cpu().numpy(), self.network.dense())
        return self.network.bundle(weight, dense, self.logit_shift)

    def _conclude(self) -> TrainResult:
        bundle = self._bundle()
        self.network.load(bundle.weight, bundle.dense)
        digest = self.world.gather(save_bundle(self.task.bundle_dir, bundle) if self.world.first else "")[0]
        evaluations = {
            role: self._evaluate(role) for role in ("train", "valid", "test") if getattr(self.data, role).files
        }
        if self.task.tracker is not None:
            self.task.tracker.metrics(
                {f"{role}_{k}": v for role, e in evaluations.items() for k, v in e.values.items() if math.isfinite(v)},
                self.progress.epoch,
            )
        history = self.progress.history
        seconds = sum(record.seconds for record in history)
        return TrainResult(
            bundle_dir=str(Path(self.task.bundle_dir)),
            bundle_digest=digest,
            best_epoch=self.progress.best_epoch,
            history=history,
            evaluations=evaluations,
            rows_per_second=sum(record.rows_trained for record in history) / max(seconds, 1e-9),
        )
