"""Text that would steer a terminal, turn a line around or forge one of ours, in values and names of real commands."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import warnings
from argparse import Namespace
from contextlib import redirect_stderr
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from fieldwise.features.errors import DefectError, InputError
from fieldwise.features.report.chart import parallel
from fieldwise.features.terminal import BarStream, TerminalStream, printable, say
from fieldwise.jobs.cli import _run, main
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.ranks import launch
from tests.pipelines.shop import write_bundle

EVIL = "\x1b[2J\x1b]0;owned\x07\u202e\u2066\u200f\u061c\x9b1m\x7f\u2028\u2029\r"
FORGED = "fieldwise features: all is well"
VALUE = f"{EVIL}\n{FORGED}$x^$<b>'\"&"
HOSTILE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""All that must not come out raw, but for the line ends between our own lines."""
MARK = "k\x1b[31m\u202e"
"""Of field and file names."""


@given(st.text(st.characters(exclude_categories=[])))
def test_printable_texts_steer_nothing(text: str) -> None:
    shown = printable(text)
    assert not HOSTILE.search(shown)
    assert "\n" not in shown
    assert printable(shown) == shown
    assert (shown == text) == text.isprintable()


def test_ordinary_text_stays() -> None:
    for text in ("Zürich 東京 שלום مرحبا हिन्दी 🛒 a\\b 'c' <d> $5", ""):
        assert printable(text) == text
    assert printable(VALUE).startswith(r"\x1b[2J\x1b]0;owned\x07\u202e\u2066\u200f\u061c\x9b1m\x7f\u2028\u2029\r\n")
    assert printable("\ud800\t\U000e0041") == r"\ud800\t\U000e0041"
    assert printable("a\r\nb", kept="\n") == "a\\r\nb"


def test_what_libraries_write_forges_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = io.StringIO()
    monkeypatch.setattr("sys.stderr", TerminalStream(TerminalStream(inner)))
    print(warnings.formatwarning(f"odd {VALUE}", UserWarning, __file__, 1), file=TerminalStream(inner))
    print("a", "\n" + FORGED, file=TerminalStream(inner))
    say(f"value {VALUE}", "next")
    lines = inner.getvalue().splitlines()
    assert not HOSTILE.search(inner.getvalue())
    assert f"  {FORGED}" in lines
    assert [line for line in lines if line.startswith(FORGED)] == []
    assert lines[-1] == "next"


def test_bars_move_and_what_they_show_does_not() -> None:
    inner = io.StringIO()
    with tqdm(total=2, desc="\x1b[2Jx\n", file=BarStream(TerminalStream(inner)), leave=False) as bar:
        bar.update(1)
    assert inner.getvalue().startswith("\r\\x1b[2Jx\n")
    assert inner.getvalue().endswith("\r")
    assert "\x1b" not in inner.getvalue()


def test_errors_are_one_line_and_defects_keep_their_traceback() -> None:
    error = InputError(VALUE, expected=VALUE, found=VALUE, fix=VALUE)
    assert str(error).isprintable()
    assert str(DefectError("a defect", expected="none", found="x", fix="\nTraceback\x1b")).endswith("\nTraceback\\x1b")


def test_pictures_show_names_as_they_are() -> None:
    columns = {"$a_\x1b$": ["$x^$", "\u202e\n", "<b>&"], "valid": [0.1, 0.2, 0.3]}
    texts = [each.text for each in ElementTree.fromstring(parallel("trials", columns, "valid").alone()).iter()]
    assert {"$x^$", "<b>&", "$a_\\x1b$"} <= set(texts)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop whose log, field, column, file and side table are named to harm; returns its config."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    quoted = VALUE.replace('"', '""')
    rows = "".join(f'"{quoted}{n % 3}",u{n % 40},{n % 2},{n % 5}\n' for n in range(300))
    bad = f'x,u1,1,"{quoted}"\n'
    for name in (f"{MARK}.csv", os.fsdecode(b"bytes-\xff.csv")):
        (tmp_path / name).write_text(f"{MARK},user,click,age\n{rows}{bad}", newline="")
    with_years = rows.replace("\n", ",3\n").replace(f",3\n{FORGED}", f"\n{FORGED}")
    (tmp_path / "log.csv").write_text(f"{MARK},user,click,age,years\n{with_years}", newline="")  # of the bundle
    (tmp_path / f"{MARK}users.csv").write_text("user,years\nu1,3\nu2,4\n")
    document = {
        "name": "shop",
        "workspace": "work",
        "source": {"path": f"{MARK}.csv"},
        "join": [{"path": f"{MARK}users.csv", "on": "user"}],
        "label": "click",
        "split": {"by": "hash", "key": "user", "valid": 0.2, "test": 0.2},
        "snapshot": {"max_bad_fraction": 0.5},
        "fields": [
            {"name": f"{MARK}\n{FORGED}", "kind": "vocabulary", "column": MARK, "min_count": 1},
            {"name": "age", "kind": "number", "edges": [1, 3]},
            {"name": "years", "kind": "number", "edges": [3.5]},
        ],
        "model": {"kind": "fm"},
        "catalog": {
            "contexts": {"path": f"{MARK}users.csv"}, "items": {"path": "items.csv"}, "context_id": "user",
            "item_id": MARK, "k": 2, "fixed": {"age": 1},
        },
    }  # fmt: skip
    (tmp_path / "items.csv").write_text(f'{MARK}\n"{quoted}new"\n"{quoted}newer"\n', newline="")
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document))
    return tmp_path / "shop.yaml"


