"""The demo's data: a click log of a small shop whose true click probability is known for every row.

A planted field-aware model decides who clicks what:

    logit(row) = bias + sum_f w_f[x_f] + sum_{(f, g) in PAIRS} <v_{f,g}[x_f], v_{g,f}[x_g]>,    v in R^4,

so a field-aware model can represent the truth exactly, one vector per value cannot serve partners that want different
ones, and an additive model misses every pair. Every draw is a hash of (seed, row, purpose): the same rows come out
however many tasks write them, and ``rows`` alone sets the size.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from pyarrow import fs

from fieldwise.features.engine.base import Engine, indices

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DIM = 4
BIAS = -1.3
MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 0x9E3779B97F4A7C15), (29, 1))
BLOCK = 250_000
"""Rows of one file."""
PRICE_EDGES = (5.0, 10.0, 20.0, 35.0, 60.0, 100.0, 180.0)
AGES = ("18-24", "25-34", "35-44", "45-54", "55-64", "65+")
GENDERS = ("female", "male", "other")
DEVICES = ("phone", "desktop", "tablet", "tv")
CATEGORIES = tuple(
    "books games garden kitchen music shoes sports tools toys travel wine yarn".split()  # noqa: SIM905
)
POSITIONS = 8
SIZES = {
    "user": 1000, "age": len(AGES), "gender": len(GENDERS), "city": 40,
    "item": 300, "category": len(CATEGORIES), "brand": 40, "price": len(PRICE_EDGES) + 1, "tags": 24,
    "hour": 24, "device": len(DEVICES), "position": POSITIONS,
}  # fmt: skip
MAIN = {"user": 0.3, "item": 0.3, "category": 0.4, "brand": 0.2, "price": 0.3, "hour": 0.2, "device": 0.2}
"""Standard deviation of w_f; fields not named have none, positions decay."""
PAIRS = {
    ("age", "category"): 0.6, ("gender", "category"): 0.5, ("hour", "category"): 0.6, ("device", "category"): 0.4,
    ("age", "price"): 0.4, ("device", "price"): 0.3, ("age", "tags"): 0.5, ("hour", "tags"): 0.5,
    ("hour", "device"): 0.3, ("city", "brand"): 0.6, ("user", "category"): 0.5, ("user", "price"): 0.4,
}  # fmt: skip
"""Standard deviation of each planted interaction's share of the logit."""


