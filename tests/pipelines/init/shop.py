"""A log that nobody has seen before: semicolons, quotes, dates as people write them, a leak, an id of each row, missing
values, tags."""

from __future__ import annotations

import random
from pathlib import Path

TAGS = ("red", "blue", "wool", "silk", "new; sale", "kids")
SIZES = ("S", "M", "L", "")


def write_log(path: Path, rows: int = 4000, seed: int = 1) -> None:
    """Clicks of 60 shoppers on 40 products over 20 days; who clicks follows from shopper and product."""
    draw = random.Random(seed)
    tags = {p: "|".join(draw.sample(TAGS, draw.randint(1, 3))) for p in range(40)}
    price = {p: round(draw.uniform(3, 90), 2) for p in range(40)}
    lines = ["view id;shopper;product;shown at;tags;price;size;place;Clicked?;paid until"]
    for n in range(rows):
        user, item = draw.randrange(60), draw.randrange(40)
        click = int(draw.random() < (0.8 if user % 5 == item % 5 else 0.15))
        minute = n * 20 * 1440 // rows
        when = f"{1 + minute // 1440:02d}.03.2026 {minute // 60 % 24:02d}:{minute % 60:02d}"
        quoted = f'"{tags[item]}"'
        paid = when if click else ""
        seen = f"{price[item]};{draw.choice(SIZES)};{draw.randint(1, 4)}"
        lines.append(f"v{n:06d};s{user};p{item};{when};{quoted};{seen};{click};{paid}")
    path.write_text("\n".join(lines) + "\n")