def said_by(capfd: pytest.CaptureFixture[str], code: int, *command: str) -> tuple[str, str]:
    """Stdout and stderr, of which nothing may harm."""
    found = main([*command])
    said = capfd.readouterr()
    assert found == code, said.err
    for text in (said.out, said.err):
        assert not HOSTILE.search(text), HOSTILE.search(text)
        assert not any(line.startswith(FORGED) for line in text.splitlines())
    return said.out, said.err


def test_a_hostile_log(hostile: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its snapshot, its report, why its rows score as they do, and the refusal of a catalog of new values."""
    config = str(hostile)
    out, err = said_by(capfd, 0, "features", "--config", config)
    result = json.loads(out)
    assert VALUE in result["quarantine"][0]["samples"][0]["value"]
    assert r"\x1b[2J\x1b]0;owned\x07\u202e" in err
    page = Path(result["report"]).read_bytes().decode()
    assert not HOSTILE.search(page)
    assert "\\x1b[2J" in page
    assert "<b>'" not in page
    bundle = write_bundle(hostile.parent, load_config(config))
    said_by(capfd, 0, "explain", "--config", config, "--model", bundle, "--rows", "2")
    _, err = said_by(capfd, 3, "score-catalog", "--config", config, "--model", bundle)
    assert "such as" in err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", f"fields.0.kind={EVIL}"],
        ["--set", f"{EVIL}=3"],
        ["--set", f"source.path=no{EVIL}"],
        ["--set", 'label=["\\e[2J\\u202e\\n' + FORGED + '"]'],
        ["--set", f"workspace={EVIL}\n{FORGED}"],
        ["--spec", f"{EVIL}\n{FORGED}"],
        ["--set", "label=\udcff"],
        ["--set", 'fields.1.name="\\ud800"'],
    ],
)
def test_refusals_of_hostile_configs(hostile: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    command = ["features", "--config", str(hostile), "--set", "source.path=none.csv", *arguments]
    _, err = said_by(capfd, 2, *command)
    assert len(err.strip().splitlines()) == 1


def test_what_argparse_repeats(hostile: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["features", "--config", str(hostile), f"--{EVIL}\n{FORGED}"])
    err = capfd.readouterr().err
    assert not HOSTILE.search(err)
    assert f"\n  {FORGED}" in err
    with pytest.raises(SystemExit):
        main(["features", "--config", str(hostile), "--date", f"{EVIL}\n{FORGED}"])
    err = capfd.readouterr().err
    assert not HOSTILE.search(err)
    assert "argument --date: expected YYYY-MM-DD, found " in err


def test_the_words_of_ranks_and_libraries(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What comes through a launcher keeps its bars, whole characters and nothing that steers."""
    script = (
        "import os, time; os.write(2, b'\\rbar \\xe2\\x96'); time.sleep(.3); os.write(2, b'\\x88 \\x1b[2J\\xff\\n')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        launch._pass_on(process.stderr.fileno(), str(tmp_path), process, [])
    assert capfd.readouterr().err == "\rbar █ \\x1b[2J\\xff\n"


def test_stdout_belongs_to_results(capfd: pytest.CaptureFixture[str]) -> None:
    def command(options: Namespace) -> dict[str, str]:
        print(f"View run {VALUE} at: http://ann:s3cret@host/")  # as MLflow's client does
        return {"name": VALUE}

    with redirect_stderr(TerminalStream(sys.stderr)):
        assert _run(Namespace(command=command, called="doctor")) == 0
    out, err = capfd.readouterr()
    assert not HOSTILE.search(err)
    assert out.isascii()
    assert json.loads(out) == {"name": VALUE}
    assert "View run" in err
    assert "s3cret" not in out + err


def test_a_name_that_is_no_text(hostile: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A file of bytes that no encoding knows."""
    _, err = said_by(capfd, 2, "features", "--config", str(hostile), "--set", "source.path=bytes-*.csv")
    assert "bytes-\\udcff.csv" in err
