"""What speaks for a challenger and against it: models compared on the rows of days that they have not learned from."""

from __future__ import annotations

import datetime
from functools import partial
from typing import Any

from fieldwise.features.columns.day import day_of
from fieldwise.features.errors import ArtifactError
from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.features.terminal import warn
from fieldwise.pipelines.build.features import load_spec
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.days import build_day
from fieldwise.pipelines.cycle.record import Record, records_before
from fieldwise.pipelines.registry import OpenedModel, open_model
from fieldwise.training.data.cache import Seen, copies_of
from fieldwise.training.data.splits import TrainData
from fieldwise.training.evaluation.paired import Comparison, Sums, score_blocks
from fieldwise.training.network.bundle import Bundle


def day_under(config: Config, record: Record, spec: str) -> str:
    """The day's snapshot under a spec that may not be the champion's."""
    own: str = record.steps["today"]["dir"]
    if load_spec(spec, config).digest == load_snapshot(own).spec.digest:
        return own
    name = f"features {record.date} for the challenger"
    built = record.step(name, lambda: build_day(config, record.date, spec, late="keep"))
    return own if built["dir"] is None else str(built["dir"])


def compare(config: Config, record: Record, champion: OpenedModel, challenger: OpenedModel) -> Comparison:
    """On the day's rows; of models of two specs each on its own snapshot of them."""
    models = {"champion": champion, "challenger": challenger}
    return _read(record.step("comparison", partial(_sums, config, record, models)))


def compared(config: Config, day: str) -> Comparison:
    """What an earlier date has kept."""
    return _read(Record(config.workspace_dir, day).steps["comparison"])


def _read(sums: dict[str, Any]) -> Comparison:
    return Comparison(Sums.from_plain(sums["champion"]), Sums.from_plain(sums["challenger"]))


def _sums(config: Config, record: Record, models: dict[str, OpenedModel]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    own = models["champion"].bundle.spec.digest
    for same in (True, False):
        bundles: dict[str, Bundle] = {
            name: model.bundle for name, model in models.items() if (model.bundle.spec.digest == own) == same
        }
        if bundles:
            first = next(model for name, model in models.items() if name in bundles)
            place = record.steps["today"]["dir"] if same else day_under(config, record, first.directory)
            split = TrainData.of([], [], [load_snapshot(place)]).test
            gates = config.daily.gate
            seen = Seen(reader=config.training.reader, copies=copies_of(config.training))
            sums = score_blocks(split, bundles, group=gates.group, slices=gates.slices, seen=seen)
            found |= {name: each.plain() for name, each in sums.items()}
    return found


def against_older(config: Config, record: Record, challenger: OpenedModel) -> dict[int, Comparison]:
    """The challenger against the champions of earlier days, where those were others and stand in the registry."""
    found: dict[int, Comparison] = {}
    for age in config.daily.gate.ages:
        then = str(day_of(record.date) - datetime.timedelta(days=age - 1))
        before = (each.steps.get("champion") for each in records_before(config.workspace_dir, then))
        model = next((reference for reference in before if reference), None)
        if model is None or model == record.steps["champion"]:
            continue
        try:
            older = open_model(model, config)
        except ArtifactError as error:  # deleted since
            warn(f"not compared with the champion of {age} days ago: {error}")
            continue
        models = {"champion": older, "challenger": challenger}
        found[age] = _read(record.step(f"comparison with {model}", partial(_sums, config, record, models)))
    return found
