"""score-catalog as its users run it: files in, published lists out, equal to scoring every pair and sorting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from fieldwise.features.errors import ArtifactError, ConfigError, InputError, RefusedError
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.schema import Config
from fieldwise.training.network.bundle import load_bundle
from tests.pipelines.catalogs import DAY, expected, published, read, rows_of
from tests.pipelines.shop import FIELDS, shop_config, write_bundle, write_shop

CROSS = {"name": "user_category", "kind": "cross", "of": ["user", "category"]}


@pytest.mark.parametrize("kind", ["lr", "poly2", "fm", "ffm", "fwfm"])
def test_equals_scoring_every_pair(shop: Path, kind: str) -> None:
    config = shop_config(shop, kind)
    bundle = write_bundle(shop, config)
    result = score_catalog(config, model=bundle, date=DAY)
    table = published(result)
    assert rows_of(table) == expected(shop, bundle, 7)
    assert result["by"] == "factors"
    assert table.column_names == ["context_id", "rank", "item_id", "probability", "model_version"]
    assert set(table["model_version"].to_pylist()) == {load_bundle(bundle).digest[:12]}
    assert result["dir"].endswith(f"work/scores/catalog/date={DAY}")


@given(
    st.sampled_from(["lr", "poly2", "fm", "ffm", "fwfm"]), st.integers(0, 10_000), st.integers(0, 4),
    st.sampled_from([None, 1, 2, 3]), st.integers(1, 80), st.integers(0, 900), st.booleans(),
)  # fmt: skip
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])  # an example takes seconds
@example(kind="ffm", seed=3, stock=2, cap=2, k=9, pairs=900, quotas=True)
def test_a_shops_rules(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, stock: int, cap: int | None, k: int, pairs: int,
    quotas: bool,
) -> None:  # fmt: skip
    """In stock, not seen yet, at most and at least so many of a category, all at once, of random models and shops."""
    shop, draw = tmp_path_factory.mktemp("shop"), np.random.default_rng(seed)
    write_shop(shop, seed=seed)
    seen = {(f"u{draw.integers(45):03d}", f"i{draw.integers(65):03d}") for _ in range(pairs)}
    (shop / "seen.csv").write_text("item,user\n" + "".join(f"{i},{u}\n" for u, i in sorted(seen)) + ",u001\ni001,\n")
    capped = None if cap is None else {"column": "category", "items": cap}
    rules: dict[str, Any] = {} if cap is None else {"cap": cap}
    least = {"c": min(k, cap or 3), "": 1} if quotas and k > 3 else None
    rules |= {} if least is None else {"at_least": least}
    at_least = None if least is None else {"column": "category", "items": least}
    config = shop_config(
        shop, kind, k=k, filter=f"stock >= {stock}", exclude={"path": "seen.csv"}, cap=capped, at_least=at_least
    )
    bundle = write_bundle(shop, config, seed)
    found = rows_of(published(score_catalog(config, model=bundle, date=DAY)))
    assert found == expected(shop, bundle, k, stock=stock, exclude=seen, **rules)


def test_lists_whose_items_differ(shop: Path) -> None:
    """Picked from the list that is three times as long; LR, which has no vectors, cannot."""
    plain, rule = shop_config(shop, k=5), {"penalty": 3.0}
    bundle = write_bundle(shop, plain)
    table = published(score_catalog(shop_config(shop, k=5, diversity=rule), model=bundle, date=DAY, out="diverse"))
    among = {(context, item): p for context, _, item, p in expected(shop, bundle, 15)}
    found = rows_of(table)
    assert {(context, item): p for context, _, item, p in found}.items() <= among.items()
    best = expected(shop, bundle, 5)
    assert [row for row in found if row[1] == 1] == [row for row in best if row[1] == 1]
    assert found != best
    assert [rank for _, rank, _, _ in found] == [rank for _, rank, _, _ in best]
    linear = shop_config(shop, "lr", diversity=rule)
    with pytest.raises(
        ConfigError,
        match=r"catalog\.diversity: expected a model whose items and contexts have vectors, found model\.kind lr",
    ):
        score_catalog(linear, model=write_bundle(shop, linear), date=DAY)
    for wrong, found_text in [
        ({"diversity": {"among": 4}, "k": 5}, r"diversity\.among of at least k = 5, found 4"),
        (
            {"diversity": {}, "at_least": {"column": "category", "items": {"a": 1}}},
            "one of at_least and diversity, found both",
        ),
    ]:
        with pytest.raises(ValueError, match=found_text):
            shop_config(shop, **wrong)


def test_sources_with_quoted_line_breaks_and_columns_by_position(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note that spells a record of its own is none, and `columns` name what the skipped headers call otherwise."""
    pairs = "".join(f"u{u:03d},i{(7 * u + n) % 60:03d}\n" for u in range(40) for n in range(20))
    (shop / "only.csv").write_text("user,item\n" + pairs)
    (shop / "seen.csv").write_text("user,item\n" + pairs[:500])
    names = ("users", "items", "only", "seen")
    keys = ("contexts", "items", "candidates", "exclude")
    config = shop_config(shop, **{key: {"path": f"{name}.csv"} for key, name in zip(keys, names, strict=True)})
    bundle = write_bundle(shop, config)
    plain = published(score_catalog(config, model=bundle, date=DAY))
    blocks = {}
    for key, name in zip(keys, names, strict=True):
        header, *lines = (shop / f"{name}.csv").read_text().splitlines()
        noted = [f'{line},"say ""hi"",\r\n{lines[0]},\n\n{lines[-1]},\n"' for line in lines]
        other = ",".join(f"other_{column}" for column in header.split(","))
        (shop / f"noted-{name}.csv").write_text("\n".join([f'{other},"a\nnote"', *noted]) + "\n", newline="")
        blocks[key] = {"path": f"noted-{name}.csv", "columns": [*header.split(","), "note"], "header": True}
    monkeypatch.setattr("fieldwise.pipelines.catalog.score_catalog.RANGE_BYTES", 500)
    noted_config = shop_config(shop, **blocks)
    assert published(score_catalog(noted_config, model=bundle, date=DAY)).equals(plain)
    swapped = shop_config(shop, contexts={"path": "users.csv", "columns": ["age", "user"]})
    with pytest.raises(
        InputError, match="expected the order of `columns`: age, user, found a first line with user, age"
    ):
        score_catalog(swapped, model=bundle, date=DAY)


