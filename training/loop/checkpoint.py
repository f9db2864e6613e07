"""What a killed run resumes from: one file with table, optimizer state and progress, written whole or not at all.

    state-<epoch>-<step>.<xxh3-128>     table, dense parameters, optimizer states; progress in its metadata
    best-<epoch>.<xxh3-128>             the best weights so far, written once

Both are safetensors files whose name ends in the digest of their bytes. Rank 0 alone writes and reads; the other ranks
receive by broadcast, so no shared disk is needed. Randomness derives from (seed, epoch, step): there is none to save.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fieldwise.features import store
from fieldwise.features.errors import ArtifactError
from fieldwise.features.store import bounded
from fieldwise.features.terminal import say
from fieldwise.training.loop.progress import Progress

Tensors = Mapping[str, Tensor]
_MOST_HEADER_BYTES = 4 << 20
"""Of the names and shapes of all tensors, and what every epoch has shown."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint found."""

    progress: Progress
    state: Path
    best: Path | None


class Checkpoints:
    """Checkpoints of one run in a local directory.

    Args:
        request: digest of all that decides the run's result; a checkpoint of another request is refused.
        keep: how many to keep.
    """

    def __init__(self, directory: str | Path, request: str, keep: int = 2) -> None:
        self.directory, self.request, self.keep = Path(directory), request, keep

    def save(self, progress: Progress, state: Tensors, best: Tensors | None) -> bool:
        """Write a checkpoint and prune older ones. False, with a word on stderr, when the disk does not take it."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove(self.directory.glob(".*.tmp"))
            best_name = f"best-{progress.best_epoch:06d}"
            if best is not None and not list(self.directory.glob(f"{best_name}.*")):
                self._write(best_name, best, {})
            facts = {"request": self.request, "progress": asdict(progress)}
            self._write(f"state-{progress.epoch:06d}-{progress.step:010d}", state, {"facts": json.dumps(facts)})
        except (OSError, SafetensorError) as error:
            self._remove(self.directory.glob(".*.tmp"))
            say(f"checkpoint not saved, training goes on: {error}")
            return False
        self._prune()
        return True

    def _write(self, name: str, tensors: Tensors, metadata: dict[str, str]) -> None:
        draft = self.directory / f".{name}.{os.getpid()}.tmp"
        save_file({key: value.contiguous() for key, value in tensors.items()}, draft, metadata)
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        os.replace(draft, self.directory / f"{name}.{_digest(draft)}")
        store.sync_directory(str(draft))

    def _prune(self) -> None:
        states = sorted(self.directory.glob("state-*"))
        self._remove(states[: -self.keep])
        needed = set()
        for path in states[-self.keep :]:
            with suppress(ArtifactError):  # damaged: it needs nothing
                needed.add(f"best-{Progress.from_json(_facts(path)['progress']).best_epoch:06d}")
        self._remove(path for path in self.directory.glob("best-*") if path.name.partition(".")[0] not in needed)

    @staticmethod
    def _remove(paths: Iterable[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    def latest(self) -> Saved | None:
        """The newest checkpoint whose files are whole; damaged ones are passed over with a word on stderr.

        Raises ArtifactError for a checkpoint of other settings or data.
        """
        for path in sorted(self.directory.glob("state-*"), reverse=True):
            try:
                _verify(path)
                facts = _facts(path)
                progress = Progress.from_json(facts["progress"])
                best = next(self.directory.glob(f"best-{progress.best_epoch:06d}.*"), None)
                if best is not None:
                    _verify(best)
                elif progress.best_epoch >= 0:
                    raise ArtifactError(
                        str(path), expected=f"best-{progress.best_epoch:06d} beside it", found="no such file", fix=_FIX
                    )
            except (ArtifactError, OSError) as error:
                say(f"checkpoint passed over: {error}")
                continue
            if facts["request"] != self.request:
                raise ArtifactError(
                    str(self.directory),
                    expected="checkpoints of this config and data",
                    found="checkpoints of another run",
                    fix="Delete the directory to start afresh, or resume with the config and data it was started with.",
                )
            return Saved(progress, path, best)
        return None

    def clear(self) -> None:
        """Delete every checkpoint of a run that is done."""
        for pattern in ("state-*", "best-*", ".*.tmp"):
            self._remove(self.directory.glob(pattern))


def read_into(path: Path, tensors: Tensors) -> None:
    """Fill tensors in place.

    Raises ArtifactError unless all of them are there in their shapes and types.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if names != set(tensors):
                raise _damaged(path, f"tensors {sorted(tensors)}", f"{sorted(names)}")
            for name, tensor in tensors.items():
                saved = file.get_tensor(name)
                if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                    raise _damaged(
                        path, f"{name} {tuple(tensor.shape)} {tensor.dtype}", f"{tuple(saved.shape)} {saved.dtype}"
                    )
                with torch.no_grad():
                    tensor.copy_(saved)
    except (SafetensorError, OSError) as error:
        raise _damaged(path, "a safetensors file", str(error)) from error


def _facts(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as raw:
            header = int.from_bytes(raw.read(8), "little")
        if header > _MOST_HEADER_BYTES:  # before it is unfolded
            raise _damaged(path, f"a header of at most {_MOST_HEADER_BYTES:,} bytes", f"{header:,}")
        with safe_open(path, framework="pt") as file:
            facts = bounded.parse(file.metadata()["facts"].encode(), str(path), _FIX)
            return {"request": facts["request"], "progress": facts["progress"]}
    except ArtifactError:
        raise
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, "a checkpoint with its progress", str(error)) from error


def _digest(path: Path) -> str:
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _verify(path: Path) -> None:
    found = _digest(path)
    if path.name.rpartition(".")[2] != found:
        raise _damaged(path, "bytes of the digest in its name", found)


_FIX = "Delete it: training then resumes from an older checkpoint, or starts afresh."


def _damaged(path: Path, expected: str, found: str) -> ArtifactError:
    return ArtifactError(str(path), expected=expected, found=found, fix=_FIX)
