"""Words to people: one way to say them, three ways to show them."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from fieldwise.features import terminal
from fieldwise.features.errors import InputError
from fieldwise.features.terminal import LOG, STYLE, bars, hushed, last_words, say, set_style, warn
from tests.commands import ROOT


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(STYLE, "")
    set_style()
    yield
    monkeypatch.undo()
    set_style()


def test_words_are_plain_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    say("read 3 files", "100 %d \x1b[31m\nforged")
    warn("2 rows set aside")
    assert capsys.readouterr().err == "read 3 files\n100 %d \\x1b[31m\\nforged\nwarning: 2 rows set aside\n"


def test_quiet_keeps_warnings_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    set_style("quiet")
    say("read 3 files")
    warn("2 rows set aside")
    LOG.error("fieldwise train: a defect\n  in lines")
    assert capsys.readouterr().err == "warning: 2 rows set aside\nfieldwise train: a defect\n  in lines\n"
    assert not bars()


def test_verbose_says_when_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    set_style("verbose")
    say("read 3 files")
    seconds, unit, module, *rest = capsys.readouterr().err.split()
    assert float(seconds) > 0
    assert (unit, module, rest) == ("s", "test_terminal:", ["read", "3", "files"])


def test_json_lines_tell_programs_what_an_error_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    set_style("json")
    error = InputError("log.csv, line 3", expected="4 values", found="3", fix="Mend it.")
    warn("two\nlines of postgresql://user:secret@host/d")
    LOG.error("fieldwise features: %s", error, extra={"facts": error.facts})
    warned, failed = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (warned["level"], warned["module"]) == ("warning", "test_terminal")
    assert "secret" not in warned["message"]
    assert failed["message"] == f"fieldwise features: {error}"
    told = [failed[key] for key in ("level", "error", "where", "expected", "found", "fix", "exit_code")]
    assert told == ["error", "InputError", "log.csv, line 3", "4 values", "3", "Mend it.", 2]


def test_last_words_of_a_signal_are_a_json_line_too() -> None:
    stream = io.StringIO()
    last_words("fieldwise daily: interrupted", stream)
    set_style("json")
    last_words("fieldwise daily: interrupted", stream)
    plain, line = stream.getvalue().splitlines()
    assert (plain, json.loads(line)["message"]) == ("fieldwise daily: interrupted",) * 2


def test_every_warning_is_one_that_quiet_keeps() -> None:
    rooms = (path for room in ("features", "training", "pipelines", "jobs") for path in (ROOT / room).rglob("*.py"))
    assert [path.name for path in rooms if "warning: " in path.read_text()] == ["terminal.py"]


def test_processes_that_are_started_take_after_us() -> None:
    set_style("json")
    set_style("quiet")
    assert os.environ[STYLE] == "json,quiet"
    code = "from fieldwise.features.terminal import say, warn; say('no'); warn('yes')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["yes"]


def test_parts_of_a_longer_story_are_told_by_others(capsys: pytest.CaptureFixture[str]) -> None:
    with hushed():
        say("no")
        warn("yes")
        assert os.environ[STYLE] == "quiet", "for processes that are started"
    say("again")
    assert capsys.readouterr().err.splitlines() == ["warning: yes", "again"]
    set_style("verbose")
    with hushed():
        say("asked for")
    assert "asked for" in capsys.readouterr().err
    assert os.environ[STYLE] == "verbose"


def test_bars_are_drawn_for_a_terminal_that_the_starting_command_has() -> None:
    assert not bars()  # captured
    set_style("bars", "verbose")
    assert bars()
    set_style("json")
    assert not bars()


def test_who_embeds_us_may_take_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: taken.append(record.getMessage())  # type: ignore[method-assign]
    LOG.handlers = [handler]
    say("read 3 files")
    assert (taken, capsys.readouterr().err) == (["read 3 files"], "")


def test_a_silent_terminal_gets_a_sign_of_life_that_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    stream = terminal.TerminalStream(screen)
    monkeypatch.setattr(terminal, "bars", lambda: True)
    monkeypatch.setattr(terminal, "SILENCE_SECONDS", 0.06)
    with terminal.alive("fieldwise train", stream):
        stream.write("first\n")
        time.sleep(0.3)
        stream.write("second\n")
    assert re.fullmatch(
        r"(\r\x1b\[K)?first\n(\r\x1b\[Kfieldwise train: 0 s\r)+\r\x1b\[Ksecond\n(\r\x1b\[K)?", screen.getvalue()
    )
    monkeypatch.setattr(terminal, "bars", lambda: False)
    with terminal.alive("fieldwise train", stream):
        time.sleep(0.2)
    assert screen.getvalue().endswith("second\n")


def test_a_notebook_draws_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream is no terminal, but its cells go back to the start of a line."""

    class OutStream(io.StringIO):
        __module__ = "ipykernel.iostream"

    monkeypatch.delenv(STYLE, raising=False)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not bars()
    monkeypatch.setattr("sys.stderr", OutStream())
    assert bars()
    monkeypatch.setenv(STYLE, "quiet")
    assert not bars()
