"""Catalogs of the tests' shop: what was published, and what every pair's score says should be."""

from __future__ import annotations

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
        used: dict[str, int] = {}
        rank = 0
        for i in sorted(range(n), key=lambda i: (-logits[i], items["item"][i].as_py())):
            item = items.slice(i, 1).to_pylist()[0]
            pair = (u["user"], item["item"])
            allowed = int(item["stock"]) >= rules.get("stock", 0) and pair not in rules.get("exclude", set())
            allowed = allowed and ("only" not in rules or pair in rules["only"])
            if rank < k and allowed and used.get(item["category"], 0) < rules.get("cap", n):
                used[item["category"]] = used.get(item["category"], 0) + 1
                rank += 1
                rows.append((u["user"], rank, item["item"], float(probabilities[i])))
    return rows


def rows_of(table: pa.Table) -> list[tuple[str, int, str, float]]:
    names = ("context_id", "rank", "item_id", "probability")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))
