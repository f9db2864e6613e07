"""A saved model: data only, the same bytes for the same model, verified when loaded.

    weights.safetensors    table float32 [rows, width]; dense.<name> float32, the bias among them
    model.json             kind, sizes, spec digest, calibration, SHA-256 of the weights
    spec.json, vocabulary.parquet
    data.json              what the training rows followed from (`features.snapshot.record`); bundles of old have none
    learned.json           which rows it has learned from, as part of its line (`training.data.learned`); bundles of old
                           have none
    chosen.json            settings that a search has found for its line (`training.models.defaults`), where one has
    family.json            the models that it was chosen among (`pipelines.train.family`), for people; only where its
                           kind was chosen

Nothing in it tells when, where or in which run it was made. Its digest is the SHA-256 of model.json, which holds the
checksums of everything else but data.json, learned.json, chosen.json and family.json: the same rows may be asked for in
several ways, and the same weights come from training once or in parts.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load
from safetensors.torch import save_file

from fieldwise.features import store
from fieldwise.features.arrays import Float32
from fieldwise.features.errors import ArtifactError, ConfigError, IntegrityError, storage_error, store_error
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.schema import Strict
from fieldwise.features.snapshot.record import check_record
from fieldwise.features.store import bounded
from fieldwise.training.data.batch import layout_of
from fieldwise.training.data.learned import Learned
from fieldwise.training.models import ModelSettings, settings_of
from fieldwise.training.models.base import build_model
from fieldwise.training.models.defaults import Chosen
from fieldwise.training.models.layout import Layout
from fieldwise.training.network.calibration import Calibration, Isotonic, Platt
from fieldwise.training.network.files import CHOSEN, DATA, FAMILY, LEARNED, MODEL, WEIGHTS

Told = TypeVar("Told", bound=Strict)


_FIX = "The bundle is incomplete, damaged or of another version: train or export it again."


_MOST_MODEL_BYTES = 1 << 20


_MOST_HEADER_BYTES = 1 << 16
"""Of the names and shapes of all tensors."""


_MOST_OTHER_BYTES = 64 << 20
"""Of weights beside the table."""


class _ModelFile(Strict):
    """model.json."""

    format_version: Literal[1] = 1
    kind: str
    dim: Annotated[int, Field(ge=0)]
    pair_buckets: Annotated[int, Field(ge=0)]
    own: dict[str, Any] = Field(default_factory=dict)
    """The kind's own keys; left out where it has none."""
    rows: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]
    spec_digest: str
    calibration: Calibration
    weights_sha256: str


@dataclass(frozen=True)
class Bundle:
    """A trained model with all that is needed to score raw rows."""

    settings: ModelSettings
    spec: FeatureSpec
    weight: Float32  # [rows, width]
    dense: dict[str, Float32]
    logit_shift: float = 0.0
    """Added to a logit to undo negative downsampling; see ``training.network.calibration``."""
    calibrator: Platt | Isotonic | None = None
    """Turns the shifted logit into a calibrated one; None leaves it."""
    digest: str = field(default="", compare=False)
    """Known once saved or loaded."""
    record: dict[str, Any] | None = field(default=None, compare=False)
    """What the training rows followed from, paths hidden (`features.snapshot.record`); None where that is not known."""
    learned: Learned | None = field(default=None, compare=False)
    """Of all trainings of its line; None where that is not known."""
    chosen: Chosen | None = field(default=None, compare=False)
    """What the data chose for its line; None where a config or the priors said it all."""

    @property
    def kind(self) -> str:
        return self.settings.kind

    @cached_property
    def layout(self) -> Layout:
        return layout_of(self.spec)

    @property
    def bias(self) -> float:
        return float(self.dense["bias"][0])


