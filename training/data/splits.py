"""Published snapshots as splits to train, validate and test on."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fieldwise.features.errors import ArtifactError, InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.snapshot.manifest import FileEntry, Snapshot, require_weights, weights_of
from fieldwise.features.snapshot.record import without_paths
from fieldwise.training.data.files import DataFile, read_floats
from fieldwise.training.data.learned import Learned
from fieldwise.training.ranks.world import World

_SAMPLED_FILES = 8
"""From so many files, where there are as many, a sample is taken: files may differ, as days do."""
_HELD_OUT = 0.1


@dataclass(frozen=True)
class Split:
    """The files of one role."""

    role: str
    files: tuple[DataFile, ...]
    positives: int
    weighted: bool
    """Whether rows have weights; all snapshots of a training do or none does."""
    weights: tuple[float, float] | None
    """Of negatives and of positives, where manifests know them."""
    negative_rate: float | None
    """Share of negatives kept when the snapshot was built; only ever set for training rows."""

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    def sample(self, rows: int) -> Split:
        """About ``rows`` of its rows: the first ones of files that lie evenly spread. Files hold rows in no order."""
        if rows >= self.rows:
            return self
        every = max(1, min(self.rows // rows, len(self.files) // _SAMPLED_FILES))
        files = self.files[::every]
        share = min(1.0, rows / sum(file.rows for file in files))
        return self._of([file.part(0, math.ceil(share * file.rows)) for file in files])

    def held_out(self) -> tuple[Split, Split]:
        """All but about a tenth of its rows, and that tenth, as ``valid``: by time where the rows are of several
        snapshots, whose last ones are held out, else the last rows of every file."""
        places = list(dict.fromkeys(os.path.dirname(file.path) for file in self.files))
        last: list[DataFile] = []
        for place in reversed(places[1:]):
            last = [file for file in self.files if os.path.dirname(file.path) == place] + last
            if sum(file.rows for file in last) >= _HELD_OUT * self.rows:
                break
        if held := set(last):
            return self._of([file for file in self.files if file not in held]), self._of(last, "valid")
        cuts = [(file, math.ceil((1 - _HELD_OUT) * file.rows)) for file in self.files]
        return (
            self._of([file.part(0, cut) for file, cut in cuts]),
            self._of([file.part(cut, file.rows - cut) for file, cut in cuts if cut < file.rows], "valid"),
        )

    def _of(self, files: Sequence[DataFile], role: str | None = None) -> Split:
        """Other files of the same snapshots. Positives are counted; of weights, nothing is known beforehand."""
        positives = sum(int(read_floats(file, ["label"])[0].sum()) for file in files)
        return replace(self, role=role or self.role, files=tuple(files), positives=positives, weights=None)

    def base_rate(self, world: World) -> float:
        """Weighted mean of the labels, in (0, 1). Weights are read; without them the manifests know."""
        if not self.weighted:
            return self.positives / self.rows
        sums = np.zeros(3)
        for file in self.files[world.rank :: world.size]:
            label, weight = read_floats(file, ["label", "weight"])
            sums += [weight @ label, weight @ (1 - label), weight.sum()]
        positive, negative, total = world.sum(sums)
        require_weights(self.role, negative, positive)
        return float(positive / total)

    def require_both_classes(self) -> None:
        """InputError when the split is empty, or all labels of rows that have any weight are equal."""
        if self.rows == 0:
            found, fix = "no rows", "Check the split settings, or which days have which role."
        elif self.positives in (0, self.rows):
            found = f"{self.rows} rows, all labelled {1 if self.positives else 0}"
            fix = "Check the label expression and the split settings."
        elif self.weights is not None:
            require_weights(self.role, *self.weights)
            return
        else:
            return
        raise InputError(f"split {self.role}", expected="rows of both classes", found=found, fix=fix)


@dataclass(frozen=True)
class TrainData:
    """One feature spec and three splits; ``snapshots`` maps what was read to its digest."""

    spec: FeatureSpec
    train: Split
    valid: Split
    test: Split
    snapshots: dict[str, str]
    record: dict[str, Any] | None = None
    """What the training rows followed from, as a bundle keeps it; None where a snapshot of old does not say."""
    learned: Learned = field(default_factory=Learned)
    """What a model learns from the training rows."""

    @classmethod
    def of(cls, train: Sequence[Snapshot], valid: Sequence[Snapshot] = (), test: Sequence[Snapshot] = ()) -> TrainData:
        """Splits from snapshots per role.

        A snapshot gives a role its files of that role and its files of role ``all``: pass one snapshot that was split
        when it was built for all three roles, or daily snapshots to one role each.

        Raises:
            ArtifactError: snapshots of different feature specs or negative-downsampling rates, some with weights and
                some without, or an unsplit snapshot in two roles.
        """
        roles = {"train": train, "valid": valid, "test": test}
        everything = [snapshot for snapshots in roles.values() for snapshot in snapshots]
        if not everything:
            raise InputError("training data", expected="at least one snapshot", found="none", fix="Name a snapshot.")
        first = everything[0]
        for role, snapshots in roles.items():
            for place, snapshot in enumerate(snapshots):
                if snapshot.manifest.digest in [other.manifest.digest for other in snapshots[:place]]:
                    fix = "Name it once: its rows would count twice."
                    raise ArtifactError(
                        snapshot.dir, expected=f"each snapshot once in {role}", found="it again", fix=fix
                    )
        for other in everything:
            if other.spec.digest != first.spec.digest:
                raise ArtifactError(
                    other.dir,
                    expected=f"the feature spec {first.spec.digest[:12]} of {first.dir}",
                    found=f"spec {other.spec.digest[:12]}",
                    fix="Build the snapshots with one frozen spec (--spec).",
                )
            if other.manifest.has_weight != first.manifest.has_weight:
                raise ArtifactError(
                    other.dir,
                    expected=f"{'a weight' if first.manifest.has_weight else 'no weight'} as in {first.dir}",
                    found="the opposite",
                    fix="Build the snapshots with the same `weight`.",
                )
        _refuse_overlap(roles)
        splits = {role: _split(role, snapshots) for role, snapshots in roles.items()}
        digests = {snapshot.manifest.id: snapshot.manifest.digest for snapshot in everything}
        asked = train[0].manifest.config if train else None
        record = None if asked is None else without_paths(asked)
        return cls(first.spec, splits["train"], splits["valid"], splits["test"], digests, record, Learned.of(train))

    @classmethod
    def of_one(cls, snapshot: Snapshot) -> TrainData:
        """The splits made when the snapshot was built."""
        return cls.of([snapshot], [snapshot], [snapshot])

    def require_both_classes(self, *, valid: bool) -> None:
        """InputError when a split cannot serve; a validation split need not exist unless ``valid``."""
        for split, needed in ((self.train, True), (self.valid, valid), (self.test, False)):
            if needed or split.files:
                split.require_both_classes()


def _refuse_overlap(roles: dict[str, Sequence[Snapshot]]) -> None:
    seen: dict[str, str] = {}
    for role, snapshots in roles.items():
        for snapshot in snapshots:
            if snapshot.manifest.files_of(["all"]) and seen.setdefault(snapshot.manifest.digest, role) != role:
                raise ArtifactError(
                    snapshot.dir,
                    expected="an unsplit snapshot in one role",
                    found=f"it in {seen[snapshot.manifest.digest]} and {role}",
                    fix="Name different days for each role, or split the snapshot when building it.",
                )


def _split(role: str, snapshots: Sequence[Snapshot]) -> Split:
    entries = [(snapshot, entry) for snapshot in snapshots for entry in snapshot.manifest.files_of([role, "all"])]
    rates = {snapshot.manifest.negative_rate for snapshot, _ in entries if role == "train"} or {None}
    if len(rates) > 1:
        raise ArtifactError(
            f"split {role}",
            expected="one negative-downsampling rate",
            found=", ".join(sorted(map(str, rates))),
            fix="Build the snapshots with the same snapshot.negative_rate.",
        )
    return Split(
        role,
        tuple(_data_file(snapshot, entry) for snapshot, entry in entries),
        positives=sum(entry.positives for _, entry in entries),
        weighted=any(snapshot.manifest.has_weight for snapshot in snapshots),
        weights=weights_of(entry for _, entry in entries),
        negative_rate=rates.pop(),
    )


def _data_file(snapshot: Snapshot, entry: FileEntry) -> DataFile:
    return DataFile(
        snapshot.path(entry),
        entry.rows,
        entry.sha256,
        entry.identity,
        positives=entry.positives,
        weighted=snapshot.manifest.has_weight,
    )
