"""Ids of contexts, items, exclusions and candidates: which meet, and what is said of those that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fieldwise.features.errors import InputError, RefusedError
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.catalog.tasks import places_of
from tests.pipelines.catalogs import DAY, expected, published, read, rows_of
from tests.pipelines.shop import shop_config, write_bundle


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


def test_the_ids_of_one_catalog_are_not_taken_for_anothers() -> None:
    """A worker process serves job after job: an earlier one's ids are gone, a later one's may lie there."""

    def ids(job: int) -> pa.Array:
        return pa.array([f"item {job + n}" for n in range(3)])

    for job in range(0, 30, 3):
        earlier = ids(job)
        places_of(earlier, ids(job))
        where = id(earlier)
        del earlier
        others = [ids(job + 3)]
        while id(others[-1]) != where and len(others) < 1000:
            others.append(ids(job + 3))
        here, none = places_of(others[-1], pa.array([f"item {job + 5}", f"item {job + 1}"]))
        assert here == 2
        assert none < 0
