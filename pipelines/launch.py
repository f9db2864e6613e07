"""Start training ranks on this machine and bring their one error back whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features import errors
from features.errors import ConfigError, FieldwiseError, IntegrityError
from pipelines.config import Config
from pipelines.models import resolve_model

ROOT = Path(__file__).resolve().parent.parent


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
) -> dict[str, Any]:
    """``train_model`` in ``ranks`` processes of this machine over loopback; the same arguments and result.

    Args:
        overrides: go over the config's own.

    Raises:
        FieldwiseError: the error that a rank met, of its own class.
        IntegrityError: a rank died of something else; its traceback is on stderr.
    """
    if ranks < 1:
        raise ConfigError("--ranks", expected="at least 1", found=str(ranks), fix="Leave it out for one process.")
    arguments = [*config.arguments, *(f"--set={override}" for override in overrides)]
    for role, paths in asdict(days or Days()).items():
        arguments += [f"--{role}={path}" for path in paths]
    arguments += [f"--init={resolve_model(init, config)}"] if init else []
    arguments += [] if register else ["--no-register"]
    with tempfile.TemporaryDirectory(prefix="fieldwise-ranks-") as failures:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
                   "--local-addr=127.0.0.1", str(ROOT / "jobs" / "train.py"), *arguments]  # fmt: skip
        own = {**environment(ranks), "FIELDWISE_FAILURES": failures}
        process = subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout as output, process.stderr as words:
            _pass_on(words.fileno(), failures)
            lines = output.read().decode().splitlines()
        status = process.wait()
        for failure in sorted(Path(failures).glob("*.json")):
            raise read_failure(failure)
    if status != 0 or not lines:
        raise IntegrityError(
            "training ranks",
            expected="every rank to finish",
            found=f"exit status {status}",
            fix="See the traceback above.",
        )
    return dict(json.loads(lines[-1]))


def _pass_on(descriptor: int, failures: str) -> None:
    """Copy to stderr until a rank leaves a known failure: what torchrun says after it would bury the message."""
    while chunk := os.read(descriptor, 1 << 16):
        if not any(Path(failures).iterdir()):
            sys.stderr.buffer.write(chunk)
            sys.stderr.buffer.flush()


def environment(ranks: int) -> dict[str, str]:
    """This process's environment with the cores shared among ranks that talk over loopback; what is set stays."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // ranks))
    usual = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"}
    return {**usual, "TORCH_CPP_LOG_LEVEL": "ERROR", **os.environ}


def write_failure(folder: str, error: FieldwiseError) -> None:
    """Leave an error as JSON, complete or not at all."""
    rank = os.environ.get("RANK", "0")
    fields = {"where": error.where, "expected": error.expected, "found": error.found, "fix": error.fix}
    draft = Path(folder, f"rank-{rank}.part")
    draft.write_text(json.dumps({"class": type(error).__name__, **fields}), encoding="utf-8")
    draft.rename(draft.with_suffix(".json"))


def read_failure(path: Path) -> FieldwiseError:
    """The error that ``write_failure`` left."""
    found = json.loads(path.read_text(encoding="utf-8"))
    kind: type[FieldwiseError] = getattr(errors, found.pop("class"), FieldwiseError)
    return kind(**found)
