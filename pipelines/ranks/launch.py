"""Start training ranks on this machine and bring their one error back whole."""

from __future__ import annotations

import codecs
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from fieldwise.features.errors import ConfigError, FieldwiseError, IntegrityError, RankLostError, retold, told
from fieldwise.features.interrupt import PATIENCE_SECONDS, SIGNALS, Interrupted
from fieldwise.features.process import FAILURES, adopt_orphans, cores, die_with_parent, end_children
from fieldwise.features.terminal import BarStream, say
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import OpenedModel, open_model
from fieldwise.training.models import kind_of
from fieldwise.training.ranks.world import STORE

RANK = Path(__file__).resolve().parents[2] / "jobs" / "train.py"
"""What torchrun starts."""

INIT = "FIELDWISE_INIT"
"""Environment variable of ranks: what the registry knows the model as that they start from."""


@dataclass(frozen=True)
class Days:
    """Snapshot directories by role. One ``train`` alone: that snapshot's own splits. None: the workspace's ``all``."""

    train: Sequence[str] = ()
    valid: Sequence[str] = ()
    test: Sequence[str] = ()


def inside_rank() -> bool:
    """Whether torchrun started this process."""
    return "LOCAL_RANK" in os.environ


def train_ranks(
    config: Config,
    ranks: int,
    days: Days | None = None,
    *,
    overrides: Sequence[str] = (),
    init: str | None = None,
    register: bool = True,
    force: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """``train_model`` in ``ranks`` processes of this machine over loopback; the same arguments and result.

    Linear models on the CPU train in one, with the threads of all: to tell another process which rows of one number a
    batch touches takes longer than to train on them.

    Ranks that are killed, or lose one another, start again from the last checkpoint, ``training.restarts`` times. On
    SIGTERM or Ctrl-C they write a checkpoint, then `Interrupted` is raised; they do not outlive this process.

    Args:
        overrides: go over the config's own.

    Raises:
        FieldwiseError: the error that a rank met, of its own class.
        IntegrityError: a rank died of something else; its traceback is on stderr.
    """
    if ranks > 1 and config.training.fused and not (kind_of(config.model.kind).latent or torch.cuda.is_available()):
        say(f"{config.model.kind}: {ranks} ranks of one machine are one with the threads of all, which is faster")
        threads = config.training.threads
        overrides = [*overrides, f"training.threads={threads * ranks}"] if threads else overrides
        ranks = 1
    origin = open_model(init, config) if init else None
    arguments, extra = rank_arguments(
        config, days or Days(), origin, overrides=overrides, register=register, force=force, name=name
    )
    return run_ranks(arguments, ranks, extra, restarts=config.training.restarts).require()


def rank_arguments(
    config: Config, days: Days, origin: OpenedModel | None, *, overrides: Sequence[str] = (), register: bool = True,
    force: bool = False, name: str | None = None,
) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """What a rank is started with: arguments of ``train``, and what its environment tells."""
    arguments = [*config.arguments, *(f"--set={override}" for override in overrides)]
    for role, paths in asdict(days).items():
        arguments += [f"--{role}={path}" for path in paths]
    arguments += [f"--init={origin.directory}"] if origin else []
    arguments += [] if register else ["--no-register"]
    arguments += ["--force"] if force else []
    arguments += [f"--name={name}"] if name else []
    return arguments, {INIT: json.dumps(origin.facts)} if origin else {}


@dataclass(frozen=True)
class Ended:
    """What became of ranks of this machine."""

    status: int
    result: dict[str, Any] | None
    """Rank 0's, where it was here."""
    failures: list[FieldwiseError]
    """Those that no restart mends come first."""

    def require(self) -> dict[str, Any]:
        """The result. Raises what a rank met."""
        for failure in self.failures:
            raise failure
        if self.status != 0 or self.result is None:
            raise IntegrityError(
                "training ranks",
                expected="every rank to finish",
                found=f"exit status {self.status}",
                fix="See the traceback above.",
            )
        return self.result


def run_ranks(
    arguments: Sequence[str],
    ranks: int,
    extra: Mapping[str, str],
    *,
    restarts: int = 0,
    meanwhile: Callable[[subprocess.Popen[bytes]], AbstractContextManager[Any]] = nullcontext,
    on_signal: Callable[[int], None] = lambda number: None,
) -> Ended:
    """Ranks of this machine, until they end.

    Args:
        extra: for their environment.
        meanwhile: entered with torchrun's process while it runs.
        on_signal: hears of a signal before the ranks do.

    Raises Interrupted once ranks that were asked to stop have ended.
    """
    if ranks < 1:
        raise ConfigError("--ranks", expected="at least 1", found=str(ranks), fix="Leave it out for one process.")
    with tempfile.TemporaryDirectory(prefix="fieldwise-ranks-") as failures:
        command = [*rank_command(ranks, failures, restarts), str(RANK), *arguments]
        own = {**environment(ranks, failures), FAILURES: failures, **extra}
        process = subprocess.Popen(
            command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent,
            start_new_session=True,  # a terminal's Ctrl-C reaches ranks once, through us
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        passing = _passing_on_signals(process, on_signal)
        with passing as stopped, meanwhile(process), process.stdout as output, process.stderr as words:
            _pass_on(words.fileno(), failures, process, stopped)
            lines = output.read().decode().splitlines()
            status = process.wait()
        if stopped:
            raise Interrupted(stopped[0])
        found = [read_failure(path) for path in sorted(Path(failures).glob("*.json"))] if status else []
    result = dict(json.loads(lines[-1])) if lines and not status else None
    return Ended(status, result, sorted(found, key=lambda error: isinstance(error, RankLostError)))


def _pass_on(descriptor: int, failures: str, process: subprocess.Popen[bytes], stopped: list[int]) -> None:
    """Copy to stderr until a rank leaves a failure that no restart mends, or all are stopped: torchrun's words would
    bury the message."""
    stderr, last = BarStream(sys.stderr), b"\n"
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    while chunk := os.read(descriptor, 1 << 16):
        if stopped:
            continue
        last = chunk
        if any(not isinstance(read_failure(path), RankLostError) for path in Path(failures).glob("*.json")):
            process.terminate()
        else:
            stderr.write(decoder.decode(chunk))  # what native code writes, too
            stderr.flush()
    if stopped and not last.endswith(b"\n"):
        stderr.write("\n")  # below the bar of a rank


@contextmanager
def _passing_on_signals(process: subprocess.Popen[bytes], on_signal: Callable[[int], None]) -> Iterator[list[int]]:
    """Hand the first signal on to a process, as SIGTERM; another ends all at once. Yields the signals that came."""
    came: list[int] = []
    since = 0.0

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal since
        if not came:
            came.append(number)
            on_signal(number)
            process.terminate()
            since = time.monotonic()
        elif time.monotonic() > since + PATIENCE_SECONDS:
            adopt_orphans()
            end_children(grace_seconds=0.0)

    here = threading.current_thread() is threading.main_thread()
    former = {number: signal.signal(number, pass_on) for number in SIGNALS} if here else {}
    try:
        yield came
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def rank_command(ranks: int, private: str, restarts: int) -> list[str]:
    """torchrun for ranks of this machine that find one another through files.

    Its own store would listen on every interface without asking who calls, and unpickles what it is sent. Under
    ``private``, a directory of this user alone, nobody else writes.
    """
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--rdzv-backend=c10d",
            f"--rdzv-endpoint={private}/agent", "--rdzv-conf=store_type=file", "--rdzv-id=ranks",
            "--local-addr=127.0.0.1", f"--max-restarts={restarts}", f"--log-dir={private}/logs"]  # fmt: skip


def environment(ranks: int, private: str) -> dict[str, str]:
    """This process's environment with the cores shared among ranks that talk over loopback; what is set stays."""
    threads = str(max(1, cores() // ranks))
    usual = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
    meet = {STORE: f"{private}/ranks", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return {**usual, "TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ, **meet}


def write_failure(error: FieldwiseError) -> None:
    """Leave a rank's error as JSON, complete or not at all: for ``train_ranks``, and for torchrun's last words."""
    if folder := os.environ.get(FAILURES):
        draft = Path(folder, f"rank-{os.environ.get('RANK', '0')}.part")
        draft.write_text(json.dumps(told(error)), encoding="utf-8")
        draft.rename(draft.with_suffix(".json"))
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        last = {"message": str(error), "extraInfo": {"py_callstack": str(error), "timestamp": str(int(time.time()))}}
        Path(file).write_text(json.dumps({"message": last}), encoding="utf-8")


def read_failure(path: Path) -> FieldwiseError:
    """The error that ``write_failure`` left."""
    return retold(json.loads(path.read_text(encoding="utf-8")))
