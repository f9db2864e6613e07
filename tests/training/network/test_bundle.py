"""Bundles: same model, same bytes; whatever was changed is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fieldwise.features.errors import ArtifactError, IntegrityError
from fieldwise.training.config import ModelConfig
from fieldwise.training.models import MODELS, resolved
from fieldwise.training.network.bundle import Bundle, load_bundle, save_bundle
from fieldwise.training.network.network import Network
from tests.snapshots import hash_spec, random_slots

SPEC = hash_spec((20, 30, 6), (1, 1, 3))


def bundle_of(kind: str, seed: int = 1) -> Bundle:
    settings = resolved(ModelConfig(kind=kind, pair_buckets=64 if MODELS[kind].paired else None))
    network = Network(SPEC, settings, seed=seed)
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 0.3, network.table.weight.shape).astype(np.float32)
    dense = {name: rng.normal(0, 1, value.shape).astype(np.float32) for name, value in network.dense().items()}
    return network.bundle(weight, dense, logit_shift=-1.5)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_round_trip_gives_the_same_bytes_and_scores(kind: str, tmp_path: Path) -> None:
    bundle = bundle_of(kind)
    digest = save_bundle(tmp_path / "a", bundle)
    assert digest == save_bundle(tmp_path / "b", bundle_of(kind))
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    loaded = load_bundle(tmp_path / "a")
    assert loaded.digest == digest
    assert (loaded.kind, loaded.logit_shift, loaded.bias) == (kind, -1.5, float(bundle.dense["bias"][0]))
    assert loaded.spec.digest == SPEC.digest
    slots = random_slots(SPEC, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(
        Network.from_bundle(loaded).logits(slots), Network.from_bundle(bundle, fused=True).logits(slots)
    )
    assert save_bundle(tmp_path / "b", replace(loaded, logit_shift=0.0)) != digest
    assert load_bundle(tmp_path / "b").logit_shift == 0.0


def edit_model(**changes: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "model.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


def edit_learned(**changes: object) -> Callable[[Path], None]:
    return lambda directory: (directory / "learned.json").write_text(json.dumps(changes))


def edit_chosen(**changes: object) -> Callable[[Path], None]:
    sound = {"optimizer": "adagrad", "learning_rate": 0.1, "l2": 0.0, "dim": 4, "rows": 9, "epochs": 1, "trials": 1,
             "valid": 0.5, "prior_valid": None}  # fmt: skip
    return lambda directory: (directory / "chosen.json").write_text(json.dumps(sound | changes))


def again(key: str) -> Callable[[Path], None]:
    """A key of model.json a second time: a reader that takes the first, and one that takes the last, would differ."""

    def edit(directory: Path) -> None:
        path = directory / "model.json"
        path.write_text(path.read_text().rstrip().removesuffix("}") + f', "{key}": "lr"}}')

    return edit


def edit_weights(change: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Change tensors and make their checksum fit again: the shapes alone must tell."""

    def edit(directory: Path) -> None:
        path = directory / "weights.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        edit_model(weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())(directory)

    return edit


def rename_type(directory: Path) -> None:
    """To one that numpy does not have, with the checksum made to fit."""
    path = directory / "weights.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"C64"'))
    edit_model(weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest())(directory)


def flip_byte(name: str) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        raw = bytearray((directory / name).read_bytes())
        raw[-20] ^= 1
        (directory / name).write_bytes(raw)

    return edit


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """In a file's place what is none."""

    def edit(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        make(directory / name)

    return edit


def link_to_nothing(path: Path) -> None:
    path.symlink_to("nowhere")


WIDE = {"method": "isotonic", "logits": [-1e308, 1e308], "calibrated": [-1e308, 1e308]}
"""Finite knots whose differences are not."""
DAMAGES = {
    "flipped weights": (flip_byte("weights.safetensors"), "other bytes"),
    "no model.json": (lambda d: (d / "model.json").unlink(), "No such file"),
    "no weights": (lambda d: (d / "weights.safetensors").unlink(), "No such file"),
    "no spec": (lambda d: (d / "spec.json").unlink(), "spec.json"),
    "other kind": (edit_model(kind="lr", dim=0), "a table of"),
    "unknown kind": (edit_model(kind="gbdt"), "gbdt"),
    "unknown key": (edit_model(run_id="x"), "run_id"),
    "other spec": (edit_model(spec_digest="0" * 64), "feature spec 000000000000"),
    "huge dim": (edit_model(dim=10**9), "a table of"),
    "huge table": (edit_model(rows=10**12, width=10**9), "a table of"),  # so much must not be asked of the memory
    "zero dim": (edit_model(dim=0), "dim"),
    "not a number": (edit_model(calibration={"logit_shift": float("nan")}), "logit_shift"),
    "path in kind": (edit_model(kind="../../etc"), "one of"),
    "true for a number": (edit_model(rows=True), "rows"),
    "text for a number": (edit_model(width="3"), "width"),
    "a key twice": (again("kind"), "the key 'kind' 2 times in one object"),
    "no day": (edit_learned(days=["2026-02-30"]), "days.0"),
    "a day of another spelling": (edit_learned(through="20260130"), "through"),
    "true for rows": (edit_learned(rows={"0" * 64: True}), "rows"),
    "a rate that is none": (edit_chosen(learning_rate=-1.0), "learning_rate"),
    "a setting of elsewhere": (edit_chosen(momentum=0.9), "momentum"),
    "not json": (lambda d: (d / "model.json").write_bytes(b"\x80\x04."), "JSON"),
    "huge json": (lambda d: (d / "model.json").write_bytes(b" " * (1 << 21)), "at most"),
    "lost tensor": (edit_weights(lambda t: t.pop("dense.bias")), "dense.bias"),
    "extra tensor": (edit_weights(lambda t: t.update(more=np.zeros(1, np.float32))), "more"),
    "cut table": (edit_weights(lambda t: t.update(table=t["table"][:-1].copy())), "tensors"),
    "doubles": (edit_weights(lambda t: t.update(table=t["table"].astype(np.float64))), "float64"),
    "strange type": (rename_type, "a safetensors file of float32"),
    "a pipe for weights": (instead("weights.safetensors", os.mkfifo), "a file, found no plain file"),
    "a folder for weights": (instead("weights.safetensors", Path.mkdir), "a file, found a directory"),
    "a folder for what it learned": (instead("learned.json", Path.mkdir), "learned.json: expected a file, found a dir"),
    "a folder for its record": (instead("data.json", Path.mkdir), "data.json: expected a file, found a directory"),
    "a link to nothing": (instead("chosen.json", link_to_nothing), "chosen.json: expected a file, found No such file"),
    "knots too wide": (edit_model(calibration={"calibrator": WIDE}), "logits.0 where a number at least -1e"),
    "infinite": (edit_weights(lambda t: t["table"].__setitem__((3, 1), np.inf)), "inf, nan"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_refused(name: str, tmp_path: Path) -> None:
    damage, found = DAMAGES[name]
    save_bundle(tmp_path / "bundle", bundle_of("fm"))
    damage(tmp_path / "bundle")
    with pytest.raises(ArtifactError, match=found):
        load_bundle(tmp_path / "bundle")


def test_diverged_weights_are_not_saved_and_nothing_is_left(tmp_path: Path) -> None:
    bundle = bundle_of("fm")
    bundle.weight[2, 3] = np.nan
    with pytest.raises(IntegrityError, match="weights table: expected finite numbers"):
        save_bundle(tmp_path / "bundle", bundle)
    assert list(tmp_path.iterdir()) == []
