"""Days of a small shop whose clicks a model can learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

ROWS = 600
DAY = "2026-03-{:02d}".format


def write_day(folder: Path, number: int, *, turned: bool = False, copies: int = 1) -> Path:
    """A day's log: who clicks what follows from user and item; ``turned``: the other way round; ``copies`` of rows."""
    draw = np.random.default_rng([number, 1])
    user, item = draw.integers(0, 20, ROWS), draw.integers(0, 30, ROWS)
    of_user, of_item = np.random.default_rng(0).normal(0, 1.5, (2, 30))
    logit = (of_user[user] + of_item[item]) * (-1 if turned else 1)
    click = draw.random(ROWS) < 1 / (1 + np.exp(-logit))
    second = draw.integers(0, 86400, ROWS)
    lines = [f"u{u},i{i},{DAY(number)}T{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d},{int(c)}"
             for u, i, s, c in zip(user, item, second, click, strict=True)]  # fmt: skip
    path = folder / f"log-{DAY(number)}.csv"
    path.write_text("user,item,when,click\n" + "\n".join(lines * copies) + "\n")
    return path


def write_cycle(folder: Path, name: str, *, days: int) -> None:
    """Logs of days, a catalog, and a config of that name."""
    for number in range(1, days + 1):
        write_day(folder, number)
    (folder / "users.csv").write_text("user\n" + "\n".join(f"u{u}" for u in range(20)) + "\n")
    (folder / "items.csv").write_text("item\n" + "\n".join(f"i{i}" for i in range(30)) + "\n")
    document = {
        "name": "cycle", "workspace": "work", "source": {"path": "log-{date}.csv"}, "label": "click", "time": "when",
        "fields": [{"name": "user", "kind": "hash", "buckets": 97}, {"name": "item", "kind": "vocabulary"}],
        "model": {"kind": "fm", "dim": 4},
        "training": {"batch_size": 64, "epochs": 8, "learning_rate": 0.2, "threads": 1},
        "catalog": {"contexts": {"path": "users.csv"}, "items": {"path": "items.csv"}, "context_id": "user",
                    "item_id": "item", "k": 3},
    }  # fmt: skip
    (folder / name).write_text(yaml.safe_dump(document))
