"""What all who train together must have alike, and the first of it that they have not, by name."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TypeVar

from fieldwise.features.code import code_digest
from fieldwise.features.errors import ConfigError, FieldwiseError, retold, told
from fieldwise.features.store.kept import digest_of
from fieldwise.pipelines.config.schema import Config
from fieldwise.training.data.splits import TrainData
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.ranks.world import World

Traits = Mapping[str, str]
T = TypeVar("T")

_OWN = {"threads", "cache_mb", "reader", "verify_checksums", "restarts", "timeout_seconds"}
"""Keys of ``training`` that each machine may have its own way: they change no row and no step."""
_PACKAGES = ("torch", "numba", "numpy")


def traits_of(config: Config, data: TrainData, origin: Bundle | None = None) -> Traits:
    """What the steps of a training follow from, by names that people know: texts, which are equal or not."""
    training = {key: value for key, value in config.training.model_dump(mode="json").items() if key not in _OWN}
    settings = {"model": config.model.model_dump(mode="json"), "training": training}
    keys = {f"{part}.{key}": json.dumps(value) for part, values in settings.items() for key, value in values.items()}
    splits = {role: getattr(data, role) for role in ("train", "valid", "test")}
    files = {
        f"rows to {role} on": f"{split.rows:,} rows of digest {digest_of([f.identity for f in split.files])[:12]}"
        for role, split in splits.items()
    }
    return {
        "fieldwise": f"source files of digest {code_digest()[:12]}",
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: metadata.version(name) for name in _PACKAGES},
        **keys,
        "feature spec": data.spec.digest[:12],
        **files,
        "--init": "none" if origin is None else f"bundle {origin.digest[:12]}",
    }


def difference(theirs: Traits, who: str, first: Traits, where: str) -> ConfigError | None:
    """The first thing that somebody has not as the first of all has it."""
    for name in {**first, **theirs}:
        wanted, found = first.get(name, "nothing of it"), theirs.get(name, "nothing of it")
        if wanted != found:
            return ConfigError(
                f"{name} of {who}", expected=f"{wanted} as {where} has it", found=found,
                fix="Give all of them the same config, snapshots and installation.",
            )  # fmt: skip
    return None


def together(world: World, host: str, prepare: Callable[[], tuple[T, Traits]]) -> T:
    """What each rank prepares for itself before training (collective).

    Raises on every rank what one of them met, or what one has not as rank 0 has it: nobody waits for who is not coming.
    """
    mine: dict[str, object] = {"host": host}
    found: T | None = None
    failure: FieldwiseError | None = None
    try:
        found, traits = prepare()
        mine["traits"] = dict(traits)
    except FieldwiseError as error:
        failure = error
        mine["failure"] = told(error)
    everyone = world.gather(mine)
    if failure is not None:
        raise failure
    several = len({other["host"] for other in everyone}) > 1
    for rank, other in enumerate(everyone):
        who = f"rank {rank} on {other['host']}" if several else f"rank {rank}"
        if "failure" in other:
            raise retold(other["failure"], who)
        apart = difference(other["traits"], who, everyone[0]["traits"], "rank 0")
        if apart is not None:
            raise apart
    assert found is not None
    return found
