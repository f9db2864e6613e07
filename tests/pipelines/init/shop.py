"""A log that nobody has seen before: semicolons, quotes, dates as people write them, a leak, an id of each row, missing
values, tags."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

from fieldwise.features.files.listing import list_files
from fieldwise.features.source.log import LogReader
from fieldwise.features.source.raw import split_ranges
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.init.init import init

TAGS = ("red", "blue", "wool", "silk", "new; sale", "kids")
SIZES = ("S", "M", "L", "")


def write_log(path: Path, rows: int = 4000, seed: int = 1) -> None:
    """Clicks of 60 shoppers on 40 products over 20 days: some click more, some are clicked more, and half of the
    shoppers like one half of the products."""
    draw = random.Random(seed)
    eager, liked = [draw.gauss(0, 0.7) for _ in range(60)], [draw.gauss(-1, 0.7) for _ in range(40)]
    tags = {p: "|".join(draw.sample(TAGS, draw.randint(1, 3))) for p in range(40)}
    price = {p: round(draw.uniform(3, 90), 2) for p in range(40)}
    lines = ["view id;shopper;product;shown at;tags;price;size;place;Clicked?;paid until"]
    for n in range(rows):
        user, item = draw.randrange(60), draw.randrange(40)
        logit = eager[user] + liked[item] + (1.5 if user % 2 == item % 2 else -1.5)
        click = int(draw.random() < 1 / (1 + math.exp(-logit)))
        minute = n * 20 * 1440 // rows
        when = f"{1 + minute // 1440:02d}.03.2026 {minute // 60 % 24:02d}:{minute % 60:02d}"
        quoted = f'"{tags[item]}"'
        paid = when if click else ""
        seen = f"{price[item]};{draw.choice(SIZES)};{draw.randint(1, 4)}"
        lines.append(f"v{n:06d};s{user};p{item};{when};{quoted};{seen};{click};{paid}")
    path.write_text("\n".join(lines) + "\n")


def made(folder: Path, log: str = "log.csv", **options: Any) -> tuple[dict[str, Any], Config]:
    """What init says, and the config it wrote."""
    sides = {name: str(folder / path) for name, path in options.items() if name in ("users", "items")}
    found = init(str(folder / log), **(options | sides), out=str(folder / "config.yaml"))
    return found, load_config(folder / "config.yaml")


def kinds(config: Config) -> dict[str, str]:
    return {field.name: field.kind for field in config.fields}


def read(config: Config) -> int:
    """Rows that features would have, none of them set aside."""
    reader, rows = LogReader(config.features, config.base), 0
    for rng in split_ranges(config.source, list_files(config.source, config.base), 1 << 62):
        for batch in reader.read(rng):
            assert not batch.rejects, batch.rejects[:3]
            rows += batch.rows
    return rows
