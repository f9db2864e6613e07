"""The doctor's kernel checks: they pass here, and each finds the fault it is there for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fieldwise.features.errors import InputError
from fieldwise.features.kernels import strings
from fieldwise.pipelines.operate import kernel_checks
from fieldwise.pipelines.operate.doctor import examine
from fieldwise.training.models.ffm import FFM
from fieldwise.training.models.fm import FM
from fieldwise.training.step.optim import Adagrad


def signed_modulo(data: Any, start: Any, length: Any, seed: Any, buckets: Any, out: Any) -> None:
    hashes = np.empty(len(start), np.uint64)
    strings.hash_texts(data, start, length, np.uint64(seed), hashes)
    out[:] = np.where(length > 0, strings.FIRST + hashes.view(np.int64) % np.int64(buckets), strings.MISSING)


def other_seed(data: Any, start: Any, length: Any, seed: Any, out: Any) -> None:
    out[:] = np.uint64(seed)


def test_a_sound_machine() -> None:
    said = examine(quick=True)["checks"]["kernels"]
    assert said == "hash, training steps, scores and lists of fm and ffm agree with xxhash and plain torch"


@pytest.mark.parametrize(
    ("owner", "name", "fault", "found"),
    [
        (strings, "hash_slots", signed_modulo, "encoder's hash into 1000003 buckets"),
        (strings, "hash_texts", other_seed, "hash of a column"),
        (FM, "interaction", lambda self, v: v.sum((1, 2)), "fm step's loss"),
        (FFM, "interaction", lambda self, v: v.sum((1, 2)), "ffm step's loss"),
        (Adagrad, "update", lambda self, rows, state, grad, lr, l2: rows - lr * grad, "fm step's update"),
    ],
)
def test_a_fault_is_found_and_named(
    owner: Any, name: str, fault: Any, found: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(owner, name, fault)
    with pytest.raises(InputError, match="found kernels failed"):
        examine(quick=True)
    assert f"wrong on this machine: the compiled {found}" in capsys.readouterr().err


def test_a_fault_of_scores_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FM, "interaction", lambda self, v: v.new_zeros(len(v)) + torch.pi)
    with pytest.raises(ValueError, match="wrong on this machine: the compiled fm scores"):
        kernel_checks.scores_agree("fm")
