"""Which side of a catalog has a column: asked of all its files, then of the directories above them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fieldwise.features.errors import InputError
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.raw import split_ranges
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.sides import Side, split_sides
from fieldwise.training.network.bundle import load_bundle
from tests.pipelines.shop import shop_config, write_bundle, write_shop

DAY = "2026-01-08"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_shop(tmp_path, users=5, items=6, rows=50)
    return tmp_path


def spec_of(shop: Path) -> FeatureSpec:
    return load_bundle(write_bundle(shop, shop_config(shop))).spec


def slots(side: Side, config: Config, spec: FeatureSpec) -> dict[str, list[int]]:
    """Encoded rows by id."""
    files = list_files(side.source, config.base, DAY)
    parts = [part for rng in split_ranges(side.source, files, 1 << 20) for part in side.rows(rng, spec)]
    return dict(
        zip(
            (i for p in parts for i in p.ids.to_pylist()),
            np.concatenate([p.slots for p in parts]).tolist(),
            strict=True,
        )
    )


@pytest.mark.parametrize("place", [0, 1, 5])
def test_the_order_of_json_objects_does_not_matter(shop: Path, place: int) -> None:
    spec = spec_of(shop)
    rows: list[dict[str, Any]] = [{"item": f"i{n:03d}", "category": "a", "tags": "p|q"} for n in range(6)]
    del rows[place]["category"]
    (shop / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = shop_config(shop, items={"path": "items.jsonl", "format": "jsonl"})
    split = split_sides(config, spec, DAY)
    names = [field.name for field, item in zip(spec.fields, split.of_item, strict=True) if item]
    assert names == ["item", "category", "tags"]
    found, slot = slots(split.items, config, spec), spec["category"].first_slot
    told = {id: spec.value_of("category", row[slot]) for id, row in found.items()}
    assert told == {f"i{n:03d}": "missing" if n == place else "a" for n in range(6)}


def test_columns_of_directories_count_where_no_file_has_them(shop: Path) -> None:
    spec = spec_of(shop)
    (shop / "in/category=b/age=33").mkdir(parents=True)
    (shop / "in/category=b/age=33/items.csv").write_text("item,tags\ni001,p\n")
    config = shop_config(shop, items={"path": "in"})
    split = split_sides(config, spec, DAY)
    names = [field.name for field, item in zip(spec.fields, split.of_item, strict=True) if item]
    assert names == ["item", "category", "tags"]  # not age, which the contexts' file has
    (row,) = slots(split.items, config, spec).values()
    assert spec.value_of("category", row[spec["category"].first_slot]) == "b"
    os.rename(shop / "in/category=b", shop / "in/other=b")
    with pytest.raises(InputError, match="column 'category' in contexts or items, found it in neither"):
        split_sides(config, spec, DAY)
