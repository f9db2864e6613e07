"""Train on Spark's executors, a rank each: pyspark's TorchDistributor starts them, all at once or not at all.

Ranks leave their errors for the driver in a directory of the workspace, which all of them must see anyway: where one
meets an error that no restart mends, none of them fails as a task, and so Spark does not start them again.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import (
    ConfigError,
    DefectError,
    FieldwiseError,
    IntegrityError,
    RankLostError,
    known_error,
)
from fieldwise.features.interrupt import Interrupted
from fieldwise.features.process import FAILURES
from fieldwise.features.terminal import LOG, STYLE, TerminalStream, say, set_style
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.alike import together
from fieldwise.pipelines.ranks.launch import Days, read_failure, write_failure
from fieldwise.pipelines.ranks.network import interface_towards
from fieldwise.training.ranks.world import join_world

Train = Callable[..., dict[str, Any] | None]

_TOO_FEW = "SPARK-24819"
"""Spark's number for executors with fewer cores than ranks."""
_OTHERS_SECONDS = 5.0
"""In which a rank that has lost others hears whether one of them met an error."""


def train_on_spark(
    train: Train, config: Config, ranks: int, days: Days, *, init: str | None = None, register: bool = True,
    force: bool = False, name: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """``train``, which is ``train_model``, in ``ranks`` tasks of Spark at once; the same arguments and result.

    A task that is lost takes the others with it; all start again from the last checkpoint, ``training.restarts`` times.

    Raises:
        ConfigError: executors have fewer cores than ranks, or do not see config, workspace or snapshots.
        RankLostError, ClusterError: ranks were lost more often, or Spark has given up. Training can resume.
        FieldwiseError: the error that a rank met, of its own class.
    """
    from fieldwise.features.spark.run import at_once
    from fieldwise.features.spark.session import spark_session

    if not store.is_local(config.workspace_dir):
        raise ConfigError(
            "workspace", expected="a directory that driver and executors share", found=config.workspace_dir,
            fix="Set it, or train without --on.",
        )  # fmt: skip
    spark = spark_session("fieldwise train")
    cores = spark.sparkContext.defaultParallelism
    if spark.sparkContext.master.startswith("local") and cores < ranks:
        raise _too_few(ranks, f"{cores} of {spark.sparkContext.master}")
    folder = store.join(config.workspace_dir, "training", f".ranks-{uuid.uuid4().hex}")
    store.make_dir(folder)
    wish = {"arguments": [config.file, config.overrides], "days": asdict(days), "folder": folder,
            "style": os.environ.get(STYLE, ""),
            "how": {"init": init, "register": register, "force": force, "name": name}}  # fmt: skip
    gpus = int(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0
    say(f"training: {ranks} ranks on executors of {spark.sparkContext.master}")
    start = partial(at_once, spark, ranks, train_rank, train, json.dumps(wish), gpus=gpus)
    try:
        for left in range(config.training.restarts, -1, -1):
            try:
                told = _tried(start, folder, ranks)
                break
            except RankLostError as lost:
                if not left:
                    raise
                say(f"{lost.where} is lost; all start again from the last checkpoint")
                for path in Path(folder).glob("*.json"):
                    path.unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a file system that is gone meanwhile
    if not told:
        raise IntegrityError(
            "ranks on Spark", expected="a result of rank 0", found="none", fix="See the words of its task above."
        )
    return dict(told)


def _tried(start: Callable[[], dict[str, Any] | None], folder: str, ranks: int) -> dict[str, Any] | None:
    """What one start gives. Raises what a rank has met, before what Spark makes of it."""
    try:
        told = start()
    except Interrupted:
        raise
    except Exception as error:
        if _TOO_FEW in str(error):
            raise _too_few(ranks, "fewer on all executors together") from None
        for failure in _failures(folder):
            raise failure from None
        raise
    for failure in _failures(folder):
        raise failure
    return told


def train_rank(train: Train, wish: str) -> dict[str, Any] | None:
    """What runs in a task, started by torchrun there: one rank. Rank 0's result."""
    ask = json.loads(wish)
    os.environ[STYLE] = ask["style"]
    set_style()
    os.environ |= interface_towards(os.environ["MASTER_ADDR"])
    folder = ask["folder"]
    if any(not isinstance(error, RankLostError) for error in _failures(folder)):
        return None  # started again for a task that failed meanwhile
    with redirect_stderr(TerminalStream(sys.stderr)):
        try:
            return _train(train, ask)
        except Exception as raised:
            error = known_error(raised)
            if error is None:
                error = DefectError("a defect", expected="none", found=repr(raised), fix=f"\n{traceback.format_exc()}")
            if os.path.isdir(folder):
                os.environ[FAILURES] = folder
                write_failure(error)
            lost = isinstance(error, RankLostError) and not _other_failure(folder)
            if os.environ["RANK"] == "0" or lost:
                LOG.error(f"rank {os.environ['RANK']} on {platform.node()}: {error}")
            if lost or not os.path.isdir(folder):
                sys.exit(1)
            return None


def _train(train: Train, ask: dict[str, Any]) -> dict[str, Any] | None:
    def prepare() -> tuple[Config, dict[str, str]]:
        if not os.path.isdir(ask["folder"]):
            raise ConfigError(
                f"workspace on {platform.node()}", expected="a directory that driver and executors share",
                found=f"no {ask['folder']}, which the driver has made",
                fix="Set `workspace`, and paths of snapshots, to what all machines mount at the same place.",
            )  # fmt: skip
        return load_config(*ask["arguments"]), {}

    with join_world() as world:
        config = together(world, platform.node(), prepare)
        return train(config, Days(**ask["days"]), **ask["how"])


def _other_failure(folder: str) -> bool:
    """Whether another rank has met what no restart mends; it may still be about to say so."""
    deadline = time.monotonic() + _OTHERS_SECONDS
    while time.monotonic() < deadline:
        if any(not isinstance(error, RankLostError) for error in _failures(folder)):
            return True
        time.sleep(0.2)
    return False


def _failures(folder: str) -> list[FieldwiseError]:
    """What ranks have met, that which no restart mends first."""
    found = [read_failure(path) for path in sorted(Path(folder).glob("*.json"))]
    return sorted(found, key=lambda error: isinstance(error, RankLostError))


def _too_few(ranks: int, found: str) -> ConfigError:
    return ConfigError(
        "--ranks", expected=f"a free core of Spark's executors for each of {ranks} ranks", found=found,
        fix="Ask for fewer ranks, or for more executors (SPARK_MASTER, spark.executor.instances, spark.cores.max).",
    )  # fmt: skip
