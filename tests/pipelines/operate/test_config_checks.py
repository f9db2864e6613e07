"""The doctor on a config: what it shows, what it costs, and what is not as it should be, with its remedy."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fieldwise.features.errors import InputError
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.operate.doctor import examine

LOG = "shopper,product,click,gone,word\n" + "".join(
    f"s{n % 17},p{n * 7 % 23},{n % 3 % 2},,{'yes' if n % 2 else 'no'}\n" for n in range(300)
)
CONFIG = """\
name: shop
source: {path: log.csv}
label: click
split: {by: hash, key: shopper, valid: 0.1, test: 0.1}
fields:
  - {name: shopper, kind: vocabulary}
  - {name: product, kind: hash, buckets: 64}
model: {kind: ffm}
"""
CATALOG = """\
catalog:
  contexts: {path: shoppers.csv}
  items: {path: products.csv}
  context_id: shopper
  item_id: product
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "shoppers.csv").write_text("shopper\n" + "".join(f"s{n}\n" for n in range(17)))
    (tmp_path / "products.csv").write_text("product\n" + "".join(f"p{n}\n" for n in range(23)))
    return tmp_path


def examined(shop: Path, text: str = CONFIG + CATALOG, *overrides: str) -> dict:
    (shop / "shop.yaml").write_text(text)
    return examine(load_config(shop / "shop.yaml", list(overrides)), quick=True)


def test_rows_are_estimated_from_all_that_were_read(shop: Path) -> None:
    """More rows are read at once than are looked at."""
    head, *rows = LOG.splitlines()
    (shop / "log.csv").write_text("\n".join([head, *rows * (100_000 // len(rows))]) + "\n")
    checks = examined(shop)["checks"]
    found = re.fullmatch(r"([\d,]+) read, ([\d,]+) kept, .*about ([\d,]+) rows;.*", checks["rows"] + checks["cost"])
    assert found is not None
    read, kept, about = (int(number.replace(",", "")) for number in found.groups())
    assert read == kept > 10_000
    assert about == pytest.approx(100_000, rel=0.05)


def test_a_sound_config(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examined(shop)
    checks = found["checks"]
    assert checks["config"] == "2 fields, ffm, split by hash"
    assert checks["source"].startswith("1 files, 0.0 MiB")
    assert checks["rows"] == "300 read, 300 kept, 33.333% positive"
    assert checks["fields"] == "2 fields in 2 slots; the first 10 rows are below"
    assert checks["cost"].startswith("about 300 rows; features about 0 s; table 87 x 9, with optimizer")
    assert "an epoch about " in checks["cost"]
    assert checks["catalog"] == "1 fields of contexts, 1 of items"
    assert "written, read, listed, created once and removed" in checks["workspace"]
    assert checks["store"].endswith("champion: none")
    assert found["notes"] == []
    said = capsys.readouterr().err
    assert "shopper                  vocabulary s0                 s1 " in said
    assert "product                  hash       bucket " in said
    assert not list(shop.glob("**/.doctor*"))


@pytest.mark.parametrize(
    ("right", "wrong", "note"),
    [
        ("label: click", "label: click >= 0", "label `click >= 0` is 1 in each of the first 300 rows: is it what you"),
        ("{name: product, kind: hash, buckets: 64}", "{name: gone, kind: hash, buckets: 64}", "lack a value. Check"),
        ("kind: ffm", "kind: deepfm", "Use fm or ffm|write `model: {kind: ffm}`"),
        ("kind: vocabulary", "kind: vocabulary, min_count: 20", "too rarely for min_count. Use kind: hash"),
        (
            "- {name: product",
            "- {name: both, kind: cross, of: [shopper, product]}\n  - {name: product",
            "scored by itself",
        ),
        ("label:", "join: {path: users.csv, on: shopper}\nlabel:", "0 of 300 rows find their key. Write keys alike"),
    ],
)
def test_what_is_no_mistake_but_not_as_it_should_be(shop: Path, right: str, wrong: str, note: str) -> None:
    (shop / "users.csv").write_text("shopper,city\n007,Bonn\n")
    text = CONFIG.replace(right, wrong)
    notes = examined(shop, text + (CATALOG if "gone" not in wrong else ""))["notes"]
    assert any(part in told for told in notes for part in note.split("|")), notes


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("log.csv", "none.csv", "FAILED source: .*expected at least one file.* Check the path"),
        ("label: click", "label: word", "FAILED rows: .*`label: 'word == \"yes\"'`"),
        ("split: {by: hash, key: shopper, valid: 0.1, test: 0.1}\n", "", "FAILED config: .*Add `split:"),
        ("model:", "workspace: /proc/none\nmodel:", "FAILED workspace: .*Set another `workspace`"),
        ("model:", "tracking: {uri: 'http://127.0.0.1:9'}\nmodel:", "FAILED store: .*127.0.0.1:9"),
    ],
)
def test_what_fails_says_what_to_do(
    shop: Path, right: str, wrong: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="doctor: expected every check to pass"):
        examined(shop, CONFIG.replace(right, wrong))
    assert re.search(said, capsys.readouterr().err)
