"""One message per mistake: where, what, and the nearest name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fieldwise.features.errors import ConfigError
from fieldwise.pipelines.config.load import load_config

TEXT = """\
name: small
source: {path: log.csv}
join:
  - {path: users.csv, on: user}
label: click
time: when
split: {by: time, valid: 0.1, test: 0.1}
fields:
  - {name: "C{1..3}", kind: hash, buckets: 100}
  - {name: hour, kind: time, part: hour}
  - {name: age, kind: number, quantiles: 10}
model: {kind: ffm, dim: 4}
training: {l2: 1e-6}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


def test_a_good_file(file: Path) -> None:
    config = load_config(file)
    assert [f.name for f in config.fields] == ["C1", "C2", "C3", "hour", "age"]
    assert config.join[0].on == "user"
    assert config.training.l2 == 1e-6
    assert config.base == str(file.parent)
    assert config.workspace_dir == str(file.parent / "work" / "small")
    assert config.features.model_dump() == {k: v for k, v in config.model_dump().items() if hasattr(config.features, k)}


def test_one_join_stands_for_a_list_of_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = load_config(file)
    file.write_text(TEXT.replace("join:\n  - {path: users.csv, on: user}", "join: {path: users.csv, on: user}"))
    single = load_config(file)
    assert single.join == listed.join
    assert single.record == listed.record
    monkeypatch.setenv("TABLE", "a-table-of-this-test-alone.csv")  # what comes from a variable is redacted from then on
    file.write_text(TEXT.replace("  - {path: users.csv, on: user}", "  path: ${TABLE}\n  on: user"))
    assert load_config(file).join[0].path == ["a-table-of-this-test-alone.csv"]
    assert load_config(file).unexpanded()["join"][0]["path"] == ["${TABLE}"]
    file.write_text(TEXT.replace("  - {path: users.csv, on: user}", "  path: users.csv\n  onn: user"))
    with pytest.raises(ConfigError, match=r"join.onn: .*Did you mean `on`"):
        load_config(file)


@pytest.mark.parametrize("written", ["2026-01-07", "2026-01-07 19:00:00", "2026-01-07T19:00:00Z"])
def test_moments_without_quotes_are_taken_as_written(written: str, file: Path) -> None:
    catalog = f"catalog: {{contexts: {{path: a}}, items: {{path: b}}, context_id: u, item_id: i, time: {written}}}\n"
    file.write_text(TEXT + catalog)
    config = load_config(file)
    assert config.catalog is not None
    assert config.catalog.time == written
    assert load_config(file, ["time={column: when, earliest: 2001-01-31}"]).time.earliest.isoformat() == "2001-01-31"  # type: ignore[union-attr]


