"""What published lists look like: some of them with names, how much they differ, a warning where not at all."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.columns.text import canonical
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.names import names_of
from fieldwise.training.models import MODELS

SAMPLES, PLACES = 3, 5
"""Lists, and items of each, that are shown."""


def say_samples(config: Config, manifest: Mapping[str, Any], target: str, kind: str, date: str | None) -> None:
    """On stderr, of an output that stands."""
    lists = _first_lists(manifest, target)
    catalog = config.require_catalog()
    items = {item for _, places in lists for item, _ in places}
    names = names_of(config, catalog.item_id, items, date)
    for context, places in lists:
        told = [f"{item}{f' {names[item]}' if item in names else ''} ({chance:.4f})" for item, chance in places]
        say(f"  {catalog.context_id} {context}: {', '.join(told)}")
    different = manifest.get("different")  # not in outputs of older versions
    if different is None:
        return
    about = "" if different["exact"] else "about "
    one = different["lists"] == 1
    shown = "1 list, which shows" if one else f"{about}{different['lists']:,} different lists, which show"
    say(f"  {shown} {about}{different['items']:,} items")
    warn_of_one_list(config, manifest, kind)


def warn_of_one_list(config: Config, manifest: Mapping[str, Any], kind: str) -> None:
    """Lists that are the same for everybody serve nobody: say whence it comes, and what to do."""
    if manifest["contexts"] < 2 or config.require_catalog().candidates is not None:
        return
    alike = manifest["different"]["lists"] == 1
    if not _crosses(kind):
        able = ", ".join(filter(_crosses, MODELS))
        keys = [word for each in config.overrides for word in ("--set", each)]
        command = shlex.join(["fieldwise", "train", "--config", config.file, *keys, "--set", "model.kind=ffm"])
        said = "all lists are the same" if alike else "lists differ by what they may not hold alone"
        warn(
            f"{said}: model kind {kind} adds up weights of single values, so it ranks the items alike for everybody. "
            f"For lists of their own train one that crosses fields ({able}), such as `{command}`, and promote it"
        )
    elif alike:
        warn(
            f"all {manifest['contexts']:,} lists are the same: nothing that the model knows of these contexts sets one "
            "apart from another. Do they have values that training has seen? The shares of missing and unseen values "
            "stand under `fields` in the result"
        )


def _crosses(kind: str) -> bool:
    """Whether what a context has can change the order of the items."""
    return MODELS[kind].latent or MODELS[kind].paired


def _first_lists(manifest: Mapping[str, Any], target: str) -> list[tuple[str, list[tuple[str, float]]]]:
    """(context, (item, probability) of the first places) of the first contexts by their ids."""
    lists: list[tuple[str, list[tuple[str, float]]]] = []
    parts = [part["path"] for part in manifest["files"] if part["rows"]]
    if not parts:
        return lists
    with store.opened(store.join(target, parts[0])) as file:
        for batch in pq.ParquetFile(file).iter_batches(1024, columns=["context_id", "item_id", "probability"]):
            context, item = (canonical(batch.column(at)).cast(pa.string()).to_pylist() for at in (0, 1))
            for who, what, chance in zip(context, item, batch.column(2).to_pylist(), strict=True):
                if not lists or lists[-1][0] != who:
                    if len(lists) == SAMPLES:
                        return lists
                    lists.append((who, []))
                if len(lists[-1][1]) < PLACES:
                    lists[-1][1].append((what, chance))
    return lists