def test_a_cross_of_both_sides_is_scored_pair_by_pair_or_refused(shop: Path) -> None:
    config = shop_config(shop, fields=[*FIELDS, CROSS])
    bundle = write_bundle(shop, config)
    result = score_catalog(config, model=bundle, date=DAY)
    assert result["by"] == "pairs"
    assert rows_of(published(result)) == expected(shop, bundle, 7)
    due = {"column": "category", "items": {"b": 3}}
    found = score_catalog(shop_config(shop, fields=[*FIELDS, CROSS], at_least=due), model=bundle, date=DAY, out="due")
    assert rows_of(published(found)) == expected(shop, bundle, 7, at_least={"b": 3})
    small = shop_config(shop, fields=[*FIELDS, CROSS], max_pairs=2399)
    with pytest.raises(
        ConfigError, match="field 'user_category' reads columns of both contexts and items, found 2,400"
    ):
        score_catalog(small, model=bundle, date=DAY)
    assert rows_of(published(result)) == expected(shop, bundle, 7)


def test_side_tables_serve_both_sides(shop: Path) -> None:
    """Contexts and items are bare ids; ages and categories come by `join`."""
    (shop / "who.csv").write_text("user\n" + "\n".join(read(shop / "users.csv")["user"].to_pylist()) + "\n")
    (shop / "what.csv").write_text("item\n" + "\n".join(read(shop / "items.csv")["item"].to_pylist()) + "\n")
    plain = shop_config(shop)
    bundle = write_bundle(shop, plain)
    joins = [{"path": "users.csv", "on": "user"}, {"path": "items.csv", "on": "item"}]
    block = plain.model_dump(mode="json") | {"join": joins}
    block["catalog"] |= {"contexts": {"path": "who.csv"}, "items": {"path": "what.csv"}}
    config = Config.model_validate(block)
    config._file = str(shop / "shop.yaml")
    assert rows_of(published(score_catalog(config, model=bundle, date=DAY))) == expected(shop, bundle, 7)