def test_numbers_are_no_times(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.epochs: expected a whole number at least 1, found '1:30'"):
        load_config(file, ["training.epochs=1:30"])
    assert load_config(file, ["training.seed=0x10", "training.epochs=1_0"]).training.seed == 16


def test_overrides_reach_lists_and_make_blocks(file: Path) -> None:
    config = load_config(
        file,
        ["fields.0.buckets=7", "tracking.model_name=other", "training.epochs=3", "model.kind=lr", "model.dim=null"],
    )
    assert config.fields[0].buckets == 7
    assert (config.model_name, config.training.epochs, config.model.kind) == ("other", 3, "lr")


def test_an_override_has_no_comments(file: Path) -> None:
    """Two workspaces, `run #1` and `run #2`, would be one."""
    config = load_config(file, ["workspace=/tmp/run #1", "label=click # 1", "source.path=#1.csv"])
    assert config.workspace_dir == "/tmp/run #1"
    assert (config.label, config.source.path) == ("click # 1", ["#1.csv"])


@pytest.mark.parametrize(
    ("written", "instead", "line", "message"),
    [
        ("buckets: 100", "bukets: 100", 9, "Did you mean `buckets`"),
        ("training: {l2", "trainin: {l2", 13, r"trainin: expected one of .* Did you mean `training`"),
        ("quantiles: 10", "quantils: 10", 11, "Did you mean `quantiles`"),
        (
            "kind: ffm, dim: 4",
            "kind: ffm, dim: many",
            12,
            r"model.dim: expected a whole number at least 1 and at most 100000, found 'many'\.",
        ),
        ("kind: hash", "kind: hsh", 9, "fields.0.kind: expected a kind: .*, found 'hsh'. Did you mean `hash`"),
        ("label: click\n", "", None, "label: expected a text, found none: the key is required"),
        ("valid: 0.1", "valid: 1.5", 7, r"split.valid: expected a fraction in \[0, 1\) to split by time, found 1.5"),
        ("on: user", "onn: user", 4, "Did you mean `on`"),
        ("path: log.csv", "path: '${FIELDWISE_NOWHERE}/log.csv'", None, "environment variable FIELDWISE_NOWHERE"),
        ("label: click", "label: [click", None, "expected valid YAML"),
    ],
)
def test_mistakes(file: Path, written: str, instead: str, line: int | None, message: str) -> None:
    file.write_text(TEXT.replace(written, instead))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(file)
    assert str(file) in caught.value.where
    assert caught.value.exit_code == 2
    if line is not None:
        assert f"line {line}," in caught.value.where


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", "Did you mean `epochs`"),
        ("training", "expected KEY=VALUE"),
        ("fields.9.name=x", "found '9' in a list of 3"),
        ("name.x=1", "name"),
        ("join.0.select.0=x", "a list at select"),
        ("model.dim=[1", "expected a YAML value"),
    ],
)
def test_bad_overrides(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(file, [override])
    assert message in str(caught.value)


def test_variables(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(TEXT.replace("path: log.csv", "path: '${LOGS:-nowhere}/log.csv'"))
    assert load_config(file).source.path == ["nowhere/log.csv"]
    monkeypatch.setenv("LOGS", "/logs")
    assert load_config(file).source.path == ["/logs/log.csv"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a readable config file, found No such file"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[3].glob("configs/*.yaml")), ids=lambda p: p.stem)
def test_shipped_configs_load(path: Path) -> None:
    assert load_config(path).name == path.stem


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: !!timestamp 2001-99-99", "expected valid YAML, found month must be in 1..12"),
        (b"a: " + b"9" * 5000, "expected valid YAML, found a number of more than 100 digits"),
        (b"a: " + b"[" * 5000, "expected valid YAML, found more than 50 levels of nesting"),
        (b"a: &a [*a]", "expected at most 50 levels of nesting, found more, aliases followed"),
        (b"x: \xff\xfe", "expected a readable config file, found 'utf-8' codec can't decode"),
        (TEXT.replace("1..3", "1..999999999").encode(), "stands for more than 10000 names"),
    ],
)
def test_hostile_files_are_refused_in_one_line(file: Path, content: bytes, message: str) -> None:
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(file)


@pytest.mark.parametrize(
    ("workspace", "found"),
    [("log.csv", "log.csv, which is no directory"), ("log.csv/below", "log.csv, which is no directory"),
     ("memory://x", "memory, which each process has for itself"), ("https://host/x", "a web address, which takes no")],
)  # fmt: skip
def test_a_workspace_that_can_keep_nothing(file: Path, workspace: str, found: str) -> None:
    (file.parent / "log.csv").touch()
    file.write_text(TEXT + f"workspace: {workspace}\n")
    with pytest.raises(
        ConfigError, match=rf"small.yaml line 14, workspace: .*found .*{found}.*Set another `workspace`"
    ):
        load_config(file)
    with pytest.raises(ConfigError, match=rf"--set workspace={workspace}, workspace: "):
        load_config(file, [f"workspace={workspace}"])


def test_words_of_a_refused_block(file: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(file, ["source.header=false", "model.dmi=3"])
    assert str(error.value).endswith("The config has 1 more mistake.")
    with pytest.raises(ConfigError, match=r'found \{"path": "log.csv", "header": false\}\. '):
        load_config(file, ["source.header=false"])
    assert str(ConfigError("x", expected="a", found="no file.", fix="Mend.")) == "x: expected a, found no file. Mend."
