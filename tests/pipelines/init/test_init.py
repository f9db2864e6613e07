"""A config that nobody wrote: it runs, says why, warns of what would mislead, and overwrites nothing."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.listing import list_files
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.demo.shop import Shop
from fieldwise.pipelines.init import keyed, sample
from fieldwise.pipelines.init.guess.columns import words_of
from fieldwise.pipelines.init.init import init
from fieldwise.pipelines.init.keyed import is_position
from fieldwise.pipelines.score.names import names_of
from tests.pipelines.init.shop import kinds, made, read, write_log


def test_a_log_as_people_keep_them(tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv")
    found, config = made(tmp_path)
    assert config.source.separator == ";"
    assert config.label == "`Clicked?`"
    assert config.time is not None
    assert (config.time.column, config.time.format) == ("shown at", "%d.%m.%Y %H:%M")
    assert (config.split.by, config.split.valid, config.split.test) == ("time", 0.1, 0.1)
    assert kinds(config) == {
        "shopper": "vocabulary", "product": "vocabulary", "tags": "vocabulary", "price": "number",
        "size": "vocabulary", "place": "vocabulary", "hour": "time", "weekday": "time",
    }  # fmt: skip
    tags = next(field for field in config.fields if field.name == "tags")
    assert (tags.separator, tags.max_values) == ("|", 3)
    assert found["left_out"].keys() == {"paid until", "view id"}
    leak, numbering = found["warnings"]
    assert leak.startswith("paid until: LEAK: set in 100.0% of the positives and 0.0% of the others.")
    assert numbering.startswith("view id: ID: 4,000 values, as many as rows")
    assert config.catalog is not None
    assert (config.catalog.context_id, config.catalog.item_id) == ("shopper", "product")
    assert config.catalog.fixed == {"place": 1}
    assert config.catalog.time == "2026-03-20T23:52:00"
    assert (found["rows"], found["rows_looked_at"]) == (4000, 4000)
    assert read(config) == 4000
    items = pyarrow.csv.read_csv(tmp_path / "config-items.csv")
    assert (items.column_names, items.num_rows) == (["product", "tags", "price"], 40)
    contexts = pyarrow.csv.read_csv(tmp_path / "config-contexts.csv")
    assert (contexts.column_names, contexts.num_rows) == (["shopper", "size"], 60)
    text = (tmp_path / "config.yaml").read_text()
    assert max(map(len, text.splitlines())) <= 120
    text = " ".join(text.replace("#", "").split())
    assert "all 4,000 rows were looked at" in text
    assert "% missing" in text


def test_the_shop_of_the_demo(tmp_path: Path) -> None:
    shop = Shop(7 * 600)
    (tmp_path / "log").mkdir()
    for day in range(shop.days):
        table, _ = shop.log_table(np.asarray(shop.rows_of(day)))
        pyarrow.csv.write_csv(table, tmp_path / "log" / f"{shop.day(day)}.csv")
    for name, table in shop.side_tables().items():
        pyarrow.csv.write_csv(table, tmp_path / f"{name}.csv")
    found, config = made(tmp_path, "log", users="users.csv", items="items.csv")
    (truth,) = found["warnings"]
    assert truth.startswith("truth: LEAK: it reads as a probability of the label itself")
    assert [join.on for join in config.join] == ["user", "item"]
    shipped = [
        "user",
        "age",
        "gender",
        "city",
        "item",
        "category",
        "brand",
        "price",
        "tags",
        "hour",
        "device",
        "position",
    ]
    assert set(kinds(config)) == set(shipped)
    assert config.catalog is not None
    assert config.catalog.fixed == {"position": 1}
    assert config.catalog.items.path == ["items.csv"]
    contexts = pyarrow.csv.read_csv(tmp_path / "config-contexts.csv")
    assert contexts.column_names == ["user", "device"]
    assert read(config) == 4200


@pytest.mark.parametrize("name", ["config.yaml", "config-items.csv", "config-contexts.csv"])
def test_what_is_there_is_not_written_over(name: str, tmp_path: Path) -> None:
    write_log(tmp_path / "log.csv", 200)
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"{name}: expected no file yet, found one, .* Name another by --out"):
        made(tmp_path)
    assert (tmp_path / name).read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"log.csv", name}


ROWS = [
    {"user": f"u{n % 37}", "item": n * 7 % 23, "when": f"2026-01-{1 + n // 100:02d} {n % 24:02d}:00:00",
     "tags": f"t{n % 5}|t{n % 3}", "click": int(n * n % 7 < 2)}
    for n in range(1000)
]  # fmt: skip


def write_rows(folder: Path, name: str) -> None:
    names = list(ROWS[0])
    lines = [names, *([str(value) for value in row.values()] for row in ROWS)]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS), folder / name)
    elif name.endswith(".jsonl"):
        (folder / name).write_text("".join(json.dumps({**r, "tags": r["tags"].split("|")}) + "\n" for r in ROWS))
    else:
        text = "\n".join(("\t" if ".tsv" in name else ",").join(line) for line in lines) + "\n"
        (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


@pytest.mark.parametrize("name", ["log.csv", "log.tsv", "log.csv.gz", "log.jsonl", "log.parquet"])
def test_the_same_rows_in_every_format(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path, name)
    found, config = made(tmp_path, name)
    assert config.source.format == {"csv": "csv", "tsv": "tsv", "gz": "csv"}.get(name[-3:].lstrip("."), name[4:])
    assert (config.label, config.time and config.time.column) == ("click", "when")
    assert kinds(config) == {"user": "vocabulary", "item": "vocabulary", "tags": "vocabulary", "hour": "time"}
    tags = next(field for field in config.fields if field.name == "tags")
    assert (tags.separator, tags.max_values) == (None if name == "log.jsonl" else "|", 2)
    assert (found["context"], found["item"], found["rows"]) == ("user", "item", 1000)
    assert read(config) == 1000
    assert (tmp_path / f"config-items.{'parquet' if name[-3:] in ('onl', 'uet') else 'csv'}").exists()


def test_ratings_without_names_beside_two_tables(tmp_path: Path) -> None:
    draw = random.Random(2)
    rows = [(draw.randint(1, 50), draw.randint(1, 80), draw.randint(1, 5), 9 * 10**8 + 6000 * n) for n in range(3000)]
    (tmp_path / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    users = [(n, draw.randint(18, 80), draw.choice("MF")) for n in range(1, 51)]
    (tmp_path / "u.user").write_text("".join("|".join(map(str, row)) + "\n" for row in users))
    items = [(n, f"Name {n} é", *(draw.randint(0, 1) for _ in range(4))) for n in range(1, 81)]
    (tmp_path / "u.item").write_bytes("".join("|".join(map(str, row)) + "\n" for row in items).encode("latin-1"))
    found, config = made(tmp_path, "u.data", users="u.user", items="u.item")
    assert config.source.columns == ["user", "item", "rating", "time"]
    assert config.label == "rating >= 4"
    assert [(join.on, join.encoding) for join in config.join] == [("user", "utf-8"), ("item", "latin-1")]
    assert kinds(config) == {
        "user": "vocabulary", "item": "vocabulary", "hour": "time", "weekday": "time", "user_c2": "number",
        "user_c3": "vocabulary", "item_flags": "vocabulary",
    }  # fmt: skip
    assert config.fields[-1].flags == ["item_c3", "item_c4", "item_c5", "item_c6"]
    assert found["left_out"] == {"item_c2": "80 values in 80 rows: says little more than item"}
    assert read(config) == 3000
    assert not list(tmp_path.glob("config-*"))


def test_a_key_of_another_name_is_renamed(tmp_path: Path) -> None:
    write_rows(tmp_path, "log.csv")
    lines = [f"{n},{100 + n % 4},{n % 3}" for n in range(23)]
    (tmp_path / "items.csv").write_text("item_id,brand,tags\n" + "\n".join(lines) + "\n")
    found, config = made(tmp_path, items="items.csv")
    (join,) = config.join
    assert (join.on, join.columns, join.header) == ("item", ["item", "brand", "tags"], True)
    assert join.select == ["brand"]
    assert "the log or another table has it, too" in found["left_out"]["tags"]
    assert read(config) == 1000


def test_answers_are_no_keys(tmp_path: Path) -> None:
    """Ids as 12.0 that a table has as 12: 0 and 1 of the label are ids of that table, too."""
    lines = [f"{n % 37}.0,{n % 23},{int(n * n % 7 < 2)}" for n in range(900)]
    (tmp_path / "log.csv").write_text("user,item,click\n" + "\n".join(lines) + "\n")
    (tmp_path / "users.csv").write_text("user,age\n" + "".join(f"{n},{20 + n % 9}\n" for n in range(37)))
    with pytest.raises(
        InputError, match=r"--users: expected a column of .* found keys user; nearest is 'user' .* no `\.0`"
    ):
        made(tmp_path, users="users.csv")


def test_a_table_without_the_keys(tmp_path: Path) -> None:
    write_rows(tmp_path, "log.csv")
    (tmp_path / "items.csv").write_text("id,brand\nA1,x\nA2,y\n")
    with pytest.raises(
        InputError, match=r"--items: expected a column of .* found keys id, brand.* Write the ids in both"
    ):
        made(tmp_path, items="items.csv")


def test_events_and_logs_of_what_was_done(tmp_path: Path) -> None:
    names = ["view", "click", "addToCart", "scroll"]
    lines = [f"u{n % 30},p{n * n % 41},{names[n * 7 % 11 % 4]}" for n in range(900)]
    (tmp_path / "log.csv").write_text("visitor,product,event\n" + "\n".join(lines) + "\n")
    assert made(tmp_path)[1].label == 'event in ["click", "addToCart"]'
    plays = tmp_path / "plays"
    plays.mkdir()
    lines = [f"u{n % 30},s{n * n % 41}" for n in range(900)]
    (plays / "log.csv").write_text("listener,song\n" + "\n".join(lines) + "\n")
    config = made(plays)[1]
    assert config.label == "true"
    assert config.negatives is not None
    assert (config.negatives.context, config.negatives.item) == ("listener", "song")


def test_a_log_in_another_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Words for yes and no, a decimal comma, and columns of whom and what that no list of names knows."""
    lines = ["Kunde Nr;Artikel:ID;Artikel Name;Preis (EUR);gekauft?"]
    for n in range(600):
        what = n * 7 % 40
        bought = "ja" if n % 3 == what % 3 else "nein"
        lines.append(f"K{n % 29};A{what};Ding {what};{what + 3},{what:02d};{bought}")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found, config = made(tmp_path)
    assert config.label == '`gekauft?` == "ja"'
    assert config.catalog is None
    assert any("--context 'Kunde Nr' --item Artikel:ID" in line for line in found["warnings"])
    assert "warning: no catalog to rank" in capsys.readouterr().err
    price = next(field for field in config.fields if field.name == "Preis (EUR)")
    assert (price.kind, price.decimal) == ("number", ","), "no list of what stands around the comma"
    (tmp_path / "config.yaml").unlink()
    _, config = made(tmp_path, context="Kunde Nr", item="Artikel:ID")
    assert config.catalog is not None
    assert (config.catalog.context_id, config.catalog.item_id) == ("Kunde Nr", "Artikel:ID")
    assert names_of(config, "Artikel:ID", ["A7"]) == {"A7": "Ding 7"}
    known = {"Kunde Nr": "vocabulary", "Artikel:ID": "vocabulary", "Preis (EUR)": "number"}
    assert kinds(config) == known, "the name names the item again"
    assert "a value for each Artikel:ID: says no more" in (tmp_path / "config.yaml").read_text()
    assert read(config) == 600
    with pytest.raises(InputError, match=r"--item: expected a column 'Artikel' of the log, found Kunde Nr, Artikel:ID"):
        init(str(tmp_path / "log.csv"), item="Artikel", out=str(tmp_path / "other.yaml"))


