"""How much of what is scored the model has met in training: shares of missing and unseen values by field.

A vocabulary says which values are unseen. A bucket of a hashed field says it where training never touched its row of
the table: the linear weight of such a row is still 0, and the latent ones are not. With a share q of the buckets
touched, new values land in touched ones at that rate, so

    unseen share = (values in untouched buckets / values) / (1 - q)

which is told for q up to a half; in fuller buckets new values cannot be told from known ones. Numbers and times have
no unseen values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.batch import Columns
from fieldwise.features.columns.text import canonical
from fieldwise.features.errors import RefusedError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.kernels.counts import count_known
from fieldwise.features.kernels.strings import FIRST, UNSEEN
from fieldwise.features.terminal import say
from fieldwise.pipelines.build.drift import kept_expected
from fieldwise.pipelines.config.schema import Config

if TYPE_CHECKING:  # torch
    from fieldwise.training.network.bundle import Bundle

Share = dict[str, Any]
"""``values``, the shares of ``missing`` and ``unseen`` ones (None where untold), an ``example`` if there is any."""
_FULLEST = 0.5
_ALL_KNOWN = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Coverage:
    """What a model has met of its fields. Picklable: tasks count with it."""

    touched: Mapping[str, npt.NDArray[np.uint8]]
    """By hashed field whose untouched rows can be told: which of its rows [size] training has touched."""

    @staticmethod
    def of(bundle: Bundle, config: Config) -> Coverage:
        touched = {}
        for field in bundle.spec.fields:
            if field.config.hashed and not (bundle.weight.shape[1] == 1 and config.training.l1 > 0):
                rows = bundle.weight[field.offset : field.offset + field.size]
                fresh = rows[:, 0] == 0
                if rows.shape[1] > 1:  # a row that l1 has made 0 is 0 everywhere
                    fresh[fresh] = rows[fresh, 1:].any(axis=1)
                filled = 1 - fresh[FIRST:].mean()
                if 0 < filled <= _FULLEST:
                    touched[field.name] = (~fresh).astype(np.uint8)
        return Coverage(touched)


class Tally:
    """Counts over rows that are scored, made in tasks and summed by the driver."""

    def __init__(self, spec: FeatureSpec, coverage: Coverage) -> None:
        self.spec, self._touched = spec, coverage.touched
        self.counts = np.zeros((len(spec.fields), 4), np.int64)
        """[F]: values, missing, unseen, in untouched buckets."""
        self.examples: dict[str, str] = {}
        """By field, the text of a raw value that training has not seen."""

    def add(self, slots: npt.NDArray[np.int32], columns: Columns | pa.RecordBatch) -> None:
        """Count slots [n, S] and their raw columns."""
        for place, field in enumerate(self.spec.fields):
            touched = self._touched.get(field.name, _ALL_KNOWN)
            before = self.counts[place, 2:].sum()
            for slot in range(field.first_slot, field.first_slot + field.slots):
                count_known(np.ascontiguousarray(slots[:, slot]), touched, self.counts[place])
            if self.counts[place, 2:].sum() > before and field.name not in self.examples:
                own = slots[:, field.first_slot : field.first_slot + field.slots]
                new = (own == UNSEEN) | ((own >= FIRST) & (touched[own] == 0) if len(touched) else False)
                row = int(np.flatnonzero(new.any(axis=1))[0])
                read = Columns.of(columns)
                values = [_shown(read.array(name).slice(row, 1)) for name in field.config.columns]
                self.examples[field.name] = ", ".join(values)

    def report(self) -> dict[str, Any]:
        """As JSON, for ``merge``."""
        return {"counts": self.counts.tolist(), "examples": self.examples}

    def merge(self, report: Mapping[str, Any]) -> None:
        self.counts += np.array(report["counts"], np.int64)
        for name, example in report["examples"].items():
            self.examples[name] = min(example, self.examples.get(name, example))  # whatever the order of the tasks

    def shares(self, fields: Collection[str]) -> dict[str, Share]:
        """Of fields, by name."""
        found: dict[str, Share] = {}
        for field, (values, missing, unseen, fresh) in zip(self.spec.fields, self.counts.tolist(), strict=True):
            if field.name not in fields:
                continue
            share: float | None = unseen / max(1, values)
            if field.name in self._touched:
                empty = 1 - float(self._touched[field.name][FIRST:].mean())
                share = min(1 - missing / max(1, values), fresh / max(1, values) / empty)
            elif field.config.hashed:
                share = None
            found[field.name] = {"values": values, "missing": missing / max(1, values), "unseen": share}
            if field.name in self.examples:
                found[field.name]["example"] = self.examples[field.name]
        return found


def require_known(config: Config, spec: FeatureSpec, where: str, shares: Mapping[str, Share]) -> None:
    """Say the shares, and refuse where next to nothing is left of what training knew of a field.

    Raises RefusedError when the share of a field's values that are seen is below (1 - ``scoring.max_unseen``) of the
    share that was seen in training.
    """
    _say(where, shares)
    expected = kept_expected(config, spec.digest)
    for name, found in shares.items():
        present, unseen = 1 - found["missing"], found["unseen"]
        if unseen is None or present <= 0 or not spec[name].values or name in config.scoring.new_values:
            continue
        rare = 0.0
        if expected is not None:
            counts = expected.fields[name]
            rare = counts[1] / max(1, sum(counts[1:]))
        if 1 - unseen / present < (1 - config.scoring.max_unseen) * (1 - rare) - 1e-9:
            raise RefusedError(
                where,
                expected=f"values of field {name!r} that training has seen{_known(spec, name)}",
                found=f"{unseen / present:.1%} unseen, such as {found.get('example')}",
                fix="Write them as the training's log does (leading zeros, `39` for `39.0`). If they are new indeed, "
                f"add {name!r} to scoring.new_values, or raise scoring.max_unseen.",
            )


def _shown(value: pa.Array) -> str:
    """Of one value: its canonical text, which is what training would have had to see."""
    text = value if pa.types.is_nested(value.type) else canonical(value)
    return repr(text[0].as_py())[:80]


def _known(spec: FeatureSpec, name: str) -> str:
    vocabulary = spec.fit_of(name).vocabulary
    return "" if vocabulary is None else ", such as " + ", ".join(repr(v.as_py()) for v in vocabulary.values[:2])


def _say(where: str, shares: Mapping[str, Share]) -> None:
    """One line: the fields with missing or unseen values, and those of which unseen values are not told."""
    told = []
    for name, found in shares.items():
        parts = [f"{found[kind]:.1%} {kind}" for kind in ("unseen", "missing") if found[kind]]
        told += [f"{name} {' and '.join(parts)}"] if parts else []
    untold = [name for name, found in shares.items() if found["unseen"] is None]
    line = "; ".join(told) or "no missing or unseen values"
    say(f"  {where}: {line}" + (f" (unseen not told of hashed {', '.join(untold)})" if untold else ""))