@dataclass(frozen=True)
class Shop:
    """A planted shop. ``rows`` clicks and non-clicks spread evenly over ``days`` from ``first_day``."""

    rows: int
    seed: int = 42
    days: int = 7
    first_day: datetime.date = datetime.date(2026, 1, 1)

    def uniform(self, rows: Ints, purpose: int) -> Floats:
        """u(seed, row, purpose) in [0, 1): SplitMix64's finaliser over a counter."""
        with np.errstate(over="ignore"):
            z = rows.astype(np.uint64) + np.uint64(self.seed * 1_000_003 + purpose) * np.uint64(0x9E3779B97F4A7C15)
            for shift, factor in MIX:
                z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        return (z >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def day(self, number: int) -> datetime.date:
        return self.first_day + datetime.timedelta(days=number)

    def rows_of(self, day: int) -> range:
        return range(self.rows * day // self.days, self.rows * (day + 1) // self.days)

    @cached_property
    def users(self) -> dict[str, Ints]:
        """Attributes of each user as indices; ``device`` is the one used most."""
        draw = np.random.default_rng([self.seed, 1])
        sizes = {name: SIZES[name] for name in ("age", "gender", "city", "device")}
        return {name: draw.choice(n, SIZES["user"], p=_long_tail(n, 1.0)) for name, n in sizes.items()}

    @cached_property
    def items(self) -> dict[str, npt.NDArray]:
        """Attributes of each item as indices; ``tags`` [items, 3], -1 behind the last; ``since``: first day on sale."""
        draw = np.random.default_rng([self.seed, 2])
        n = SIZES["item"]
        tags = np.stack([draw.permutation(SIZES["tags"])[:3] for _ in range(n)])
        tags[np.arange(3) >= draw.integers(1, 4, n)[:, None]] = -1
        attributes = {name: draw.integers(0, SIZES[name], n) for name in ("category", "brand", "price")}
        since = np.where(draw.random(n) < 0.9, 0, draw.integers(1, self.days, n))
        return {**attributes, "tags": tags, "since": since, "popularity": draw.permutation(_long_tail(n, 8.0))}

    @cached_property
    def planted(self) -> tuple[dict[str, Floats], dict[tuple[str, str], Floats]]:
        """(w_f per field, v_{f,g} per ordered pair), centred: a pair says nothing about its fields alone."""
        draw = np.random.default_rng([self.seed, 3])
        w = {name: draw.normal(0.0, MAIN.get(name, 0.0), n) for name, n in SIZES.items()}
        w["position"] = -0.35 * np.log1p(np.arange(POSITIONS))
        v = {}
        for (f, g), strength in PAIRS.items():
            for key in ((f, g), (g, f)):
                drawn = draw.normal(0.0, np.sqrt(strength / np.sqrt(DIM)), (SIZES[key[0]], DIM))
                v[key] = drawn - drawn.mean(0)
        return w, v

    def draw(self, rows: Ints) -> dict[str, npt.NDArray]:
        """Field indices of the given rows (all of one day), with ``second`` of the day, ``truth`` and ``click``."""
        day = int(np.searchsorted([self.rows_of(d).stop for d in range(self.days)], rows[0], side="right"))
        on_sale = np.where(self.items["since"] <= day, self.items["popularity"], 0.0)
        user = _pick(_long_tail(SIZES["user"], 30.0), self.uniform(rows, 1))
        item = _pick(on_sale, self.uniform(rows, 2))
        daylight = 1.2 - np.cos((np.arange(24) - 3) * np.pi / 12)
        hour = _pick(daylight, self.uniform(rows, 3))
        usual = self.uniform(rows, 4) < 0.7
        device = np.where(usual, self.users["device"][user], (self.uniform(rows, 5) * SIZES["device"]).astype(np.int64))
        position = _pick(0.75 ** np.arange(POSITIONS, dtype=np.float64), self.uniform(rows, 6))
        x: dict[str, npt.NDArray] = {"user": user, "item": item, "hour": hour, "device": device, "position": position}
        x |= {name: self.users[name][user] for name in ("age", "gender", "city")}
        x |= {name: self.items[name][item] for name in ("category", "brand", "price", "tags")}
        truth = 1.0 / (1.0 + np.exp(-self.logit(x)))
        second = hour * 3600 + (self.uniform(rows, 7) * 3600).astype(np.int64)
        return {**x, "second": second, "truth": truth, "click": (self.uniform(rows, 8) < truth).astype(np.int64)}

    def logit(self, x: dict[str, npt.NDArray]) -> Floats:
        """The planted logit of rows given as field indices; tags are mean-pooled."""
        w, v = self.planted
        total = np.full(len(x["user"]), BIAS)
        for name in SIZES:
            total += _pooled(w[name], x[name])
        for f, g in PAIRS:
            total += (_pooled(v[f, g], x[f]) * _pooled(v[g, f], x[g])).sum(1)
        return total

    def log_table(self, block: Ints) -> tuple[pa.Table, Ints]:
        """(the rows as the log's columns, distinct users among them)."""
        x = self.draw(block)
        day = int(np.searchsorted([self.rows_of(d).stop for d in range(self.days)], block[0], side="right"))
        start = np.datetime64(self.day(day), "s")
        columns = {
            "user": _named("u", x["user"]), "item": _named("i", x["item"]),
            "timestamp": pc.strftime(pa.array(start + x["second"]), "%Y-%m-%d %H:%M:%S"),
            "device": _labels(DEVICES, x["device"]), "position": x["position"] + 1,
            "click": x["click"], "truth": np.round(x["truth"], 7),
        }  # fmt: skip
        return pa.table(columns), np.unique(x["user"])

    def side_tables(self) -> dict[str, pa.Table]:
        """users.csv and items.csv. Prices lie strictly between their bin's edges."""
        u, i = self.users, self.items
        edges = np.array([1.0, *PRICE_EDGES, 400.0])
        low, high = edges[i["price"]], edges[i["price"] + 1]
        price = low + (high - low) * (0.05 + 0.9 * self.uniform(np.arange(SIZES["item"]), 9))
        tags = ["|".join(f"tag{t:02d}" for t in row if t >= 0) for row in i["tags"]]
        users = {
            "user": _named("u", np.arange(SIZES["user"])), "age": _labels(AGES, u["age"]),
            "gender": _labels(GENDERS, u["gender"]), "city": _named("city", u["city"]),
        }  # fmt: skip
        items = {
            "item": _named("i", np.arange(SIZES["item"])), "category": _labels(CATEGORIES, i["category"]),
            "brand": _named("brand", i["brand"]), "price": np.round(price, 2), "tags": pa.array(tags),
        }  # fmt: skip
        number = pc.cast(pa.array(np.arange(SIZES["item"])), pa.string())
        items["name"] = pc.binary_join_element_wise(items["brand"], items["category"], number, " ")  # for people alone
        return {"users": pa.table(users), "items": pa.table(items)}

    def visitors(self, users: Ints) -> pa.Table:
        """Users with the device they use most: the contexts to score."""
        return pa.table({"user": _named("u", users), "device": _labels(DEVICES, self.users["device"][users])})


def generate(engine: Engine, shop: Shop, directory: str) -> list[dict[str, float]]:
    """Write ``log/<day>-<block>.csv``, ``visitors/<day>.csv``, ``users.csv`` and ``items.csv`` under ``directory``.

    Returns, per day: rows, clicks, and the mean logloss of the true probabilities (no model can do better on average).
    """
    files, root = _filesystem(directory)
    for folder in ("log", "visitors"):
        files.create_dir(f"{root}/{folder}", recursive=True)
        files.delete_dir_contents(f"{root}/{folder}")
    for name, table in shop.side_tables().items():
        _write(files, f"{root}/{name}.csv", table)
    blocks = [(d, b) for d in range(shop.days) for b in range(-(-len(shop.rows_of(d)) // BLOCK))]

    def write_blocks(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        target, base = _filesystem(directory)
        for number in indices(batches):
            day, block = blocks[number]
            rows = np.asarray(shop.rows_of(day)[block * BLOCK : (block + 1) * BLOCK], np.int64)
            table, users = shop.log_table(rows)
            _write(target, f"{base}/log/{shop.day(day)}-{block:04d}.csv", table)
            p, y = table["truth"].to_numpy(), table["click"].to_numpy()
            loss = -np.log(np.where(y == 1, p, 1.0 - p)).sum()
            counts = {"day": [day], "rows": [len(rows)], "clicks": [int(y.sum())], "loss": [float(loss)]}
            yield pa.RecordBatch.from_pydict({**counts, "users": [users]})

    wanted = "day long, rows long, clicks long, loss double, users array<long>"
    written = engine.numbered(len(blocks)).mapped(write_blocks, wanted).rows("demo")
    result = []
    for day in range(shop.days):
        part = [block for block in written if block["day"] == day]
        users = np.unique(np.concatenate([block["users"] for block in part]))
        _write(files, f"{root}/visitors/{shop.day(day)}.csv", shop.visitors(users))
        rows, clicks, loss = (sum(block[name] for block in part) for name in ("rows", "clicks", "loss"))
        result.append({"rows": rows, "clicks": clicks, "truth_logloss": loss / rows})
    return result


def _long_tail(n: int, head: float) -> Floats:
    """Shares falling as 1 / (rank + head)."""
    share = 1.0 / (np.arange(n) + head)
    return share / share.sum()


def _pick(shares: Floats, u: Floats) -> Ints:
    bounds = np.cumsum(shares)
    return np.searchsorted(bounds, u * bounds[-1], side="right").clip(max=len(shares) - 1)


def _pooled(values: Floats, index: npt.NDArray) -> Floats:
    """values[index]; a two-dimensional index is averaged over its entries that are not -1."""
    if index.ndim == 1:
        return values[index]
    there = index >= 0
    picked = np.where(there.reshape(*there.shape, *[1] * (values.ndim - 1)), values[index], 0.0)
    count = there.sum(1)
    return picked.sum(1) / count.reshape(-1, *[1] * (values.ndim - 1))


def _named(prefix: str, index: Ints) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pc.cast(pa.array(index), pa.string()), "")


def _labels(names: tuple[str, ...], index: Ints) -> pa.Array:
    return pa.array(names).take(pa.array(index))


def _filesystem(directory: str) -> tuple[fs.FileSystem, str]:
    return fs.FileSystem.from_uri(directory) if "://" in directory else (fs.LocalFileSystem(), directory)


def _write(files: fs.FileSystem, path: str, table: pa.Table) -> None:
    with files.open_output_stream(path) as stream:
        pyarrow.csv.write_csv(table, stream, pyarrow.csv.WriteOptions(quoting_style="needed"))