def test_places_by_another_name_and_titles_of_items(tmp_path: Path) -> None:
    """A column of 1 to 5 that follows nobody may be the place of an item; items are named by what is no field."""
    draw = random.Random(5)
    rows = [
        f"{n},u{draw.randrange(40)},i{draw.randrange(30)},{draw.randrange(1, 6)},{draw.randrange(2)}"
        for n in range(900)
    ]
    (tmp_path / "log.csv").write_text("view,user,item,étage,click\n" + "\n".join(rows) + "\n")
    items = [f'i{n},"Titre {n}, neuf","1.{n:03d},50",{n % 4}' for n in range(30)]
    (tmp_path / "items.csv").write_text("item,libellé,prix,rayon\n" + "\n".join(items) + "\n")
    found, config = made(tmp_path, items=str(tmp_path / "items.csv"))
    (told,) = [line for line in found["warnings"] if line.startswith("étage")]
    assert 'CHECK whether this is where an item was shown: then write `fixed: {"étage": 1}`' in told
    assert config.catalog is not None
    assert (config.catalog.item_name, config.catalog.fixed) == ("libellé", {})
    (tmp_path / "both.csv").write_text(
        "position,user,item,étage,click\n"
        + "\n".join(f"{n % 4}{row[row.index(',') :]}" for n, row in enumerate(rows))
        + "\n"
    )
    both = init(str(tmp_path / "both.csv"), out=str(tmp_path / "both.yaml"))
    assert [line for line in both["warnings"] if line.startswith("étage")] == [], "where it was shown is known"
    assert names_of(config, "item", ["i3"]) == {"i3": "Titre 3, neuf"}
    files = list_files(config.source, config.base)
    with pytest.raises(
        InputError, match=r"catalog\.item_name: expected a column 'libelle' in .*Did you mean `libellé`"
    ):
        require_columns(load_config(tmp_path / "config.yaml", ["catalog.item_name=libelle"]), files)
    (tmp_path / "twice.csv").write_text("item,rayon\ni0,1\ni0,1\ni1,1\n")
    with pytest.raises(InputError, match="Leave one row for each key: of 'item' 'i0' come again"):
        init(str(tmp_path / "log.csv"), items=str(tmp_path / "twice.csv"), out=str(tmp_path / "other.yaml"))


