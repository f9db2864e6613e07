"""The expression grammar: what it computes, how null and unreadable values spread, and what it refuses."""

from __future__ import annotations

import contextlib
import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.features.columns.expression import Expression, quoted
from fieldwise.features.errors import ConfigError

BATCH = pa.table(
    {
        "rating": ["5", "3", "", None, "x"],
        "event": ["click", "view", "", None, "click"],
        "price": pa.array([1.5, 2.0, None, 4.0, 0.0]),
        "flag": ["true", "false", "1", "0", ""],
        "two words": ["1", "2", "3", "4", "5"],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rating >= 4", [True, False, None, None, None]),
        ("rating", [5, 3, None, None, None]),
        ("event == 'click'", [True, False, None, None, True]),
        ('event in ["click", "buy"]', [True, False, None, None, True]),
        ('event not in ["click"]', [False, True, None, None, False]),
        ("rating in [3, 4]", [False, True, None, None, None]),
        ("event is null", [False, False, True, True, False]),
        ("event is not null and price > 1", [True, True, False, False, False]),
        ("not flag", [False, True, False, True, None]),
        ("price * 2 + 1", [4, 5, None, 9, 1]),
        ("-price % 4", [2.5, 2, None, 0, 0]),
        ("1 < price <= 2 or flag", [True, True, True, False, None]),
        ("`two words` / 2", [0.5, 1, 1.5, 2, 2.5]),
        ("price > 3 and event == 'view'", [False, False, None, None, False]),
        ("true", [1, 1, 1, 1, 1]),
    ],
)
def test_values(text: str, expected: list[object]) -> None:
    values, _ = Expression(text).evaluate(BATCH)
    assert values.to_pylist() == expected


def test_unreadable_numbers_are_told() -> None:
    assert Expression("rating >= 4").evaluate(BATCH)[1].tolist() == [False, False, False, False, True]
    assert not Expression("flag").evaluate(BATCH)[1].any()


def test_columns_in_first_use() -> None:
    assert Expression("a + `b c` > d and a is not null").columns == ("a", "b c", "d")
    assert pickle.loads(pickle.dumps(Expression("`b c` > 1"))).columns == ("b c",)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "rating.__class__", "rating[0]", "(lambda: 1)()", "[x for x in rating]",
        "open('f')", "rating if 1 else 2", "f'{rating}'", "rating := 1", "rating ** 9", "rating << 1", "{1: 2}",
        "rating = 4", "", "rating >=", "a; b", "rating in event", "rating in []", "rating in [1, 'a']", "x is 3",
        "(" * 500 + "a" + ")" * 500, "-" * 3000 + "1", "b'x' == a", "1j", "...", "a @ b", "~a",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="label: expected an expression"):
        Expression(text, "label")


@given(st.text(max_size=60))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    with contextlib.suppress(ConfigError):
        Expression(text)


@given(st.lists(st.one_of(st.none(), st.floats(-9, 9)), min_size=1), st.floats(-9, 9))
def test_comparison_equals_pythons(values: list[float | None], bound: float) -> None:
    got, bad = Expression(f"x >= {bound!r}").evaluate(pa.table({"x": [None if v is None else repr(v) for v in values]}))
    assert got.to_pylist() == [None if v is None else v >= bound for v in values]
    assert not bad.any()


def test_bytes_that_are_no_text_are_no_number() -> None:
    values, bad = Expression("x == 1").evaluate(pa.table({"x": pa.array([b"1", b"\xff", b"TRUE"])}))
    assert values.to_pylist()[0] is True
    assert bad.tolist() == [False, True, False]


@pytest.mark.parametrize(
    "name", ["a", "my rating", "a:b.c", "class", "true", "_column_0_", "日本", "1st", "a-b", "# x", "'"]
)
def test_names_that_are_no_words_are_quoted(name: str) -> None:
    word = quoted(name)
    assert word is not None
    expression = Expression(f"{word} >= 4")
    assert expression.columns == (name,)
    values, _ = expression.evaluate(pa.record_batch([pa.array([3, 5])], [name]))
    assert values.to_pylist() == [False, True]
    assert (word == name) == (name == "a")


def test_names_that_cannot_be_quoted() -> None:
    assert quoted("a`b") is None
    assert quoted("") is None


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("rating = 4", "Compare by two signs: `==`."),
        ("a <> 4", "Write `!=`."),
        ("a >= 4 AND b", "Write `and`, `or`, `not`, `in`, `is null` in small letters."),
        ("a && b", "Write `and`, `or`, `not`, `in`, `is null` in small letters."),
        ("my rating >= 4", "Put a name that is no word in backticks"),
        ("a.b: c == 1", "Put a name that is no word in backticks"),
        ("a >=", "It does not parse"),
    ],
)
def test_habits_of_other_languages_have_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Expression(text, "label")
    assert remedy in str(refused.value)
