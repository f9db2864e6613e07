"""How many healthy days are found suspicious, and from how many recent days on each poisoning is.

    python benchmarks/suspicion.py --rows 400 5000 --seeds 3

Streams: MovieLens by day and by week (where its folder is), the planted shop, and the shop where a thirtieth and a
seventh of the items get new names each day. Every day is judged against the days that were not found suspicious
before it, under a spec fitted on the stream's first part. Poisonings change encoded days of the shop. The last line of
stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # not this folder, whose features.py is not the package

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.csv  # noqa: E402

from benchmarks.record import record  # noqa: E402
from fieldwise.features.columns.moment import DAY, HOUR, part_of  # noqa: E402
from fieldwise.features.fields import fitting  # noqa: E402
from fieldwise.features.fields.encoder import Encoder  # noqa: E402
from fieldwise.features.fields.spec import FeatureSpec  # noqa: E402
from fieldwise.features.kernels.counts import count_slots  # noqa: E402
from fieldwise.features.report.drift import Distribution  # noqa: E402
from fieldwise.features.report.report import Day as Counted  # noqa: E402
from fieldwise.features.report.report import Report, field_report, tally_field  # noqa: E402
from fieldwise.features.source.log import LogBatch, LogReader  # noqa: E402
from fieldwise.features.source.rows import FileRange  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.cycle.suspicion import Day, findings  # noqa: E402
from fieldwise.pipelines.demo.shop import Shop  # noqa: E402

RECENT = (1, 3, 5, 7, 10, 14)
FITTED, DAYS = 5, 35


class Rows(NamedTuple):
    """Encoded rows of one day."""

    date: str
    slots: np.ndarray
    label: np.ndarray
    time: np.ndarray

    def take(self, keep: np.ndarray) -> Rows:
        return Rows(self.date, self.slots[keep], self.label[keep], self.time[keep])

    def report(self, spec: FeatureSpec, day: int = DAY) -> Report:
        """As a build makes it; ``day``: microseconds that count as one."""
        label, fields = (self.label > 0).astype(np.uint8), {}
        for field in spec.fields:
            counts = np.zeros((field.size, 2), np.int64)
            for slot in range(field.first_slot, field.first_slot + field.slots):
                count_slots(np.ascontiguousarray(self.slots[:, slot]), label, counts)
            fields[field.name] = field_report(spec, field, tally_field(field, counts, None, None))
        dates, counted = np.unique(self.time // day, return_counts=True)
        whole = np.column_stack([self.slots, label])
        return Report(
            rows=len(label), fields=fields,
            days=[Counted(day=_date(d, day), rows=int(n), positives=0, rate=0.0)
                  for d, n in zip(dates, counted, strict=True)],
            hours=tuple(np.bincount(part_of(self.time, "hour"), minlength=24).tolist()),
            repeated=len(whole) - len(np.unique(whole, axis=0)),
            distribution=Distribution(spec_digest=spec.digest, label=np.bincount(label, minlength=2).tolist(),
                                      fields={name: field.tally.groups for name, field in fields.items()}),
            drift=None,
        )  # fmt: skip


def _date(number: int, day: int) -> str:
    return str(np.datetime64(int(number) * (day // DAY), "D"))


def read(config: Config, path: Path) -> list[LogBatch]:
    return list(LogReader(config.features, config.base).read(FileRange(str(path), 0, path.stat().st_size)))


def encoded(config: Config, batches: list[LogBatch], fit: int, day: int = DAY) -> tuple[FeatureSpec, list[Rows]]:
    """A spec fitted on the moments before ``fit``, and the rows of all days."""
    training = [batch.columns.filter(np.asarray(batch.time) < fit) for batch in batches]
    spec = fitting.fit_spec(config.fields, fitting.merge([fitting.count(config.fields, part) for part in training]))
    slots = np.concatenate([Encoder(spec).encode(batch.columns).slots for batch in batches])
    label, time = (np.concatenate([getattr(batch, name) for batch in batches]) for name in ("label", "time"))
    of = time // day
    return spec, [Rows(_date(d, day), slots[of == d], label[of == d], time[of == d]) for d in np.unique(of)]


def movielens(day: int, fitted: float) -> tuple[FeatureSpec, list[Rows]]:
    config = load_config(ROOT / "configs" / "movielens.yaml")
    batches = read(config, Path(config.source.path[0]))
    fit = int(np.quantile(np.concatenate([batch.time for batch in batches]), fitted)) // day * day
    spec, rows = encoded(config, batches, fit, day)
    return spec, [part for part in rows if part.time[0] >= fit]


def shop(rows: int, seed: int, renamed: float) -> tuple[FeatureSpec, list[Rows]]:
    """The days behind those that the spec was fitted on; of all items, ``renamed`` get new names each day."""
    made = Shop(rows * DAYS, seed=seed, days=DAYS)
    with tempfile.TemporaryDirectory() as work:
        os.environ["FIELDWISE_WORK"] = work
        log = Path(work, "demo", "data", "log.csv")
        log.parent.mkdir(parents=True)
        side = made.side_tables()
        names = np.array(side["items"]["item"].to_pylist())
        phase = np.arange(len(names)) / len(names)
        generations = range(int(DAYS * renamed) + 2)
        parts = [side["items"].set_column(0, "item", pa.array([f"{n}.{g}" for n in names])) for g in generations]
        pa.csv.write_csv(pa.concat_tables(parts), log.parent / "items.csv")
        pa.csv.write_csv(side["users"], log.parent / "users.csv")
        tables = []
        for day in range(DAYS):
            table, _ = made.log_table(np.asarray(made.rows_of(day)))
            item = np.array([int(name[1:]) for name in table["item"].to_pylist()])
            generation = np.floor(day * renamed + phase[item]).astype(int)
            called = [f"{n}.{g}" for n, g in zip(names[item], generation, strict=True)]
            tables.append(table.set_column(table.column_names.index("item"), "item", pa.array(called)))
        pa.csv.write_csv(pa.concat_tables(tables), log)
        config = load_config(ROOT / "configs" / "demo.yaml")
        first = (made.first_day - np.datetime64("1970-01-01", "D").astype(object)).days
        spec, found = encoded(config, read(config, log), (first + FITTED) * DAY)
    return spec, found[FITTED:]


def poisonings(spec: FeatureSpec, day: Rows) -> Iterator[tuple[str, Rows]]:
    def local(index: int, *names: str) -> Rows:
        slots = day.slots.copy()
        for name in names:
            field = spec[name]
            slots[:, field.first_slot : field.first_slot + field.slots] = index
        return day._replace(slots=slots)

    yield "labels flipped", day._replace(label=1 - day.label)
    yield "field emptied", local(1, "device")
    yield "prices x1000", local(spec["price"].size - 1, "price")
    yield "ids unseen", local(2, "user", "item")
    yield "rows duplicated", day.take(np.repeat(np.arange(len(day.label)), 2))
    draw, odds = np.random.default_rng(0), day.label.mean()
    tripled = day.label + (day.label == 0) * (draw.random(len(day.label)) < 2 * odds / (1 - odds))
    yield "positive rate x3", day._replace(label=tripled.astype(np.float32))
    late = day.time + 7 * HOUR
    slots = day.slots.copy()
    slots[:, spec["hour"].first_slot] = 3 + late // HOUR % 24
    yield "clock +7 h, a file a day", day._replace(time=late, slots=slots)
    yield "clock +7 h, days by time", day._replace(time=late, slots=slots).take(late // DAY == day.time // DAY)
    yield "last year", day._replace(time=day.time - 365 * DAY)
    yield "one class", day._replace(label=day.label * 0)
    yield "cut to a half", day.take(np.arange(len(day.label) // 2))
    yield "cut to a third", day.take(np.arange(len(day.label) // 3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[400, 5000], help="rows of a day of the shop")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    config = load_config(ROOT / "configs" / "demo.yaml").daily.suspicion
    alarms: dict[str, list[int]] = {}
    named: dict[str, dict[str, dict[int, int]]] = {}

    def replay(name: str, spec: FeatureSpec, rows: list[Rows], length: int = DAY) -> list[Day]:
        sound: list[Day] = []
        days = [Day(part.date, part.report(spec, length)) for part in rows]
        for day in days:
            told = findings(day, sound, config)
            print(*(f"{name} {day.date}: {one}" for one in told), sep="\n", end="\n" * bool(told), flush=True)
            sound += [] if told else [day]
        known = alarms.setdefault(name, [0, 0])
        alarms[name] = [known[0] + len(days) - len(sound), known[1] + len(days)]
        return days

    if Path(load_config(ROOT / "configs" / "movielens.yaml").source.path[0]).exists():
        for length, fitted in ((DAY, 0.2), (DAY, 0.5), (DAY, 0.8), (7 * DAY, 0.2), (7 * DAY, 0.5)):
            name = f"MovieLens by {length // DAY} days, spec of the first {fitted:.0%}"
            replay(name, *movielens(length, fitted), length)
    for rows in options.rows:
        for renamed in (0.0, 1 / 30, 1 / 7):
            name = f"shop, {rows} rows a day, {renamed:.3f} of the items new"
            for seed in range(options.seeds):
                spec, parts = shop(rows, seed, renamed)
                days = replay(name, spec, parts)
                for k in RECENT if renamed < 0.1 else ():
                    for poison, changed in poisonings(spec, parts[k]):
                        told = findings(Day(changed.date, changed.report(spec)), days[:k], config)
                        counts = named.setdefault(name, {}).setdefault(poison, dict.fromkeys(RECENT, 0))
                        counts[k] += bool(told)
    for name, (found, count) in alarms.items():
        print(f"{name}: {found} of {count} healthy days suspicious")
    for name, found_by in named.items():
        print(f"{name}: days named of {options.seeds}, by recent days", *RECENT)
        for poison, by_days in found_by.items():
            print(f"  {poison:<26}", *by_days.values())
    record("suspicion", {"threshold": config.threshold, "seeds": options.seeds, "alarms": alarms, "named": named})


if __name__ == "__main__":
    main()