def test_null_columns_are_missing_values(shop: Path) -> None:
    """New contexts of whom only the id is known, items without categories: typed and untyped nulls."""
    users, items = read(shop / "users.csv"), read(shop / "items.csv")
    (shop / "users.csv").write_text("user,age\n" + "".join(f"{u}x,\n" for u in users["user"].to_pylist()))
    known = zip(*(items[name].to_pylist() for name in ("item", "tags", "stock")), strict=True)
    (shop / "items.csv").write_text("item,category,tags,stock\n" + "".join(f"{i},,{t},{s}\n" for i, t, s in known))
    names = pa.array([f"{u}x" for u in users["user"].to_pylist()])
    pq.write_table(pa.table({"user": names, "age": pa.nulls(len(names), pa.int32())}), shop / "users.parquet")
    pq.write_table(items.set_column(1, "category", pa.nulls(items.num_rows)), shop / "items.parquet")
    sides = {side: {"path": f"{side}.parquet", "format": "parquet"} for side in ("users", "items")}
    config = shop_config(shop, contexts=sides["users"], items=sides["items"], cap={"column": "category", "items": 5})
    bundle = write_bundle(shop, config)
    found = rows_of(published(score_catalog(config, model=bundle, date=DAY)))
    assert found == expected(shop, bundle, 5)  # no category is a category