def save_bundle(directory: str | Path, bundle: Bundle) -> str:
    """Write a bundle to a new local directory, whole or not at all; one that stands there is replaced.

    Returns its digest. Raises IntegrityError when a weight is not finite, StorageError when the disk is full.
    """
    target = Path(directory)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft, former = (target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp" for _ in range(2))
    try:
        draft.mkdir()
        digest = _write(draft, bundle)
        if target.exists():
            os.replace(target, former)
        os.replace(draft, target)
    except (OSError, SafetensorError) as error:
        known = storage_error(error, str(target))
        if known is None:
            raise
        raise known from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
    return digest


def _write(draft: Path, bundle: Bundle) -> str:
    tensors = {"table": bundle.weight, **{f"dense.{name}": value for name, value in bundle.dense.items()}}
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            fix = "Training diverged: lower training.learning_rate, or raise training.l2."
            raise IntegrityError(f"weights {name}", expected="finite numbers", found="inf or nan", fix=fix)
    arrays = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}
    save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, draft / WEIGHTS)  # without a copy
    settings, (rows, width) = bundle.settings, bundle.weight.shape
    model = _ModelFile(
        kind=settings.kind,
        dim=settings.dim,
        pair_buckets=settings.pair_buckets,
        own=settings.own.model_dump(mode="json"),
        rows=rows,
        width=width,
        spec_digest=bundle.spec.digest,
        calibration=Calibration(logit_shift=bundle.logit_shift, calibrator=bundle.calibrator),
        weights_sha256=_sha256(draft / WEIGHTS),
    )
    shown = model.model_dump(mode="json")
    if not model.own:
        del shown["own"]
    if bundle.calibrator is None:  # as earlier versions wrote it
        del shown["calibration"]["calibrator"]
    text = (json.dumps(shown, indent=1, sort_keys=True) + "\n").encode()
    bundle.spec.save(str(draft))
    (draft / MODEL).write_bytes(text)
    if bundle.record is not None:
        (draft / DATA).write_text(json.dumps(bundle.record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    if bundle.learned is not None:
        (draft / LEARNED).write_text(bundle.learned.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if bundle.chosen is not None:
        (draft / CHOSEN).write_text(bundle.chosen.model_dump_json(indent=1) + "\n", encoding="utf-8")
    for name in (WEIGHTS, MODEL):
        with open(draft / name, "rb") as file:
            os.fsync(file.fileno())
    return hashlib.sha256(text).hexdigest()


def save_family(directory: str | Path, record: dict[str, Any]) -> None:
    """Add to a bundle what it was chosen against."""
    store.write_atomic(str(Path(directory, FAMILY)), (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def load_bundle(directory: str | Path) -> Bundle:
    """Read and verify a bundle, of a directory or a URL.

    Raises ArtifactError when a file is missing, was changed, or does not fit the others.
    """
    path = str(directory)
    place = partial(store.join, path)
    try:
        text = bounded.read(place(MODEL), _MOST_MODEL_BYTES, _FIX)
        model = bounded.validated(text, _ModelFile, place(MODEL), "a model description of format 1", _FIX)
        weights = _read(place(WEIGHTS), 4 * model.rows * model.width + _MOST_OTHER_BYTES)
        if int.from_bytes(weights[:8], "little") > _MOST_HEADER_BYTES:  # before it is unfolded
            raise _damaged(place(WEIGHTS), f"a header of at most {_MOST_HEADER_BYTES:,} bytes", "a longer one")
        if hashlib.sha256(weights).hexdigest() != model.weights_sha256:
            raise _damaged(place(WEIGHTS), f"SHA-256 {model.weights_sha256[:12]}", "other bytes")
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and store_error(error) is not None:  # which passes
            raise
        found = f"{error.strerror or 'no such file'}: {error.filename or ''}".rstrip(": ")
        raise _damaged(path, f"a bundle with {MODEL} and {WEIGHTS}", found) from error
    try:
        tensors = load(weights)
    except (SafetensorError, KeyError, ValueError) as error:  # the last two for types that numpy lacks
        raise _damaged(place(WEIGHTS), "a safetensors file of float32", str(error)) from error
    spec = FeatureSpec.load(path)
    if spec.digest != model.spec_digest:
        raise _damaged(path, f"feature spec {model.spec_digest[:12]}", f"spec {spec.digest[:12]}")
    bundle = Bundle(
        settings=_settings(place(MODEL), model),
        spec=spec,
        weight=tensors.pop("table", np.empty((0, 0), np.float32)),
        dense={name.removeprefix("dense."): tensor for name, tensor in tensors.items()},
        logit_shift=model.calibration.logit_shift,
        calibrator=model.calibration.calibrator,
        record=_record(place(DATA)),
        learned=_told(place(LEARNED), Learned, "which rows it has learned from"),
        chosen=_told(place(CHOSEN), Chosen, "the settings that a search has found"),
    )
    _check_shapes(path, model, bundle)
    return replace(bundle, digest=hashlib.sha256(text).hexdigest())


def _settings(path: str, model: _ModelFile) -> ModelSettings:
    try:
        return settings_of(model.kind, dim=model.dim, pair_buckets=model.pair_buckets, own=model.own)
    except ConfigError as error:
        raise _damaged(path, error.expected, f"{error.where} {error.found}") from error


def _record(path: str) -> dict[str, Any] | None:
    content = _beside(path)
    if content is None:
        return None
    record = bounded.parse(content, path, _FIX)
    try:
        check_record(record)
    except ValueError as error:
        raise _damaged(path, "what the training rows followed from, as JSON", str(error)) from error
    return record


def _told(path: str, kind: type[Told], what: str) -> Told | None:
    content = _beside(path)
    return None if content is None else bounded.validated(content, kind, path, what, _FIX)


def _beside(path: str) -> bytes | None:
    """A file that bundles of old lack; a link that leads nowhere is damage."""
    if not (store.exists(path) or os.path.islink(path)):
        return None
    try:
        return bounded.read(path, _MOST_MODEL_BYTES, _FIX)
    except OSError as error:
        if not isinstance(error, FileNotFoundError) and store_error(error) is not None:
            raise
        raise _damaged(path, "a file", error.strerror or str(error)) from error


def _read(path: str, most: int) -> bytes:
    fs, inner = store.resolve(path)
    facts = fs.info(inner)
    size = int(facts["size"] or 0)
    if facts["type"] != "file":  # a pipe would never end
        raise _damaged(path, "a file", "a directory" if facts["type"] == "directory" else "no plain file")
    with fs.open(inner, "rb") as file:
        content: bytes = file.read(min(most, size) + 1)  # ``most`` may be what the bundle itself claims
    if len(content) > most:
        raise _damaged(path, f"at most {most} bytes", "more")
    return content


def _check_shapes(path: str, model: _ModelFile, bundle: Bundle) -> None:
    """The tensors are those of this model over this spec, finite, and no others."""
    with torch.device("meta"):  # no memory for sizes that nothing has been compared with
        network = build_model(bundle.settings, bundle.layout)
    expected: dict[str, tuple[int, ...]] = {"table": (network.rows, network.width)}
    expected |= {f"dense.{name}": tuple(p.shape) for name, p in network.named_parameters()}
    if (model.rows, model.width) != expected["table"]:
        raise _damaged(store.join(path, MODEL), f"a table of {expected['table']}", f"{(model.rows, model.width)}")
    tensors = {"table": bundle.weight, **{f"dense.{name}": value for name, value in bundle.dense.items()}}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found != expected:
        raise _damaged(store.join(path, WEIGHTS), f"tensors {expected}", f"{found}")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise _damaged(store.join(path, WEIGHTS), f"finite float32 values in {name}", f"{tensor.dtype} or inf, nan")


def _damaged(path: str, expected: str, found: str) -> ArtifactError:
    return ArtifactError(path, expected=expected, found=found, fix=_FIX)
