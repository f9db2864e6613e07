"""Limits of what is read: columns, lines, nesting, expressions, YAML and JSON are refused by name, in seconds."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldwise.features.columns.expression import Expression
from fieldwise.features.config import JoinConfig, SourceConfig
from fieldwise.features.errors import ArtifactError, ConfigError, InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source import records
from fieldwise.features.source.join import SideTable
from fieldwise.features.source.keys import keys_found
from fieldwise.features.source.raw import read_range, split_ranges
from fieldwise.features.store import bounded
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.score.row_columns import output_schema

MOST_MB = 300
COLUMNS = 90_000
NAMES = [f"c{n}" for n in range(COLUMNS)]
CONFIG = """\
name: small
source: {path: log.csv}
label: c1
split: {by: none}
fields:
  - {name: "c{2..9000}", kind: hash, buckets: 100}
model: {kind: lr}
"""


@pytest.fixture
def quick() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20  # a second or two each; by the square of the columns it is minutes


def rows(source: SourceConfig, folder: Path, columns: list[str]) -> tuple[int, list[str]]:
    """How many, and why others were set aside."""
    good, reasons = 0, []
    for rng in split_ranges(source, list_files(source, str(folder)), 1 << 62):
        for batch in read_range(source, rng, columns):
            good += len(batch.positions)
            reasons += [reject.reason for reject in batch.rejects]
    return good, reasons


def wide(folder: Path, kind: str) -> SourceConfig:
    """Three rows of 90,000 columns; in jsonl the second names them backwards."""
    path = folder / f"log.{kind}"
    if kind == "jsonl":
        orders = (NAMES, NAMES[::-1], NAMES)
        path.write_text("".join(json.dumps(dict.fromkeys(order, "x")) + "\n" for order in orders))
    else:
        row = ["1"] * COLUMNS
        path.write_text("".join("\t,"[kind == "csv"].join(cells) + "\n" for cells in (NAMES, row, row, row)))
    return SourceConfig(path=[str(path)], format=kind)  # type: ignore[arg-type]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_columns_cost_what_they_are(tmp_path: Path, kind: str) -> None:
    source = wide(tmp_path, kind)
    for columns in (["c7", "c5"], NAMES, NAMES[::-1]):
        assert rows(source, tmp_path, columns) == (3, [])
    files = list_files(source, str(tmp_path))
    assert len(output_schema(source, files, NAMES if kind == "jsonl" else None, ())) == COLUMNS + 1
    if kind == "jsonl":
        assert keys_found(files, [*NAMES, "none"]) == set(NAMES)
        return
    with pytest.raises(InputError, match="Did you mean 'c17'") as caught:
        rows(source, tmp_path, ["cc17"])
    assert len(str(caught.value)) < 600


@pytest.mark.usefixtures("quick")
def test_a_config_and_a_side_table_of_many_columns(tmp_path: Path) -> None:
    wide(tmp_path, "csv")
    (tmp_path / "small.yaml").write_text(CONFIG)
    config = load_config(tmp_path / "small.yaml")
    require_columns(config, list_files(config.source, config.base))
    cells = [",".join([str(n)] * COLUMNS) for n in range(2)]
    (tmp_path / "side.csv").write_text("\n".join([",".join(NAMES), *cells]) + "\n")
    assert len(SideTable(JoinConfig(path=["side.csv"], on="c0"), str(tmp_path)).names) == COLUMNS - 1


def test_room_follows_from_bytes_not_from_lines_times_columns(tmp_path: Path) -> None:
    source = wide(tmp_path, "csv")
    with open(source.path[0], "a") as file:
        file.write("1\n" * 100_000)
    good, reasons = rows(source, tmp_path, NAMES)
    assert (good, len(reasons), set(reasons)) == (3, 100_000, {"column_count"})


def test_a_header_longer_than_its_limit(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"a,{'x' * records.MAX_HEADER}\n1,2\n")
    with pytest.raises(InputError, match=r"log.csv: expected a header line, found a line of more than 1,048,576 bytes"):
        rows(SourceConfig(path=["log.csv"]), tmp_path, ["a"])


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "csv.gz", "jsonl.gz"])
@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.slow
def test_a_line_at_its_limit_and_one_byte_longer(tmp_path: Path, kind: str, beyond: int) -> None:
    before, form = ("a,b\n1,2\n", "3,{}\n") if "csv" in kind else ("a\tb\n1\t2\n", "3\t{}\n")
    if "jsonl" in kind:
        before, form = '{"a":1,"b":2}\n', '{{"a":3,"b":"{}"}}\n'
    line = form.format("x" * (records.MAX_LINE + beyond - len(form.format(""))))
    assert len(line) == records.MAX_LINE + beyond
    path = tmp_path / f"log.{kind}"
    with gzip.open(path, "wt", 1) if kind.endswith("gz") else open(path, "w") as file:
        file.writelines([before, line, form.format("y")])
    source = SourceConfig(path=[str(path)], format=kind.removesuffix(".gz"))  # type: ignore[arg-type]
    assert rows(source, tmp_path, ["a", "b"]) == ((2, ["too_long"]) if beyond else (3, []))


@pytest.mark.slow
def test_a_quote_that_never_closes_is_set_aside_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text('a,b\n1,"' + ("x" * 31 + "\n") * (3 << 20))
    source = SourceConfig(path=["log.csv"])
    most = 0
    for rng in split_ranges(source, list_files(source, str(tmp_path)), 1 << 62):
        most = max(most, *(len(batch.rejects) for batch in read_range(source, rng, ["a", "b"])))
    assert 1 < most <= records.BLOCK // 16  # lines of 32 bytes


def test_deep_values_of_jsonl(tmp_path: Path) -> None:
    """A wanted one is set aside, of others only the brackets count."""
    deep = "[" * 100_000 + "]" * 100_000
    lines = [f'{{"x": {deep}, "a": 1}}', f'{{"a": {deep}}}', f'{{"a": {deep[:-1]}}}', '{"a": 2, "late": 1}']
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    source = SourceConfig(path=["log.jsonl"], format="jsonl")
    assert rows(source, tmp_path, ["a"]) == (2, ["nested", "bad_json"])
    assert keys_found(list_files(source, str(tmp_path)), ["a", "late"]) == {"a", "late"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("not " * 990 + "a", "990 operations"),
        ("a" + "*a" * 1900, "1900 operations"),
        ("a" + ".b" * 1900, "1900 operations"),
        ("a" + " or a" * 700, "700 operations"),
        ("(" * 1900 + "a" + ")" * 1900, "too many nested parentheses"),
        ("not " * 10_000 + "a", "40001 characters"),
        ("a > 1e400", "beyond 1.8e308"),
        ("a > 1" + "0" * 400, "beyond 1.8e308"),
        ("a > 0x" + "f" * 3900, "beyond 1.8e308"),
    ],
)
def test_expressions(tmp_path: Path, text: str, found: str) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(CONFIG.replace("label: c1", f"label: '{text}'"))
    with pytest.raises(ConfigError, match=re.escape(found)) as caught:
        load_config(file)
    assert caught.value.where == f"{file} line 3, label"
    assert len(str(caught.value)) < 500


def test_expressions_within_limits() -> None:
    assert Expression(" and ".join(["a > 1"] * 50)).columns == ("a",)
    assert Expression(f"a in [{', '.join(['-1'] * 500)}] and a < 1{'0' * 300}").columns == ("a",)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (CONFIG + "# " + "x" * (1 << 20), "expected a config of at most 1,048,576 bytes, found more"),
        ("a: " + "[" * 5000, "more than 50 levels of nesting in line 1"),
        ("a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60)), "aliases followed"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 30)),
            "aliases counted",
        ),
        (f"a: &a {'x' * 500_000}\nb: [{'*a,' * 1000}]", "aliases counted"),
        (CONFIG.replace("{kind: lr}", "{<<: {kind: lr}, <<: {dim: 4}}"), "model.<<: expected a key once"),
        (CONFIG + "? [a]\n: 1\n", "line 8: expected a text of at most 1,000 characters as a key"),
        (CONFIG + "x: 0x" + "f" * 5000, "a number of more than 100 digits in line 8"),
        (CONFIG.replace("small", "sm\0all"), "expected valid YAML, found unacceptable character #x0000"),
        (CONFIG.encode() + b"# \xff", "expected a readable config file"),
    ],
)
def test_yaml(tmp_path: Path, content: str | bytes, found: str) -> None:
    file = tmp_path / "small.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=re.escape(found)) as caught:
        load_config(file)
    assert str(file) in caught.value.where
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        (".".join(["a"] * 21) + "=1", "at most 20 keys in each other"),
        (".".join(["a"] * 2000) + "=1", "at most 20 keys in each other"),
        ("name=" + "x" * (64 << 10), "65,536 characters"),
        ("training..l2=1", "expected KEY=VALUE"),
        (".training=1", "expected KEY=VALUE"),
        ("training={l2: 1, l2: 2}", "expected a key once"),
        ("training={<<: {l2: 1}, <<: {l2: 2}}", "expected a key once"),
        ("fields.0={name: a, kind: hash, buckets: {x: 1, x: 2}}", "expected a key once"),
        ("training=&a [*a]", "levels of nesting"),
        ("training=" + "[" * 3000, "levels of nesting"),
        ("fields.²=1", "a position of a list"),
        ("fields." + "9" * 5000 + "=1", "a position of a list"),
        ("fields.-1=1", "a position of a list"),
        ("__class__=1", "an unknown key"),
        ("training.__class__.__init__=1", "an unknown key"),
    ],
)
def test_overrides(tmp_path: Path, override: str, found: str) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(CONFIG)
    with pytest.raises(ConfigError, match=re.escape(found)) as caught:
        load_config(file, [override])
    assert "--set" in caught.value.where


LOAD = """
import sys
from pathlib import Path
from fieldwise.features.errors import ArtifactError
kind, place = sys.argv[1], Path(sys.argv[2])
if kind == "report":
    from fieldwise.features.report.report import Report
