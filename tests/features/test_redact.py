from __future__ import annotations

import io
import json
from urllib.parse import quote

import pytest

from fieldwise.features import redact, words
from fieldwise.features.errors import InputError
from fieldwise.features.redact import redacted, redacted_tree
from fieldwise.features.snapshot import record
from fieldwise.features.terminal import TerminalStream


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_known", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://ann:s3cret@host/x", "https://ann:***@host/x"),
        ("postgresql+psycopg://u:p%40ss@db:5432/mlflow", "postgresql+psycopg://u:***@db:5432/mlflow"),
        ("at http://u:p@h, and 's3://k:v@bucket'", "at http://u:***@h, and 's3://k:***@bucket'"),
        ("http://u:a@b@host/x", "http://u:***@host/x"),
        ("http://:only@host", "http://:***@host"),
        ("https://h/x?X-Amz-Signature=abc&y=1", "https://h/x?X-Amz-Signature=***&y=1"),
        ("https://h/x?sv=1&sig=a%2Bb", "https://h/x?sv=1&sig=***"),
        ("https://t0ken@github.com/x", "https://***@github.com/x"),
        ("abfs://container@account/x", "abfs://container@account/x"),
        ("https://h/x?key=abc;password=def&k=1", "https://h/x?key=***;password=***&k=1"),
        ("hdfs://name:8020/user/ann@corp/x", "hdfs://name:8020/user/ann@corp/x"),
        ("http://host:5000/path", "http://host:5000/path"),
        ("sqlite:////work/a@b/mlflow.db", "sqlite:////work/a@b/mlflow.db"),
        ("mail ann@example.org: 3 rows", "mail ann@example.org: 3 rows"),
        ("s3://bucket/day=2026-01-01/part.csv", "s3://bucket/day=2026-01-01/part.csv"),
    ],
)
def test_passwords_in_urls(text: str, said: str) -> None:
    assert redacted(text) == said


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("DB_PASSWORD", "xyz", True),
        ("AWS_SECRET_ACCESS_KEY", "/looks/like/a/path", True),
        ("LOGIN", "correct horse battery", True),
        ("WHATEVER", "hunter2hunter2", True),
        ("DATA", "/data/logs", False),
        ("DATA", "s3://bucket/logs", False),
        ("DAY", "2026-01-31", False),
        ("STAGE", "production", False),
        ("N", "1000000", False),
        ("EMPTY", "", False),
    ],
)
def test_values_of_variables(name: str, value: str, hidden: bool) -> None:
    redact.remember(name, value)
    said = redacted(f"found <{value}> here")
    assert said == (f"found <${{{name}}}> here" if hidden else f"found <{value}> here")
    kept = not hidden or name in ("LOGIN", "WHATEVER")  # programs read names in results
    assert (redacted_tree({"model": value})["model"] == value) is kept


def test_what_libraries_make_of_secrets() -> None:
    """They tell parts of URLs, decoded; values quoted, escaped, with white space of their own."""
    redact.remember_urls("postgresql://ann:p%40ss-w0rd@db:5432/mlflow?sslpassword=c%20d-1")
    redact.remember("DB_PASSWORD", "a'b\"c d\n")
    assert (
        redacted("authentication of ann by p@ss-w0rd, p%40ss-w0rd, 'c d-1'")
        == "authentication of ann by ***, ***, '***'"
    )
    for text in ("a'b\"c d", repr("a'b\"c d"), json.dumps("a'b\"c d"), quote("a'b\"c d")):
        assert redacted(text).strip("'\"") == "${DB_PASSWORD}"
    assert redacted_tree({"user": "p@ss-w0rd"}) == {"user": "p@ss-w0rd"}  # alone it may be a name, too


def test_plain_words_of_urls_are_no_secrets_elsewhere() -> None:
    redact.remember_urls("http://admin:admin@host/2026?token=1234")
    assert redacted("admin of 1234 at http://admin:admin@host") == "admin of 1234 at http://admin:***@host"


def test_another_process_keeps_the_same_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    redact.remember("DB_PASSWORD", "xyz-1")
    there = redact.known()
    monkeypatch.setattr(redact, "_known", {})
    redact.adopt(there)
    assert redacted("xyz-1") == "${DB_PASSWORD}"


def test_what_is_cut_is_masked_before() -> None:
    url = "x" * 30 + " http://ann:" + "s3cret" * 9 + "@host/path"
    assert "s3cret" not in words.shown(url) + record.shown(url)


def test_one_rule_for_messages_results_and_streams() -> None:
    redact.remember("DB_PASSWORD", 'tricky "quote"')
    error = InputError('file tricky "quote"', expected="x", found="http://u:p@h", fix='no tricky "quote"')
    assert str(error) == "file ${DB_PASSWORD}: expected x, found http://u:***@h. no ${DB_PASSWORD}"
    assert redacted_tree({"a": ['tricky "quote"', 3], 'tricky "quote"': ("http://u:p@h",)}) == {
        "a": ["${DB_PASSWORD}", 3],
        "${DB_PASSWORD}": ["http://u:***@h"],
    }
    inner = io.StringIO()
    stream = TerminalStream(inner)
    print('say tricky "quote"', file=stream, flush=True)
    assert inner.getvalue() == "say ${DB_PASSWORD}\n"
    assert not stream.isatty()


def test_a_password_with_blanks_is_known_from_the_url_that_is_all_of_a_value() -> None:
    redact.remember_urls("http://me:open sesame@127.0.0.1:9/")
    assert redacted("cannot reach http://me:open sesame@127.0.0.1:9/") == "cannot reach http://me:***@127.0.0.1:9/"
    assert redacted_tree({"uri": "http://me:open sesame@127.0.0.1:9/"}) == {"uri": "http://me:***@127.0.0.1:9/"}
    redact.remember_urls("see http://a:b c@d.e and write to f@g.h")  # words: no such URL
    assert redacted("a:b c@d.e") == "a:b c@d.e"
