"""score-catalog as its users run it: files in, published lists out, equal to scoring every pair and sorting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from fieldwise.features.errors import ArtifactError, ConfigError, InputError, RefusedError
from fieldwise.features.fields.encoder import Encoder
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.catalog.tasks import _places
from fieldwise.pipelines.config.schema import Config
from fieldwise.training.network.bundle import load_bundle
from fieldwise.training.scoring.scorer import Scorer
from tests.pipelines.shop import FIELDS, shop_config, write_bundle, write_shop

DAY = "2026-01-08"
CROSS = {"name": "user_category", "kind": "cross", "of": ["user", "category"]}


@pytest.fixture
def shop(tmp_path: Path, spark: SparkSession) -> Path:
    write_shop(tmp_path)
    return tmp_path


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


@pytest.mark.usefixtures("spark")
@given(
    st.sampled_from(["lr", "poly2", "fm", "ffm", "fwfm"]), st.integers(0, 10_000), st.integers(0, 4),
    st.sampled_from([None, 1, 2, 3]), st.integers(1, 80), st.integers(0, 900),
)  # fmt: skip
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])  # an example takes seconds
@example(kind="ffm", seed=3, stock=2, cap=2, k=9, pairs=900)
def test_a_shops_rules(
    tmp_path_factory: pytest.TempPathFactory, kind: str, seed: int, stock: int, cap: int | None, k: int, pairs: int
) -> None:
    """In stock, not seen yet, at most so many of a category, all at once, of random models and shops."""
    shop, draw = tmp_path_factory.mktemp("shop"), np.random.default_rng(seed)
    write_shop(shop, seed=seed)
    seen = {(f"u{draw.integers(45):03d}", f"i{draw.integers(65):03d}") for _ in range(pairs)}
    (shop / "seen.csv").write_text("item,user\n" + "".join(f"{i},{u}\n" for u, i in sorted(seen)) + ",u001\ni001,\n")
    capped = None if cap is None else {"column": "category", "items": cap}
    config = shop_config(shop, kind, k=k, filter=f"stock >= {stock}", exclude={"path": "seen.csv"}, cap=capped)
    bundle = write_bundle(shop, config, seed)
    found = rows_of(published(score_catalog(config, model=bundle, date=DAY)))
    assert found == expected(shop, bundle, k, stock=stock, exclude=seen, **({} if cap is None else {"cap": cap}))


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


def test_candidates_only(shop: Path) -> None:
    only = {(f"u{n % 7:03d}", f"i{n * 13 % 70:03d}") for n in range(60)}
    lines = [json.dumps({"who": u, "what": i}) for u, i in sorted(only)]
    (shop / "some.jsonl").write_text("\n".join(lines + lines[:5]) + "\n")
    block = {"path": "some.jsonl", "format": "jsonl", "context": "who", "item": "what"}
    config = shop_config(shop, candidates=block)
    bundle = write_bundle(shop, config)
    found = rows_of(published(score_catalog(config, model=bundle, date=DAY)))
    assert found == expected(shop, bundle, 7, only=only)
    assert {row[0] for row in found} == {f"u{n:03d}" for n in range(7)}


def test_a_cross_of_both_sides_is_scored_pair_by_pair_or_refused(shop: Path) -> None:
    config = shop_config(shop, fields=[*FIELDS, CROSS])
    bundle = write_bundle(shop, config)
    result = score_catalog(config, model=bundle, date=DAY)
    assert result["by"] == "pairs"
    assert rows_of(published(result)) == expected(shop, bundle, 7)
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


def test_integer_ids_sort_by_value_and_k_may_exceed_the_catalog(shop: Path) -> None:
    items = read(shop / "items.csv")
    items = items.append_column("number", pc.cast(pc.utf8_slice_codeunits(items["item"], 1), pa.int32()))
    pq.write_table(items, shop / "items.parquet")
    config = shop_config(shop, items={"path": "items.parquet", "format": "parquet"}, item_id="number", k=1000)
    bundle = write_bundle(shop, config)
    table = published(score_catalog(config, model=bundle, date=DAY))
    assert table.schema.field("item_id").type == pa.int64()
    found = [(c, r, f"i{i:03d}", p) for c, r, i, p in rows_of(table)]
    assert found == expected(shop, bundle, 1000)
    assert len(found) == 40 * 60


def _typed(path: Path, column: str, values: pa.Array) -> dict[str, str]:
    """A csv table as Parquet with one column replaced."""
    table = read(path)
    table = table.set_column(table.column_names.index(column), column, values)
    pq.write_table(table, path.with_suffix(".parquet"))
    return {"path": path.with_suffix(".parquet").name, "format": "parquet"}


@pytest.mark.parametrize(
    ("first", "kind", "written"),
    [(2**63 - 20, pa.uint64(), pa.uint64()), (100, pa.uint64(), pa.int64()), (-20, pa.int32(), pa.int64())],
)
def test_integer_ids_of_any_size_meet_their_texts(
    shop: Path, first: int, kind: pa.DataType, written: pa.DataType
) -> None:
    """Unsigned hashes around 2^63 on both sides; pairs come as texts, some that cannot be ids of theirs."""
    users, items = (sorted(read(shop / f"{side}.csv")[side[:-1]].to_pylist()) for side in ("users", "items"))
    numbers = {name: first + n for side in (users, items) for n, name in enumerate(side)}
    blocks = {
        side: _typed(
            shop / f"{side}.csv", of, pa.array([numbers[v] for v in read(shop / f"{side}.csv")[of].to_pylist()], kind)
        )
        for side, of in (("users", "user"), ("items", "item"))
    }
    seen = [(numbers[u], numbers[i]) for u in users[5:30] for i in items[::3]]
    never = [
        ("abc", first),
        (f"{first}.0", first),
        (first, f"0{first}"),
        (2**64, first),
        (first, -(2**63) - 1),
        ("", first),
    ]
    (shop / "seen.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in [*seen, *never]))
    config = shop_config(
        shop, contexts=blocks["users"], items=blocks["items"], exclude={"path": "seen.csv"}, k=1000,
        filter=f"item != {first + 1}",
    )  # fmt: skip
    config = config.model_copy(update={"scoring": config.scoring.model_copy(update={"max_unseen": 1})})
    config._file = str(shop / "shop.yaml")
    result = score_catalog(config, model=write_bundle(shop, config), date=DAY)
    table = published(result)
    assert (table.schema.field("context_id").type, table.schema.field("item_id").type) == (written, written)
    pairs = set(zip(table["context_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
    wanted = {(numbers[u], numbers[i]) for u in users for i in items if numbers[i] != first + 1}
    assert pairs == wanted - set(seen)
    assert table["context_id"].to_pylist() == sorted(table["context_id"].to_pylist())
    matched = result["matched"]["exclude"]
    counts = {key: matched[key] for key in ("read", "blank", "unreadable", "context", "item", "both")}
    assert counts == {"read": 506, "blank": 1, "unreadable": 0, "context": 502, "item": 504, "both": 500}


@pytest.mark.parametrize(
    ("written", "met"),
    [(pa.array([7.0, 8.0]), True), (pa.array([7, 8], pa.int8()), True), (pa.array(["7.0", "08"]), False)],
)
def test_exclusions_that_meet_no_context_are_refused(shop: Path, written: pa.Array, met: bool) -> None:
    """What pandas makes of a column of ids after a left join meets them; other spellings do not, and that is said."""
    block = _typed(shop / "users.csv", "user", pa.array(range(40)))
    pq.write_table(pa.table({"who": written, "what": ["i001", "i002"]}), shop / "seen.parquet")
    exclude = {"path": "seen.parquet", "format": "parquet", "context": "who", "item": "what"}
    config = shop_config(shop, contexts=block, exclude=exclude, k=1000)
    bundle = write_bundle(shop, config)
    if met:
        result = score_catalog(config, model=bundle, date=DAY)
        table = published(result)
        assert result["rows"] == 40 * 60 - 2
        assert table.filter(pc.equal(table["context_id"], 7))["item_id"].to_pylist().count("i001") == 0
        return
    with pytest.raises(
        RefusedError,
        match=r"catalog.exclude: expected pairs that meet a context and an eligible item, by the same text, found 2 "
        r"pairs, of which 0 met a context, 2 an eligible item, 0 both; a pair reads '7.0', 'i001', the catalog '0', "
        r"'i000'; column who reads '7.0' at .*/seen.parquet row 1, '08' at .*/seen.parquet row 2. Spell the ids as "
        r"contexts and items do",
    ):
        score_catalog(config, model=bundle, date=DAY)
    assert not list((shop / "work" / "scores").glob("**/*.parquet"))


def test_a_share_of_pairs_may_be_asked_for(shop: Path) -> None:
    (shop / "seen.csv").write_text("user,item\nu001,i001\nu002,i2\n,\n")
    config = shop_config(shop, exclude={"path": "seen.csv"}, max_unmatched=0.5)
    bundle = write_bundle(shop, config)
    with pytest.raises(
        RefusedError,
        match=r"expected less than 50.00% of the pairs without a context or an eligible .*; column user reads 'u001' "
        r"at .*/seen.csv line 2, 'u002' at .*/seen.csv line 3; no eligible item in column item for 'i2' at .*/seen.csv "
        r"line 3\. ",
    ):
        score_catalog(config, model=bundle, date=DAY)
    more = shop_config(shop, exclude={"path": "seen.csv"}, max_unmatched=0.6)
    assert score_catalog(more, model=bundle, date=DAY)["matched"]["exclude"]["both"] == 1
    with pytest.raises(RefusedError, match=r"less than 50\.00%"):  # the lists stand; what was asked for did not change
        score_catalog(config, model=bundle, date=DAY)


def test_pairs_that_cannot_be_read_or_told_apart_are_refused(shop: Path) -> None:
    (shop / "seen.csv").write_text("user,item\nu001,i001\nu002\n")
    config = shop_config(shop, exclude={"path": "seen.csv"})
    bundle = write_bundle(shop, config)
    with pytest.raises(
        RefusedError,
        match=r"catalog.exclude: expected at most 0.1000% unreadable rows, found 1 of 2 \(50.0000%\): column_count: 1 "
        r"row, such as 'u002' at .*/seen.csv line 3\. ",
    ):
        score_catalog(config, model=bundle, date=DAY)
    pq.write_table(pa.table({"user": [b"u001", b"u\xff"], "item": ["i001", "i002"]}), shop / "bytes.parquet")
    binary = shop_config(shop, exclude={"path": "bytes.parquet", "format": "parquet"})
    with pytest.raises(
        RefusedError, match=r"undecodable of user: 1 row, such as '.*xff.*' at .*/bytes.parquet row 2\."
    ):
        score_catalog(binary, model=bundle, date=DAY)
    pq.write_table(pa.table({"user": [["u001"]], "item": ["i001"]}), shop / "seen.parquet")
    lists = shop_config(shop, exclude={"path": "seen.parquet", "format": "parquet"})
    with pytest.raises(InputError, match=r"catalog.exclude: column 'user': expected ids .*, found type list<"):
        score_catalog(lists, model=bundle, date=DAY)


def test_ids_of_files_of_several_types(shop: Path) -> None:
    """7 and "7" in two files are one id; contexts of both types are texts."""
    for name, ids in (("a", pa.array([7, 8])), ("b", pa.array(["007", "9"]))):
        (shop / name).mkdir()
        pq.write_table(pa.table({"user": ids, "age": ["1", "2"]}), shop / name / "users.parquet")
        pq.write_table(pa.table({"item": ids, "category": ["a", "b"], "tags": ["p", "q"], "stock": [1, 1]}),
                       shop / name / "items.parquet")  # fmt: skip
    sides = {s: {"path": [f"a/{s}.parquet", f"b/{s}.parquet"], "format": "parquet"} for s in ("users", "items")}
    config = shop_config(shop, contexts=sides["users"], items=sides["items"])
    config = config.model_copy(update={"scoring": config.scoring.model_copy(update={"max_unseen": 1})})
    config._file = str(shop / "shop.yaml")
    bundle = write_bundle(shop, config)
    table = published(score_catalog(config, model=bundle, date=DAY))
    assert sorted(set(table["context_id"].to_pylist())) == ["007", "7", "8", "9"]
    assert sorted(set(table["item_id"].to_pylist())) == ["007", "7", "8", "9"]
    pq.write_table(pa.table({"user": ["7"], "age": ["1"]}), shop / "b" / "users.parquet")
    with pytest.raises(InputError, match=r"catalog.contexts: expected each user once, found '7' again"):
        score_catalog(config, model=bundle, date=DAY)


def test_new_spellings_of_known_ids_are_refused(shop: Path) -> None:
    items = read(shop / "items.csv")["item"].to_pylist()
    block = _typed(shop / "items.csv", "item", pa.array([int(i[1:]) for i in items]))
    config = shop_config(shop, items=block)
    with pytest.raises(
        RefusedError, match=r"catalog.items: expected values of field 'item' that training has seen, such as 'i\d+', "
        r"'i\d+', found 100.0% unseen, such as '\d+'. Write them as the training's log does"
    ):  # fmt: skip
        score_catalog(config, model=write_bundle(shop, config), date=DAY)


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


def test_the_ids_of_one_catalog_are_not_taken_for_anothers() -> None:
    """A worker process serves job after job: an earlier one's ids are gone, a later one's may lie there."""

    def ids(job: int) -> pa.Array:
        return pa.array([f"item {job + n}" for n in range(3)])

    for job in range(0, 30, 3):
        earlier = ids(job)
        _places(earlier, ids(job))
        where = id(earlier)
        del earlier
        others = [ids(job + 3)]
        while id(others[-1]) != where and len(others) < 1000:
            others.append(ids(job + 3))
        here, none = _places(others[-1], pa.array([f"item {job + 5}", f"item {job + 1}"]))
        assert here == 2
        assert none < 0