def test_positions_in_other_languages() -> None:
    assert is_position("Posición", words_of("Posición"))
    assert is_position("rang_affiché", words_of("rang_affiché"))
    assert not is_position("opposition", words_of("opposition"))


def test_rows_without_a_label_and_lines_that_are_no_rows(tmp_path: Path) -> None:
    draw = random.Random(4)
    lines = [f"u{n % 30},{'' if n % 10 == 0 else draw.randint(0, 1)}" for n in range(900)]
    lines[450] = "one,two,three"
    (tmp_path / "log.csv").write_text("user,click\n" + "\n".join(lines) + "\n")
    found, config = made(tmp_path)
    assert config.filter == "click is not null"
    assert config.snapshot.max_bad_fraction > 1 / 900
    assert "0.11% of the rows cannot be read" in found["warnings"]


def test_a_large_log_is_looked_at_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(tmp_path / "log.csv", 30_000)
    whole = made(tmp_path)[0]
    tables = {what: (tmp_path / f"config-{what}.csv").read_bytes() for what in ("contexts", "items")}
    for path in tmp_path.glob("config*"):
        path.unlink()
    monkeypatch.setattr(sample, "MOST_BYTES", 400_000)
    monkeypatch.setattr(keyed, "_PENDING", 1000)
    monkeypatch.setattr(keyed, "MOST_KEYS", 100)
    found, config = made(tmp_path)
    assert 4000 < found["rows_looked_at"] < 8000
    assert found["rows"] == pytest.approx(30_000, rel=0.05)
    assert {name: found[name] for name in ("label", "time", "fields", "context", "item")} == {
        name: whole[name] for name in ("label", "time", "fields", "context", "item")
    }
    assert "from its beginning to its end" in (tmp_path / "config.yaml").read_text()
    assert {what: (tmp_path / f"config-{what}.csv").read_bytes() for what in tables} == tables
    assert config.catalog is not None
    assert config.catalog.time == "2026-03-20T23:59:00"


def test_directories_that_are_columns_are_no_fields(tmp_path: Path) -> None:
    draw = random.Random(5)
    for day in (1, 2):
        (tmp_path / "log" / f"date=2026-01-0{day}").mkdir(parents=True)
        lines = "".join(f"u{n % 9},{draw.randint(0, 1)}\n" for n in range(100))
        (tmp_path / "log" / f"date=2026-01-0{day}" / "part.csv").write_text("user,click\n" + lines)
    config = made(tmp_path, "log")[1]
    assert kinds(config) == {"user": "vocabulary"}
    assert config.time is not None
    assert config.time.column == "date"