if kind == "day":
    from fieldwise.pipelines.cycle.record import Record
if kind == "journal":
    from fieldwise.training.tracking.journal import Journal
if kind == "checkpoint":
    from fieldwise.training.loop.checkpoint import _facts
def peak():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()  # the imports
load = {
    "report": lambda: Report.load(str(place / "report.json")),
    "day": lambda: Record(str(place), "2024-01-01"),
    "journal": lambda: Journal(place, None),
    "checkpoint": lambda: _facts(place / "state"),
}[kind]
try:
    load()
except ArtifactError as error:
    print(error)
print(peak() - before)
"""
FILES = {"report": "report.json", "day": "daily/2024-01-01.json", "journal": "journal.jsonl"}


def refusal(kind: str, place: Path) -> str:
    """What is said of an artifact, by a process of its own whose memory is watched."""
    done = subprocess.run([sys.executable, "-c", LOAD, kind, str(place)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said, _, added = done.stdout.rstrip().rpartition("\n")
    print(f"{kind}: {added} MB beyond the imports: {said}")
    assert int(added) < MOST_MB
    assert str(place) in said
    assert "\n" not in said
    return said


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"[" + b"{}," * (30 << 20) + b"{}]\n", "at most"),
        (b'{"a": [' + b"{}," * 2_000_000 + b"{}]}\n", "values"),
        (b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", ""),
    ],
    ids=["bytes", "values", "depth"],
)
def test_json_artifacts(tmp_path: Path, kind: str, content: bytes, found: str) -> None:
    path = tmp_path / FILES[kind]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    assert found in refusal(kind, tmp_path)


@pytest.mark.slow  # gigabytes that a header promises
def test_a_checkpoint_whose_header_is_all_there_is(tmp_path: Path) -> None:
    header = json.dumps({f"{n:x}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(1_000_000)})
    (tmp_path / "state").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    assert "a header of at most 4,194,304 bytes" in refusal("checkpoint", tmp_path)


def test_json_is_bounded(tmp_path: Path) -> None:
    path = str(tmp_path / "a.json")
    for text, found in (("[]", "a JSON object"), ("{", "expected JSON"), ('{"a":' * 102 + "1" + "}" * 102, "levels")):
        Path(path).write_text(text)
        with pytest.raises(ArtifactError, match=found):
            bounded.load(path)
    Path(path).write_text('{"a":' * 100 + "1" + "}" * 100)
    assert "a" in bounded.load(path)
    Path(tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match="expected a file, found no plain file"):
        bounded.load(str(tmp_path / "endless"))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("z: !!timestamp foo", "valid YAML"),
        ('z: "\\Uffffffff"', "valid YAML"),
        ("z: !!bool zzz", "valid YAML"),
        ('z: !!int ""', "valid YAML"),
        ('workspace: "a\\0b"', "a NUL character in line 2"),
        ("source: {path: a.csv, encoding: rot13}", "source.encoding: expected that of a text, found"),
        ("source: {path: a.csv, encoding: zlib}", "source.encoding: expected that of a text, found"),
        ('source: {path: a.csv, columns: ["a{5..1}"]}', "stands for no name"),
    ],
)
def test_scalars_that_are_not_what_they_claim(tmp_path: Path, line: str, found: str) -> None:
    (tmp_path / "c.yaml").write_text(f"name: x\n{line}\n")
    with pytest.raises(ConfigError, match=re.escape(found)) as error:
        load_config(tmp_path / "c.yaml")
    assert "\n" not in str(error.value)
