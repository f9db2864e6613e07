"""Mistakes that beginners make: each is found by the first command that can know, in one message that says what to
write."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fieldwise.jobs.cli import main

LOG = "shopper,product,click,rating,age,moment\n" + "".join(
    f"s{n % 17},p{n * 7 % 23},{n % 3 % 2},{1 + n % 5},{20 + n % 40},2026-01-{1 + n // 20:02d} {n % 24:02d}:00:00\n"
    for n in range(400)
)
CONFIG = """\
name: shop
source: {path: log.csv}
label: click
time: moment
split: {by: time, valid: 0.1, test: 0.1}
fields:
  - {name: shopper, kind: vocabulary}
  - {name: product, kind: vocabulary}
model: {kind: ffm}
"""
Change = Callable[[Path, str], str]
"""Makes the mistake: (folder, the right config) -> the wrong one."""


def in_config(right: str, wrong: str) -> Change:
    def change(folder: Path, text: str) -> str:
        assert right in text
        return text.replace(right, wrong, 1)

    return change


def in_log(write: Callable[[str], bytes | str]) -> Change:
    def change(folder: Path, text: str) -> str:
        data = write((folder / "log.csv").read_text())
        (folder / "log.csv").write_bytes(data if isinstance(data, bytes) else data.encode())
        return text

    return change


def beside(name: str, content: str, config: Change) -> Change:
    def change(folder: Path, text: str) -> str:
        (folder / name).write_text(content)
        return config(folder, text)

    return change


JOIN = in_config("label:", "join: {path: users.csv, on: shopper}\nlabel:")
MISTAKES: dict[str, tuple[Change, str]] = {
    "a tab for an indent": (in_config("  - {name: shopper", "\t- {name: shopper"), "Indent by spaces, not by tabs."),
    "a misspelt key": (in_config("fields:", "feilds:"), "Did you mean `fields`?"),
    "a key in the wrong block": (in_config("label:", "epochs: 3\nlabel:"), "Write it below `training:`"),
    "a path in place of a block": (in_config("{path: log.csv}", "log.csv"), "Write `source: {path: log.csv}`."),
    "fields that are only named": (
        in_config("- {name: shopper, kind: vocabulary}", "- shopper"),
        "Write `- {name: shopper, kind: vocabulary}`.",
    ),
    "a kind in capitals": (in_config("kind: ffm", "kind: FFM"), "Did you mean `ffm`?"),
    "percent for a fraction": (in_config("valid: 0.1", "valid: 10"), "Write `valid: 0.1` for a tenth of the rows."),
    "no split": (
        in_config("split: {by: time, valid: 0.1, test: 0.1}\n", ""),
        "Add `split: {by: time, valid: 0.1, test: 0.1}`",
    ),
    "one sign to compare": (in_config("label: click", 'label: "rating = 5"'), "Compare by two signs: `==`."),
    "words of SQL": (in_config("label: click", 'label: "rating >= 4 AND click"'), "Write `and`, `or`, `not`"),
    "a name with blanks": (in_config("label: click", 'label: "my rating >= 4"'), "in backticks: `` `my rating` >="),
    "the label among the fields": (
        in_config("  - {name: product", "  - {name: click, kind: hash}\n  - {name: product"),
        "found the label's own column 'click'. Remove the field.",
    ),
    "a column of another case": (in_config("label: click", "label: Click"), "Did you mean `click`?"),
    "another separator": (
        in_log(lambda log: log.replace(",", ";")),
        'Name what stands between them: `separator: ";"`.',
    ),
    "no header line": (
        in_log(lambda log: "".join(f"{n},{n},{n % 2},3,20,7\n" for n in range(400))),
        "The first line seems to be a row: name all columns of the file in its order, `columns: [...]`.",
    ),
    "no header line above texts": (
        in_log(lambda log: log.split("\n", 1)[1]),
        "The first line seems to be a row: name all columns of the file in its order, `columns: [...]`.",
    ),
    "other quotes": (
        in_log(lambda log: re.sub(r"([^,\n]+)", r"'\1'", log)),
        'Name the quotes around them: `quote: "\'"`.',
    ),
    "a spreadsheet's first line": (
        in_log(lambda log: "sep=;\n" + log.replace(",", ";")),
        'Remove that line, which a spreadsheet wrote (`tail -n +2`), and write `separator: ";"`.',
    ),
    "a header line under columns": (
        in_config("{path: log.csv}", "{path: log.csv, columns: [shopper, product, click, rating, age, moment]}"),
        "Set `header: true` to skip that line",
    ),
    "keys of two names": (
        beside("users.csv", "id,city\ns1,Bonn\n", JOIN),
        "rename it in the table by position, `columns: [shopper, ...]` with all 2 names and `header: true`.",
    ),
    "a key twice": (
        beside("users.csv", "shopper,city\ns1,Bonn\ns1,Ulm\n", JOIN),
        "Remove duplicate keys from the side table.",
    ),
    "a label in words": (
        in_log(lambda log: log.replace(",0,", ",no,").replace(",1,", ",yes,")),
        "compare texts, `label: 'click == \"yes\"'`.",
    ),
    "a label in words of any case": (
        in_log(lambda log: log.replace(",0,", ",NO,").replace(",1,", ",Yes,")),
        'compare texts, `label: \'click in ["Yes", "yes", "YES"]\'`.',
    ),
    "a label of another case": (
        in_config("label: click", "label: 'rating == \"Five\"'"),
        "found 0 positives of 320 rows. No row fits the label: texts are compared as they are written, `Yes` is not",
    ),
    "positives alone": (
        in_log(lambda log: log.replace(",0,", ",1,")),
        'Every row fits the label: a log of positives alone takes `label: "true"` and `negatives`.',
    ),
    "a rating for a label": (in_config("label: click", "label: rating"), "such as `label: rating >= 4`."),
    "days before months": (
        in_log(lambda log: re.sub(r"2026-01-(\d\d)", r"\1/01/2026", log)),
        "Set time.format to %d/%m/%Y %H:%M:%S",
    ),
    "texts for numbers": (
        in_config("  - {name: product, kind: vocabulary}", "  - {name: product, kind: number}"),
        "For values that are no numbers write `kind: vocabulary` at fields.product.",
    ),
    "another encoding": (
        in_log(lambda log: log.replace("s3,", "Zoë,").encode("latin-1")),
        "name its encoding: `encoding: latin-1`",
    ),
    "one class to validate on": (
        in_log(lambda log: re.sub(r",[01],(\d),(\d+),(2026-01-(?:17|18))", r",0,\1,\2,\3", log)),
        "found 40 rows, all labelled 0. Give the split a larger share, or rows by chance: `split: {by: hash, key: ",
    ),
    "moments in words": (
        in_log(lambda log: re.sub(r"2026-01-(\d\d)", r"\1 January 2026", log)),
        "reads in no format that is known here: write such moments as ISO 8601, 2026-01-31 18:00:00.",
    ),
    "months in letters": (
        in_log(lambda log: re.sub(r"2026-01-(\d\d)", r"\1 Jan 2026", log)),
        "Set time.format to %d %b %Y %H:%M:%S",
    ),
    "rows without a moment": (
        in_log(lambda log: re.sub(r",2026-01-0[1-4].*", ",", log)),
        "Leave rows without a moment out: `filter: moment is not null`.",
    ),
    "rows without a label": (
        in_log(lambda log: log.replace(",0,", ",,")),
        "Leave rows without a label out: `filter: click is not null`.",
    ),
    "a name twice": (
        in_log(lambda log: log.replace("rating", "shopper", 1)),
        "Name all columns by position, each once: `columns: [...]` and `header: true`.",
    ),
    "an empty log": (in_log(lambda log: ""), "found no line that names any. Name a file that holds some."),
    "no label": (
        in_log(lambda log: log.replace("click", "clue", 1).replace("rating", "stars", 1)),
        'takes `label: "true"` and `negatives`.',
    ),
    "commas between thousands": (
        lambda folder, text: in_config("- {name: product, kind: vocabulary}", "- {name: age, kind: number}")(
            folder, in_log(lambda log: re.sub(r",(\d\d),2026", r',"1,0\1.50",2026', log))(folder, text)
        ),
        "take commas between thousands, signs and units out of them.",
    ),
    "ids written otherwise": (
        lambda folder, text: beside("users.csv", "shopper,city\nS1,Bonn\nS2,Ulm\n", JOIN)(
            folder, in_config("- {name: product,", "- {name: city,")(folder, text)
        ),
        "see that its key is written alike in both files (`12` is not `12.0`).",
    ),
    "fields without dashes": (
        in_config(
            "  - {name: shopper, kind: vocabulary}\n  - {name: product, kind: vocabulary}", "  shopper: vocabulary"
        ),
        "Write a list: `- {name: shopper, kind: vocabulary}`.",
    ),
    "a catalog without items": (
        in_config("model:", "catalog: {contexts: {path: a.csv}, context_id: shopper, item_id: product}\nmodel:"),
        "Add `items: {path: FILE}`.",
    ),
    "training before features": (lambda folder, text: text, "`fieldwise features"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_says_what_to_write(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    change, said = MISTAKES[mistake]
    command = "train" if mistake.startswith("training") else "features"
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "shop.yaml").write_text(change(tmp_path, CONFIG))
    assert main([command, "--config", "shop.yaml"]) in (2, 3)
    out, err = capsys.readouterr()
    (line,) = [line for line in err.splitlines() if line.startswith(f"fieldwise {command}: ")]
    assert said in line
    assert "expected" in line
    assert "found" in line
    assert not out


def test_one_class_to_test_on_is_told_and_no_model_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(re.sub(r",[01],(\d),(\d+),(2026-01-(?:19|20))", r",0,\1,\2,\3", LOG))
    (tmp_path / "shop.yaml").write_text(CONFIG)
    assert main(["features", "--config", "shop.yaml"]) == 0
    said = capsys.readouterr().err
    assert "warning: split.test: 40 rows, all labelled 0: they measure nothing. Give the split a larger share" in said


def test_what_beginners_write_and_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One block for a list of joins, a moment without quotes, names that are no words."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    header, rest = LOG.split("\n", 1)
    (tmp_path / "log.csv").write_text(header.replace("rating", "my: rating.x") + "\n" + rest)
    (tmp_path / "users.csv").write_text("shopper,city\n" + "".join(f"s{n},c{n % 4}\n" for n in range(17)))
    (tmp_path / "items.csv").write_text("product\n" + "".join(f"p{n}\n" for n in range(23)))
    catalog = "\n".join(
        ["catalog:", "  contexts: {path: users.csv}", "  items: {path: items.csv}", "  context_id: shopper",
         "  item_id: product", "  time: 2026-02-01 19:00:00", ""]
    )  # fmt: skip
    text = CONFIG.replace("label: click", 'join: {path: users.csv, on: shopper}\nlabel: "`my: rating.x` >= 4"')
    more = "  - {name: city, kind: vocabulary}\n  - {name: hour, kind: time, part: hour}\nmodel:"
    (tmp_path / "shop.yaml").write_text(text.replace("model:", more) + catalog)
    assert main(["doctor", "--config", "shop.yaml", "--quick"]) == 0
    said = capsys.readouterr().err
    assert "100.0% meet users.csv on shopper" in said
    assert "40.000% positive" in said
    assert "catalog: 3 fields of contexts, 1 of items" in said
