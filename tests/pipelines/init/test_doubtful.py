"""Logs whose columns may mean several things: what init takes them for, says of them, or refuses."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from fieldwise.features.errors import InputError
from fieldwise.pipelines.config.load import load_config
from tests.pipelines.init.shop import kinds, made, read

OUTCOMES: dict[str, tuple[Any, str]] = {
    "two words": (lambda n, k: "zu Ende" if n * k % 3 else "abgebrochen", """--label 'ergebnis == "zu Ende"'"""),
    "a percentage": (lambda n, k: f"{n * k % 101}%", "write it without the sign, then --label 'ergebnis >= 80'"),
    "a percentage by its name": (lambda n, k: n * k % 101, "--label 'heard_pct >= 80'"),
    "0 and 1 beside another such column": (lambda n, k: n * k % 2, "--label ergebnis"),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_may_be_an_outcome_is_no_log_of_positives(name: str, tmp_path: Path) -> None:
    """Context and item are known, but which rows are positives is not: nobody is to find it among the fields."""
    outcome, told = OUTCOMES[name]
    loud = (lambda k: k % 2) if name.startswith("0 and 1") else (lambda k: ("low", "high")[k % 2])
    lines = [f"u{n % 30},s{k},{outcome(n, k)},{loud(k)}" for n in range(900) for k in [n * n % 41]]
    (tmp_path / "log.csv").write_text(
        f"wer,was,{'heard_pct' if 'heard_pct' in told else 'ergebnis'},laut\n" + "\n".join(lines) + "\n"
    )
    with pytest.raises(InputError, match="label: expected a column that says which rows are positives") as refused:
        made(tmp_path, context="wer", item="was")
    assert told in str(refused.value)
    assert "of a log of positives alone, --label true" in str(refused.value)
    assert made(tmp_path, context="wer", item="was", label="true")[1].label == "true"


def test_what_belongs_to_users_and_items_is_no_outcome(tmp_path: Path) -> None:
    """Nor is on what device somebody did it: such a log of positives needs no word."""
    lines = [
        f"u{n % 30},s{k},{'fm'[n % 30 % 2]},{'old' if k % 2 else 'new'},{('web', 'app')[n * k % 2]}"
        for n in range(900) for k in [n * n % 41]
    ]  # fmt: skip
    (tmp_path / "log.csv").write_text("user,song,sex,age,device\n" + "\n".join(lines) + "\n")
    config = made(tmp_path)[1]
    assert config.label == "true"
    assert kinds(config).keys() == {"user", "song", "sex", "age", "device"}


def test_everyday_names_of_whom_and_what(tmp_path: Path) -> None:
    names = "listener_id,device,show_id,show_title,episode_minutes,finished"
    lines = [f"L{n % 30},{'pwc'[n % 3]},{k},Show {k},{20 + k},{'YN'[n % 2]}" for n in range(900) for k in [n * n % 41]]
    (tmp_path / "log.csv").write_text(names + "\n" + "\n".join(lines) + "\n")
    found, _ = made(tmp_path)
    assert (found["context"], found["item"]) == ("listener_id", "show_id")


def test_times_that_do_not_read_are_no_fields(tmp_path: Path) -> None:
    """Nor a column of users or items, nor what rows are split by."""
    draw = random.Random(5)
    lines = []
    for n in range(900):
        when = f"{1 + n % 9:02d}/{1 + n % 28:02d}/2026 {1 + n % 12:02d}:{n % 60:02d} {'AP'[n % 2]}M"
        lines.append(f"{when},u{n % 30},{n * n % 41},{draw.randrange(2)},{when}")
    (tmp_path / "log.csv").write_text("played_at,user,item,clicked,seen\n" + "\n".join(lines) + "\n")
    found, config = made(tmp_path)
    assert kinds(config).keys() == {"user", "item"}
    assert config.catalog is not None
    assert (tmp_path / "config-contexts.csv").read_text().startswith('"user"\n')
    (told,) = [line for line in found["warnings"] if line.startswith("played_at: ")]
    assert "read in no format that is known here: write them as ISO 8601, 2026-01-31 18:00:00" in told
    assert "without a time the newest rows cannot test" in told
    assert "a time that is not read" in found["left_out"]["seen"]


def test_few_texts_among_numbers(tmp_path: Path) -> None:
    draw = random.Random(5)
    lines = [
        f"u{n % 30},s{n * n % 41},{'n/a' if n % 90 == 0 else n % 300 / 10},{draw.randrange(2)}" for n in range(900)
    ]
    (tmp_path / "log.csv").write_text("user,item,minutes,clicked\n" + "\n".join(lines) + "\n")
    found, config = made(tmp_path)
    assert kinds(config)["minutes"] == "vocabulary"
    (told,) = [line for line in found["warnings"] if line.startswith("minutes: ")]
    assert "10 values such as 'n/a' are no numbers, so it is a vocabulary: leave them empty in the log" in told
    block, rule = "{name: minutes, kind: number, quantiles: 20}", """filter: 'minutes not in ["n/a"]'"""
    assert block in told
    assert rule in told
    text = (tmp_path / "config.yaml").read_text().replace("{name: minutes, kind: vocabulary}", block)
    (tmp_path / "config.yaml").write_text(f"{text}\n{rule}\n")
    config = load_config(tmp_path / "config.yaml")
    assert kinds(config)["minutes"] == "number"
    assert read(config) == 890


def test_another_init_after_one_without_a_catalog(tmp_path: Path) -> None:
    """Its config is there by then."""
    lines = [f"A{n % 30},B{n * n % 41},{n % 2}" for n in range(900)]
    (tmp_path / "log.csv").write_text("alpha,beta,clicked\n" + "\n".join(lines) + "\n")
    found, config = made(tmp_path)
    assert config.catalog is None
    (told,) = [line for line in found["warnings"] if line.startswith("no catalog to rank")]
    assert "--context beta --item alpha" in told
    assert told.endswith("in another init, which takes --out for another config: config.yaml is not written over")
    assert "in another init" in re.sub(r"\n# ", " ", (tmp_path / "config.yaml").read_text())


def test_nothing_to_predict(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("a,b\n" + "".join(f"{n},{n % 5}\n" for n in range(100)))
    with pytest.raises(InputError, match=r"label: expected a column of 0 and 1, .* found none among a, b\. Say what"):
        made(tmp_path)
    with pytest.raises(InputError, match="--label: expected positives and negatives, found b >= 9"):
        made(tmp_path, label="b >= 9")
    with pytest.raises(InputError, match="fields: expected a column that says something of the label, found none"):
        made(tmp_path, label="b >= 3")
