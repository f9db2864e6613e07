"""Single guesses: how files are cut, what columns hold, which of them know the label."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fieldwise.features.errors import InputError
from fieldwise.pipelines.init.draft import split_of
from fieldwise.pipelines.init.guess.columns import Column, follows, words_of
from fieldwise.pipelines.init.guess.ids import CONTEXTS, ITEMS, find_id
from fieldwise.pipelines.init.guess.labels import find_label, no_label
from fieldwise.pipelines.init.guess.leaks import is_row_number, leak
from fieldwise.pipelines.init.guess.times import find_time, misread_times
from fieldwise.pipelines.init.opening import open_as


def column(values: list, name: str = "x", total: int | None = None) -> Column:
    return Column(name, pa.chunked_array([pa.array(values)]), total or len(values))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n3,4\n", {}),
        ("a;b\n1,5;2\n3;4,5\n", {"separator": ";"}),
        ("a\tb\nit's 5\" wide\t2\n3\t4\n", {"separator": "\t"}),
        ("a\tb\n5 inches\t2\n3\t4\n", {"format": "tsv"}),
        ("a|b|c\nx,y|2|3\nu|4|5\n", {"separator": "|"}),
        ("a,b\n'x,y',2\n'u',4\n", {"quote": "'"}),
        ('a,b\n"x,1\ny",2\nu,4\n', {}),
        ("1,x,2\n3,y,4\n", {"columns": ["c1", "c2", "c3"], "header": False}),
        ("u1,x\nu2,y\nu1,x\n", {"columns": ["c1", "c2"], "header": False}),
        ("a,a,b\nx,y,z\n", {"columns": ["a", "c2", "b"], "header": True}),
        ("1::2::3\n4::5::6\n", {"separator": ":", "columns": ["c1", "c2", "c3", "c4", "c5"], "header": False}),
        ("\ufeffa,b\n1,2\n", {}),
    ],
)
def test_how_a_file_is_cut(text: str, expected: dict, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(text)
    found = open_as(str(tmp_path / "log.csv")).config.model_dump(exclude_defaults=True)
    assert {key: value for key, value in found.items() if key != "path"} == expected


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("log.csv", b"", "expected rows, found an empty file"),
        ("log.csv", b"one\ncolumn\n", "expected columns between commas, tabs, semicolons or bars"),
        ("log.json", b'[{"a": 1},\n {"a": 2}]', "expected one JSON object a line"),
        ("log.csv", "a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        ("log.csv", b"sep=;\na;b\n1;2\n", "found a spreadsheet's line `sep=` before them. Remove it"),
        ("log.csv", b"a,b\nMay 1, 2026,2\nMay 2, 2026,2\n", "2 values in the first line, 3 in most others. Put values"),
        ("log.zip", b"PK\x03\x04", "the suffix .zip"),
    ],
)
def test_what_is_not_read(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        open_as(str(tmp_path / name))


def test_encodings(tmp_path: Path) -> None:
    for encoding, text in (("utf-8", "a,b\né,1\n"), ("latin-1", "a,b\né,1\n"), ("cp1252", "a,b\n€,1\n")):
        (tmp_path / "log.csv").write_bytes(text.encode(encoding))
        assert open_as(str(tmp_path / "log.csv")).config.encoding == encoding


def test_distinct_values_of_a_sample() -> None:
    draw = np.random.default_rng(1)
    rows, total = 20_000, 1_000_000
    few, every = draw.integers(0, 500, rows), np.arange(rows)
    assert column(few.tolist(), total=total).expected == pytest.approx(500, abs=5)
    ids = column(every.tolist(), total=total).expected
    assert ids == round(np.sqrt(total / rows) * rows)  # within its factor sqrt(N / n) of the truth
    assert column(few.tolist()).expected == column(few.tolist()).distinct


def test_what_tells_the_label() -> None:
    draw = np.random.default_rng(2)
    positive = (draw.random(4000) < 0.2).astype(float)
    fair = draw.integers(0, 5, 4000) + 2 * (draw.random(4000) < 0.3 * positive)
    assert leak(column(fair.tolist()), positive) is None
    assert leak(column(draw.integers(0, 3000, 4000).tolist()), positive) is None, "of few rows each"
    assert leak(column(np.arange(4000).tolist()), positive) is None
    assert leak(column([f"paid {n}" if p else None for n, p in enumerate(positive)]), positive) == (
        "set in 100.0% of the positives and 0.0% of the others"
    )
    copied = leak(column(["yes" if p else "no" for p in positive]), positive)
    assert copied is not None
    assert copied.startswith("it alone explains ")
    amount = column((positive * draw.random(4000) * 90 + draw.random(4000)).tolist())
    assert "it alone explains" in str(leak(amount, positive)), "numbers, too"
    assert leak(column(positive.tolist()), positive[:]) is not None
    assert leak(column(["a", "b"] * 2000), np.r_[np.ones(19), np.zeros(3981)]) is None, "too few positives"


def test_a_probability_of_the_label() -> None:
    draw = np.random.default_rng(3)
    p = draw.beta(1, 4, 8000)
    positive = (draw.random(8000) < p).astype(float)
    assert "reads as a probability of the label" in str(leak(column(p.tolist()), positive))
    assert leak(column((p / 2).tolist()), positive) is None, "a feature that helps"
    assert leak(column(draw.random(8000).tolist()), positive) is None


def test_row_numbers() -> None:
    assert is_row_number(column(list(range(100))))
    assert not is_row_number(column([n % 60 for n in range(100)]))
    assert not is_row_number(column(list(range(40)))), "too few rows to say"


@pytest.mark.parametrize(
    ("values", "separator"),
    [
        (["a|b", "b", "a|c", "c|b|a"] * 9, "|"),
        (["red, blue", "blue", "red, green", "green, blue"] * 9, ", "),
        ([f"Title {n}, The" for n in range(50)], None),
        (["a", "b", "c"] * 9, None),
        (["2020-01-01;x"] * 5, None),
    ],
)
def test_lists_in_texts(values: list, separator: str | None) -> None:
    assert column(values).separator == separator


def test_counts_codes_and_moments() -> None:
    draw = np.random.default_rng(4)
    assert column(np.floor(draw.exponential(30, 5000)).astype(int).tolist()).counted
    assert not column(draw.integers(100_000, 200_000, 5000).tolist()).counted
    assert column(["05201", "12345"]).padded
    assert column(["14102100", "14102123"]).formats[0] == "%y%m%d%H"
    assert column(["31/12/2025 10:00", "01/02/2026 11:00"]).formats == ["%d/%m/%Y %H:%M"]
    assert column(["03/04/2026", "05/06/2026"]).formats == ["%d/%m/%Y", "%m/%d/%Y"]
    assert column(["12", "7"]).formats == []
    assert words_of("clickedItemId") == words_of("clicked_item-id") == ["clicked", "item", "id"]


def test_what_belongs_to_an_item() -> None:
    item = [n % 7 for n in range(200)]
    owned, other = column([f"brand {n % 3}" for n in item]), column([n % 5 for n in range(200)])
    assert follows(owned, column(item))
    assert not follows(other, column(item))


def columns(**values: list) -> tuple[dict[str, Column], pa.Table]:
    return {name: column(each, name) for name, each in values.items()}, pa.table(values)


LABELS = [
    (["Yes", "yes", "NO", "no"], 'click in ["Yes", "yes", "YES"]'),
    (["yes", "No"], 'click in ["yes", "Yes", "YES"]'),
    (["Ja", "Nein"], 'click == "Ja"'),
    (["TRUE", "true", "False", "FALSE"], "click"),
    (["1.0", "0.0"], "click"),
    ([1, -1], "click == 1"),
]


def test_the_label_is_what_its_name_says() -> None:
    flags = [n % 2 for n in range(200)]
    found = find_label(*columns(mobile=flags, is_click=[*flags[1:], 1], stars=[n % 5 for n in range(200)]), True, None)
    assert found is not None
    assert found.expression == "is_click"
    stars = find_label(*columns(mobile=flags, stars=[1 + n % 5 for n in range(200)]), True, None)
    assert stars is not None
    assert stars.expression == "stars >= 4"
    for values, expression in LABELS:
        label = find_label(*columns(click=values * 50), True, None)
        assert label is not None
        assert (label.expression, label.missing) == (expression, 0), "every value is read"
        assert label.rate == 0.5
    texts = find_label(*columns(Bought=["Yes", "No"] * 100), True, None)
    assert texts is not None
    assert texts.expression == 'Bought == "Yes"'
    only = find_label(*columns(mobile=flags, other=[n % 9 for n in range(200)]), True, None)
    assert only is not None
    assert "CHECK" in only.reason
    assert find_label(*columns(mobile=flags, app=flags), True, None) is None, "which of two?"
    unnamed = find_label(*columns(c1=[n % 9 for n in range(200)], c2=flags), False, None)
    assert unnamed is not None
    assert (unnamed.expression, "CHECK" in unnamed.reason) == ("c2", True)
    asked = no_label(columns(c1=["a", "b"] * 100, c2=flags, c3=flags)[0])
    assert "--label 'rating >= 4', or --label 'c2'" in str(asked)


@pytest.mark.parametrize(
    ("names", "words", "expected"),
    [
        ("listener_id device", CONTEXTS, "listener_id"),
        ("device_id genre", CONTEXTS, "device_id"),
        ("device genre", CONTEXTS, None),
        ("PatientID ward", CONTEXTS, "PatientID"),
        ("userid age", CONTEXTS, "userid"),
        ("player level", CONTEXTS, "player"),
        ("channel dish", ITEMS, "dish"),
        ("channel price", ITEMS, None),
        ("episode_minutes genre", ITEMS, None),
        ("show_title show_id", ITEMS, "show_id"),
        ("customer_number wish", CONTEXTS, "customer_number"),
        ("title genre", ITEMS, "title"),
        ("show_count genre", ITEMS, None),
    ],
)
def test_who_and_what_by_names(names: str, words: tuple[str, ...], expected: str | None) -> None:
    found = columns(**{name: [f"{at}{n % 20}" for n in range(200)] for at, name in enumerate(names.split())})[0]
    assert find_id(found, words, ()) == expected


def test_words_that_may_be_flags_and_page_numbers() -> None:
    flags = [str(n % 2) for n in range(200)]
    pages = list(range(1, 21)) * 10
    assert find_id(columns(show=flags, page=pages)[0], ITEMS, ()) is None
    assert find_id(columns(page_id=pages)[0], ITEMS, ()) == "page_id"


def test_a_column_called_a_label_of_negatives_alone() -> None:
    with pytest.raises(
        InputError, match="two values in 'clicked', such as 0 and 1 or yes and no, found 1: 0 in all rows"
    ):
        find_label(*columns(user=["a", "b"] * 50, clicked=[0] * 100), True, None)
    assert find_label(*columns(user=["a", "b"] * 50, clicked=[1] * 100), True, None) is None, "a log of positives"


def test_what_is_called_a_time_and_reads_as_none() -> None:
    found = columns(when=["1/13/26 1:00 PM", "1/14/26 2:00 PM"] * 9, daytime=["noon", "night"] * 9, hour=[1, 2] * 9)[0]
    (told,) = misread_times(found, ())
    assert told.startswith("when: CHECK: called like a time, but values such as '1/13/26 1:00 PM' read in no format")


def test_numbers_with_signs_or_commas() -> None:
    assert column([f"${n}.50" for n in range(100)]).dressed
    assert column([f"{n},{n:03d}.50" for n in range(1, 100)]).dressed
    assert not column([f"u{n}" for n in range(100)]).dressed
    assert not column([f"{n}.5" for n in range(100)]).dressed


@pytest.mark.parametrize(
    ("values", "write"),
    [
        (["Yes", "no", "maybe"], 'clicked in ["Yes", "yes", "YES"]'),
        (["seen", "gone", "left"], 'clicked == "seen"'),
        ([0, 1, 2, 7], "clicked >= 1"),
        ([1, 2], "clicked == 2"),
    ],
)
def test_a_label_of_other_values_is_no_log_of_positives(values: list, write: str) -> None:
    found = columns(user=["a", "b"] * 100, clicked=(values * 200)[:200])
    with pytest.raises(InputError, match=rf"two values in 'clicked', .* found {len(values)}: {values[0]}, ") as refused:
        find_label(*found, True, None)
    assert f"Say what a positive is: --label '{write}'" in str(refused.value)
    assert find_label(*found, True, write) is not None
    assert find_label(*found, True, "true") is None, "a log of positives"


@pytest.mark.parametrize(
    ("dates", "format", "words"),
    [
        ([f"{day:02d}/03/2026" for day in range(1, 12)], "%d/%m/%Y", "then the log spans 304 days, not 10"),
        ([f"03/{day:02d}/2026" for day in range(1, 12)], "%m/%d/%Y", "then the log spans 304 days, not 10"),
        (["03/03/2026"], "%d/%m/%Y", "the day first is more usual"),
        (["12/01/2026", "01/02/2026", "02/02/2026"], "%d/%m/%Y", "then more rows are earlier than the one above them"),
    ],
)
def test_days_and_months_that_may_be_swapped(dates: list, format: str, words: str) -> None:
    moments = find_time(columns(seen=dates)[0], True, ())
    assert moments is not None
    assert moments.config.format == format
    other = {"%d/%m/%Y": "%m/%d/%Y", "%m/%d/%Y": "%d/%m/%Y"}[format]
    assert f"CHECK: no day is above 12, so {other} reads them, too, but {words}." in moments.reason
    assert f'If that is right, write `time: {{column: seen, format: "{other}"}}`' in moments.reason


def test_the_time_is_set_in_every_row() -> None:
    paid = ["2026-01-02 10:00:00" if n % 3 else None for n in range(100)]
    when = [f"2026-01-{1 + n % 28:02d} 11:00:00" for n in range(100)]
    found = find_time(columns(paid_time=paid, seen=when)[0], True, ())
    assert found is not None
    assert found.config.column == "seen"
    assert find_time(columns(user=list(range(10**9, 10**9 + 100)))[0], True, ()) is None
    epochs = find_time(columns(c1=list(range(10**9, 10**9 + 200)))[0], False, ())
    assert epochs is not None
    assert epochs.config.format == "auto"


def test_a_value_of_most_rows_names_nobody() -> None:
    """An id that stands for `unknown` in most rows is neither whom lists are for, nor what a split goes by."""
    unknown = column(["a99f214a"] * 600 + [f"d{n % 100}" for n in range(400)], "device_id")
    known = column([f"10.0.0.{n % 200}" for n in range(1000)], "device_ip")
    columns = {"device_id": unknown, "device_ip": known}
    assert find_id(columns, CONTEXTS, []) != "device_id"
    assert find_id({"device_id": known}, CONTEXTS, []) == "device_id"
    assert split_of(None, None, columns, "device_id")[0]["key"] == "device_ip"
    assert split_of(None, None, columns, "device_ip")[0]["key"] == "device_ip"
