"""The vectors of a catalog's contexts and items, read and computed on the driver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fieldwise.features.arrays import Int32
from fieldwise.features.errors import ConfigError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.quarantine import Quarantined
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.words import listed
from fieldwise.pipelines.build.quality import judged_rejects
from fieldwise.pipelines.catalog.items import RANGE_BYTES, refuse_repeated
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.coverage import Coverage, Tally
from fieldwise.pipelines.score.ids import together
from fieldwise.pipelines.score.sides import Side, Split
from fieldwise.training.models import kind_of, kinds
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.scoring.factors import dimensions, require_factors
from fieldwise.training.scoring.scorer import Scorer


@dataclass(frozen=True)
class Contexts:
    """All contexts, in the order they were read."""

    ids: pa.Array
    slots: Int32
    tally: Tally
    quarantined: list[Quarantined]


def require_vectors(bundle: Bundle, split: Split) -> None:
    """ConfigError for models and fields whose score is no inner product of context and item."""
    require_factors(bundle.kind)
    if split.mixed or kind_of(bundle.kind).paired:
        able = listed(kind for kind in kinds("splits") if not kind_of(kind).paired)
        raise ConfigError(
            "catalog",
            expected="a score that is an inner product of context and item",
            found=f"field {split.mixed[0]!r} over both" if split.mixed else f"model.kind {bundle.kind}",
            fix=f"Take {able} over fields of one side each.",
        )


def require_similarity(bundle: Bundle, split: Split, key: str) -> None:
    """ConfigError for models that do not tell which items or contexts are alike, for they have no vectors of them.

    Args:
        key: what needs them.
    """
    able = [kind for kind in kinds("splits") if kind_of(kind).latent and not kind_of(kind).paired]
    if bundle.kind in able and not split.mixed and dimensions(Scorer(bundle), split.of_item):
        return
    found = f"field {split.mixed[0]!r} over both" if split.mixed else f"model.kind {bundle.kind}"
    fix = f"Take {listed(able)}, over fields of one side each."
    raise ConfigError(key, expected="a model whose items and contexts have vectors", found=found, fix=fix)


def read_contexts(config: Config, side: Side, spec: FeatureSpec, date: str | None, coverage: Coverage) -> Contexts:
    """Raises InputError for a repeated id, RefusedError past the tolerated share of bad rows."""
    ranges = split_ranges(side.source, list_files(side.source, config.base, date), RANGE_BYTES)
    parts = [rows for rng in ranges for rows in side.rows(rng, spec)]
    rejects = [reject for part in parts for reject in part.rejects]
    bad = judged_rejects(config, "catalog.contexts", sum(len(p.ids) for p in parts), rejects, side.source.format)
    ids = together([part.ids for part in parts], "catalog.contexts")
    refuse_repeated(ids.take(pc.sort_indices(ids)), "catalog.contexts", side.id, "Give every context one row.")
    tally = Tally(spec, coverage)
    for part in parts:
        tally.add(part.slots, part.columns)
    return Contexts(ids, np.concatenate([part.slots for part in parts]), tally, bad)