def test_running_again_changes_nothing_until_something_changed(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    first = score_catalog(config, model=bundle, date=DAY)
    before = {path: path.stat().st_mtime_ns for path in Path(first["dir"]).iterdir()}
    second = score_catalog(config, model=bundle, date=DAY)
    assert (first["status"], second["status"]) == ("published", "already published")
    assert {path: path.stat().st_mtime_ns for path in Path(first["dir"]).iterdir()} == before
    other = write_bundle(shop, config, seed=2)
    third = score_catalog(config, model=other, date=DAY)
    assert third["status"] == "published"
    assert third["digest"] != first["digest"]
    assert rows_of(published(third)) == expected(shop, other, 7)
    assert [path.name for path in Path(first["dir"]).parent.iterdir()] == [f"date={DAY}"]


def test_the_order_of_rows_and_the_cut_into_files_do_not_matter(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fieldwise.pipelines.catalog.score_catalog.CONTEXTS_PER_FILE", 9)
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    first = score_catalog(config, model=bundle, date=DAY)
    assert first["files"] == 5
    assert rows_of(published(first)) == expected(shop, bundle, 7)
    header, *lines = (shop / "users.csv").read_text().splitlines()
    (shop / "users.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    monkeypatch.setattr("fieldwise.pipelines.catalog.score_catalog.RANGE_BYTES", 64)
    second = score_catalog(config, model=bundle, date=DAY, out=str(shop / "elsewhere"))
    assert second["digest"] == first["digest"]


def test_minimums_that_no_item_can_serve_are_said(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = shop_config(shop, at_least={"column": "category", "items": {"z": 2}})
    bundle = write_bundle(shop, config)
    found = rows_of(published(score_catalog(config, model=bundle, date=DAY)))
    assert "warning: catalog.at_least: no eligible item has category 'z'; lists hold none\n" in capsys.readouterr().err
    assert found == expected(shop, bundle, 7)


@pytest.mark.parametrize(
    ("catalog", "words"),
    [
        ({"items": {"a": 4, "b": 4}}, r"at most k = 7 in all"),
        ({"items": {"a": 3}}, r"at most 2 each, as cap says"),
        ({"column": "tags", "items": {"a": 1}}, r"at_least\.column 'category', that of cap"),
    ],
)
def test_minimums_that_contradict_are_refused(shop: Path, catalog: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        shop_config(shop, cap={"column": "category", "items": 2}, at_least={"column": "category", **catalog})


def test_duplicates_are_refused(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    with (shop / "users.csv").open("a") as file:
        file.write("u007,1\n")
    with pytest.raises(InputError, match=r"catalog.contexts: expected each user once, found 'u007' again"):
        score_catalog(config, model=bundle, date=DAY)
    with (shop / "items.csv").open("a") as file:
        file.write("i007,a,p,9\n")
    with pytest.raises(InputError, match=r"catalog.items: expected each item once, found 'i007' again"):
        score_catalog(config, model=bundle, date=DAY)
    assert not list((shop / "work" / "scores").glob("**/*.parquet"))
    assert not list((shop / "work" / "scores").glob("**/_*"))


def test_empty_sources_are_refused(shop: Path) -> None:
    config = shop_config(shop, filter="stock > 99")
    bundle = write_bundle(shop, config)
    with pytest.raises(InputError, match=r"catalog.items: expected at least one eligible item, found none of 60"):
        score_catalog(config, model=bundle, date=DAY)
    (shop / "users.csv").write_text("user,age\n")
    with pytest.raises(InputError, match=r"catalog.contexts: expected at least one context, found none"):
        score_catalog(shop_config(shop), model=bundle, date=DAY)


def test_unreadable_rows_are_set_aside_up_to_a_share(shop: Path) -> None:
    config = shop_config(shop)
    bundle = write_bundle(shop, config)
    with (shop / "users.csv").open("a") as file:
        file.write("u900,old\n,33\n")
    with pytest.raises(
        RefusedError,
        match=r"catalog.contexts: expected at most 0.1000% unreadable rows, found 2 of 42 \(4.7619%\): bad_number of "
        r"age: 1 row, such as 'old' at .*/users.csv line 42; "
        r"missing_id of user: 1 row, such as ',33' at .*/users.csv line 43\.",
    ):
        score_catalog(config, model=bundle, date=DAY)
    tolerant = config.model_copy(update={"snapshot": config.snapshot.model_copy(update={"max_bad_fraction": 0.1})})
    tolerant._file = config.file
    result = score_catalog(tolerant, model=bundle, date=DAY)
    assert result["quarantined"] == {"bad_number": 1, "missing_id": 1}
    assert [part["reason"] for part in result["quarantine"]["contexts"]] == ["bad_number", "missing_id"]
    assert pq.read_table(Path(result["dir"]) / "_quarantine.parquet")["raw"].to_pylist() == [b"u900,old", b",33"]
    assert result["contexts"] == 40
    (shop / "users.csv").write_text((shop / "users.csv").read_text().replace("u900,old\n,33\n", ""))
    with (shop / "items.csv").open("a") as file:
        file.write("i999\n")
    with pytest.raises(
        RefusedError, match=r"catalog.items: .*: column_count: 1 row, such as 'i999' at .*/items.csv line 62\."
    ):
        score_catalog(config, model=bundle, date=DAY)


@pytest.mark.parametrize(
    ("catalog", "error", "words"),
    [
        (
            {"fixed": {}},
            InputError,
            r"field 'position': expected column 'position' in contexts or items.*catalog.fixed",
        ),
        ({"time": None}, InputError, r"field 'hour': expected column 'when'.*or set catalog.time"),
        ({"context_id": "uid"}, InputError, r"catalog.context_id: expected a column 'uid' in users.csv"),
        ({"item_id": "sku"}, InputError, r"catalog.item_id: expected a column 'sku' in items.csv"),
        ({"item_fields": ["price"]}, ConfigError, r"catalog.item_fields: expected fields of the model: .*found price"),
        (
            {"exclude": {"path": "log.csv", "context": "who"}},
            InputError,
            r"catalog.exclude: expected a column 'who', found columns user, age, .*Name the table's columns: "
            r"catalog.exclude.context and catalog.exclude.item",
        ),
        ({"filter": "colour == 'red'"}, InputError, r"catalog: items: expected a column 'colour'"),
        (
            {"time": "1926-01-07"},
            ConfigError,
            r"catalog.time: expected a moment from 1990-01-01 to 2100-01-01, found 1926",
        ),
        (
            {"time": None, "fixed": {"position": 1, "when": "14102100"}},
            RefusedError,
            r"catalog.contexts: .*: bad_time of hour: 40 rows, such as '14102100' of catalog.fixed, met at .* line 2",
        ),
        ({"time": "tomorrow"}, ConfigError, r"catalog.time: expected ISO 8601, found 'tomorrow'"),
    ],
)
def test_mistakes_are_named(shop: Path, catalog: dict[str, Any], error: type[Exception], words: str) -> None:
    def score() -> None:
        config = shop_config(shop, **catalog)  # refuses what can be known without data
        score_catalog(config, model=write_bundle(shop, config), date=DAY)

    with pytest.raises(error, match=words):
        score()


def test_a_model_of_other_fields_is_refused(shop: Path) -> None:
    bundle = write_bundle(shop, shop_config(shop))
    other = shop_config(shop, fields=[{"name": "user", "kind": "hash", "buckets": 98}, *FIELDS[1:]])
    with pytest.raises(ArtifactError, match=r"found fields\.user\.buckets: model 97, config 98\. Use the config the"):
        score_catalog(other, model=bundle, date=DAY)
