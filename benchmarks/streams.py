"""Logs that come day by day: MovieLens by day and by week, a planted shop that stays as it is, and one that drifts."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml

from fieldwise.pipelines.demo.shop import MAIN, SIZES, Floats, Ints, Shop

ROOT = Path(__file__).resolve().parents[1]
TURN = 0.04
"""Radians by which the drifting shop's tastes turn in a day."""
LIFE = 20
"""Days for which it sells an item before another takes its place."""
FIRST = datetime.date(2026, 1, 1)


@dataclass(frozen=True)
class DriftingShop(Shop):
    """The shop as on one of its days: tastes have turned, and so many items have been replaced."""

    today: int = 0

    @cached_property
    def generation(self) -> Ints:
        """How many items each place on sale has held before."""
        phase: Ints = np.random.default_rng([self.seed, 5]).integers(0, LIFE, SIZES["item"])
        return (self.today + phase) // LIFE

    @cached_property
    def items(self) -> dict[str, Any]:
        made = [Shop(self.rows, 1000 * self.seed + g, self.days).items for g in range(1 + int(self.generation.max()))]
        place = np.arange(SIZES["item"])
        own = {name: np.stack([of[name] for of in made])[self.generation, place]
               for name in ("category", "brand", "price", "tags")}  # fmt: skip
        return {**own, "since": np.zeros(SIZES["item"], np.int64), "popularity": made[0]["popularity"]}

    @cached_property
    def planted(self) -> tuple[dict[str, Floats], dict[tuple[str, str], Floats]]:
        (w, v), (w2, v2) = (Shop(self.rows, self.seed + 7919 * k, self.days).planted for k in (0, 1))
        near, far = np.cos(TURN * self.today), np.sin(TURN * self.today)
        turned = {name: near * w[name] + far * w2[name] for name in w} | {"position": w["position"]}
        drawn = [np.random.default_rng([self.seed, 6, g]).normal(0.0, MAIN["item"], SIZES["item"])
                 for g in range(1 + int(self.generation.max()))]  # fmt: skip
        turned["item"] = np.stack(drawn)[self.generation, np.arange(SIZES["item"])]
        return turned, {pair: near * v[pair] + far * v2[pair] for pair in v}

    @property
    def names(self) -> pa.Array:
        return pa.array([f"i{place}-{g}" for place, g in enumerate(self.generation)])


def shop(folder: Path, *, drifting: bool, days: int, rows_per_day: int, seed: int = 7) -> tuple[str, list[str]]:
    """Write logs, side tables and config; the config's path and the days."""
    (folder / "log").mkdir(parents=True)
    whole = Shop(days * rows_per_day, seed, days, FIRST)
    sides: dict[str, dict[str, Any]] = {}
    for number in range(days):
        of = DriftingShop(days * rows_per_day, seed, days, FIRST, today=number) if drifting else whole
        rows = np.asarray(of.rows_of(number), np.int64)
        table, _ = of.log_table(rows)
        tables = of.side_tables()
        if isinstance(of, DriftingShop):
            place = table.schema.get_field_index("item")
            table = table.set_column(place, "item", of.names.take(pa.array(of.draw(rows)["item"])))
            tables["items"] = tables["items"].set_column(0, "item", of.names)
        sides |= {row["item"]: row for row in tables["items"].to_pylist()}
        pyarrow.csv.write_csv(table, folder / "log" / f"{of.day(number)}.csv")
    pyarrow.csv.write_csv(pa.Table.from_pylist(list(sides.values())), folder / "items.csv")
    pyarrow.csv.write_csv(tables["users"], folder / "users.csv")
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    fields = [{"name": "item", "kind": "hash", "buckets": 4096} if drifting and field["name"] == "item" else field
              for field in demo["fields"]]  # fmt: skip
    keep = {key: demo[key] for key in ("label", "time", "model", "training")}
    config = {**keep, "source": {"path": "log/{date}.csv"}, "fields": fields,
              "join": [{"path": "users.csv", "on": "user"}, {"path": "items.csv", "on": "item"}]}  # fmt: skip
    return _config(folder, config), [str(whole.day(number)) for number in range(days)]


def movielens(folder: Path, data: Path, *, step: int) -> tuple[str, list[str]]:
    """The log cut into parts of ``step`` days, each a date of its own: parts without rows are left out."""
    (folder / "log").mkdir(parents=True)
    document = yaml.safe_load((ROOT / "configs" / "movielens.yaml").read_text().replace("    on:", "    'on':"))
    for table in document["join"]:
        table["path"] = str(data / "ml-100k" / Path(table["path"]).name)
    lines = (data / "ml-100k" / "u.data").read_text().splitlines(keepends=True)
    part = np.array([int(line.split("\t")[3]) for line in lines]) // 86400
    part = (part - part.min()) // step
    days = []
    for number, value in enumerate(np.unique(part)):
        days.append(str(FIRST + datetime.timedelta(days=number)))
        (folder / "log" / f"{days[-1]}.tsv").write_text("".join(lines[i] for i in np.flatnonzero(part == value)))
    keep = {key: document[key] for key in ("join", "label", "time", "fields", "model")}
    return _config(folder, {**keep, "source": {**document["source"], "path": "log/{date}.tsv"}}), days


def _config(folder: Path, document: dict[str, Any]) -> str:
    path = folder / "stream.yaml"
    path.write_text(yaml.safe_dump({"name": "stream", "workspace": "work", **document}))
    return str(path)
