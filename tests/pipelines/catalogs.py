"""Catalogs of the tests' shop: what was published, and what every pair's score says should be."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from fieldwise.features.fields.encoder import Encoder
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.scoring.scorer import Scorer

DAY = "2026-01-08"


def read(path: Path) -> pa.Table:
    """A csv file, all columns text, nothing null."""
    names = path.read_text().splitlines()[0].split(",")
    options = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pa.csv.read_csv(path, convert_options=options)


def published(result: dict[str, Any]) -> pa.Table:
    """All parts in the order of their names."""
    return pa.concat_tables([pq.read_table(path) for path in sorted(Path(result["dir"]).glob("part-*.parquet"))])


def expected(shop: Path, bundle_dir: str, k: int, **rules: Any) -> list[tuple[str, int, str, float]]:
    """Every pair as a raw row through the one encoder and the model, sorted in plain Python."""
    bundle = load_bundle(bundle_dir)
    users, items = read(shop / "users.csv").sort_by("user"), read(shop / "items.csv").sort_by("item")
    scorer, encoder, rows = Scorer(bundle), Encoder(bundle.spec), []
    for u in users.to_pylist():
        n = items.num_rows
        raw = items.append_column("user", pa.array([u["user"]] * n)).append_column("age", pa.array([u["age"]] * n))
        raw = raw.append_column("when", pa.array([f"{DAY}T18:30:00"] * n)).append_column("position", pa.array([1] * n))
        slots = encoder.encode(raw).slots
        logits, probabilities = scorer.logits(slots), scorer.probabilities(slots)
        order = []
        for i in sorted(range(n), key=lambda i: (-logits[i], items["item"][i].as_py())):
            item = items.slice(i, 1).to_pylist()[0]
            pair = (u["user"], item["item"])
            allowed = int(item["stock"]) >= rules.get("stock", 0) and pair not in rules.get("exclude", set())
            if allowed and ("only" not in rules or pair in rules["only"]):
                order.append((i, item["item"], item["category"]))
        chosen: list[int] = []
        for category, count in rules.get("at_least", {}).items():
            chosen += [i for i, _, own in order if own == category][:count]
        used = Counter(own for i, _, own in order if i in chosen)
        for i, _, own in order:
            if len(chosen) < k and i not in chosen and used[own] < rules.get("cap", n):
                used[own] += 1
                chosen.append(i)
        listed = [(i, name) for i, name, _ in order if i in chosen]
        rows += [(u["user"], rank, name, float(probabilities[i])) for rank, (i, name) in enumerate(listed, 1)]
    return rows


def rows_of(table: pa.Table) -> list[tuple[str, int, str, float]]:
    names = ("context_id", "rank", "item_id", "probability")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
