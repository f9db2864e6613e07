"""The command line: help, exit codes, one line per mistake, one JSON object per result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fieldwise.features.errors import FieldwiseError, InputError, RefusedError, known_error
from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.features.terminal import STYLE
from fieldwise.jobs.cli import main, parser
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.ranks.launch import read_failure, write_failure
from tests.snapshots import PLANTED, hash_spec, write_snapshot

COMMANDS = [
    "demo",
    "features",
    "train",
    "send",
    "evaluate",
    "compare",
    "score-rows",
    "score-catalog",
    "export-factors",
    "evaluate-lists",
    "similar-items",
    "similar-contexts",
    "explain",
    "promote",
    "rollback",
    "history",
    "daily",
    "bootstrap",
    "backfill",
    "freshness",
    "prune",
    "doctor",
]
CONFIG = PLANTED + "training: {batch_size: 256, epochs: 1, threads: 1}\n"
SPLIT = "split={by: hash, key: f0, valid: 0.2, test: 0.2}"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "planted.yaml").write_text(CONFIG)
    return tmp_path / "planted.yaml"


def failure(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Exit code and the one line on stderr; nothing on stdout."""
    code = main(list(argv))
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return code, said.err.strip().splitlines()[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args([name, "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert f"example:\n  fieldwise {name}" in said
    assert "--config FILE" in said
    assert "--set A.B=VALUE" in said


def test_init_needs_no_config(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(["init", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    assert "example:\n  fieldwise init clicks.csv --items" in said
    assert "--set" not in said


@pytest.mark.parametrize(
    ("terminals", "asked", "printed"),
    [
        ((True, True), [], False),
        ((True, True), ["--json"], True),
        ((True, True), ["--quiet"], True),
        ((False, True), [], True),
        ((True, False), [], True),
        ((False, False), ["--json"], True),
    ],
)
def test_a_terminal_that_shows_words_is_spared_json(
    terminals: tuple[bool, bool], asked: list[str], printed: bool, config: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """terminals: whether stdout and stderr are some."""
    monkeypatch.setenv(STYLE, "")
    for stream, terminal in zip((sys.stdout, sys.stderr), terminals, strict=True):
        monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
    assert main(["prune", "--config", str(config), "--keep", "30d", *asked]) == 0
    said = capsys.readouterr()
    assert ("nothing is past its retention" in said.err) == ("--quiet" not in asked)
    assert bool(said.out) == printed
    assert not printed or json.loads(said.out) == {"dry_run": False, "kept": {}, "removed": []}


def test_plain_mistakes_wait_for_no_imports(config: Path) -> None:
    """A file that is not there is told before what takes seconds to import; other mistakes do not wait for torch."""
    script = """
import sys
from fieldwise.jobs.cli import main
heavy = lambda: {"torch", "numba", "pandas", "mlflow", "matplotlib"} & set(sys.modules)
for mistake in (["init", "no.csv"], ["init", "planted.yaml", "--out", "planted.yaml"], ["init", "no/*.csv"],
                ["features", "--config", "no.yaml"], ["train", "--config", "no.yaml"],
                ["daily", "--config", "no.yaml", "--date", "2026-01-01"], ["evaluate-lists", "--config", "no.yaml"]):
    assert main(mistake) == 2
    assert not heavy(), (mistake, heavy())
for mistake in (["evaluate-lists", "--config", "planted.yaml"], ["init", "planted.yaml", "--out", "new.yaml"]):
    assert main(mistake) == 2
    assert not {"torch", "mlflow"} & heavy(), (mistake, heavy())
"""
    finished = subprocess.run([sys.executable, "-c", script], cwd=config.parent, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "no.csv: expected at least one file, found none. Check the name" in finished.stderr


def test_the_module_is_the_command(tmp_path: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "fieldwise", "init", "no.csv"], cwd=tmp_path, capture_output=True, text=True
    )
    assert finished.returncode == 2
    assert "no.csv: expected at least one file, found none" in finished.stderr


def test_names_are_the_users_own() -> None:
    for command in ("train", "sweep"):
        assert parser().parse_args([command, "--config", "x.yaml"]).name is None


def test_a_misspelt_key(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failure(capsys, "train", "--config", str(config), "--set", "training.epoch=3")
    assert code == 2
    assert line.startswith(f"fieldwise train: {config}")
    assert "Did you mean `epochs`?" in line


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.batch_size=many", "training.batch_size: expected"),
        ("fields=[{name: color, kind: hash, buckets: 10}]", "color"),
        ("split.valid=0.0001", "split.valid"),
        ("label=click >= 0", "both classes"),
    ],
)
def test_features_that_cannot_be_built(
    config: Path, capsys: pytest.CaptureFixture[str], setting: str, said: str
) -> None:
    """A value of the wrong type, a missing column, an empty split, one class only."""
    rows = "".join(f"{i % 2},a{i % 70},b{i % 5}\n" for i in range(200))
    (config.parent / "log.csv").write_text("click,f0,f1\n" + rows)
    code, line = failure(capsys, "features", "--config", str(config), "--set", SPLIT, "--set", setting)
    assert code == 2
    assert said in line
    assert not [path for path in config.parent.glob("work/**/*") if path.is_file()]


def test_a_model_of_other_fields(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"train": [900], "valid": [300], "test": [300]}
    snapshot = config.parent / "work/planted/snapshots/all"
    write_snapshot(snapshot, hash_spec((10, 10)), files)
    assert main(["train", "--config", str(config)]) == 0
    shutil.rmtree(snapshot)
    write_snapshot(snapshot, hash_spec((10, 11)), files)
    capsys.readouterr()
    code, line = failure(capsys, "evaluate", "--config", str(config))
    assert code == 2
    assert "found fields.f1.buckets: snapshot 11, config 10. Build it again: `fieldwise features --config" in line


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "exit_code", "found"),
    [
        (_cut, 2, "bytes"),
        (_flip, 2, "The file changed after its snapshot was published"),
        (Path.unlink, 2, "no such file"),
    ],
)
def test_a_damaged_file_stops_the_training_and_leaves_no_bundle(
    config: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], exit_code: int, found: str
) -> None:
    snapshot = config.parent / "work/planted/snapshots/all"
    write_snapshot(snapshot, hash_spec((10, 10)), {"train": [600, 600], "valid": [200], "test": [200]})
    file = load_snapshot(str(snapshot)).manifest.files[1]
    path = Path(load_snapshot(str(snapshot)).path(file))
    damage(path)
    code, line = failure(capsys, "train", "--config", str(config))
    assert code == exit_code
    assert path.name in line
    assert found in line
    assert not list(config.parent.glob("work/**/bundle*"))


def test_no_snapshot(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = failure(capsys, "train", "--config", str(config))
    assert code == 2
    assert "found no manifest.json. Build the snapshot with `fieldwise features`" in line
    assert sorted(p.name for p in config.parent.iterdir()) == ["planted.yaml"]


def test_no_champion(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("evaluate", "explain"):
        code, line = failure(capsys, command, "--config", str(config))
        assert code == 2
        assert "models:/planted@champion: expected a registered model" in line


def test_one_class_only_across_ranks(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank's error arrives whole, with its exit code, though torchrun itself knows only 1."""
    files = {"train": [600], "valid": [200], "test": [200]}
    write_snapshot(
        config.parent / "work/planted/snapshots/all", hash_spec((10, 10)), files, logit=lambda s: s[:, 0] * 0.0 - 99
    )
    code, line = failure(capsys, "train", "--config", str(config), "--ranks", "2", "--set", "model.kind=fm")
    assert code == 2
    assert line == (
        "fieldwise train: split train: expected rows of both classes, found 600 rows, all labelled 0. "
        "Check the label expression and the split settings."
    )
    assert not (config.parent / "work/planted/training").exists()


def test_train_evaluate_promote_rollback(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"train": [900], "valid": [300], "test": [300]}
    place, record = config.parent / "work/planted/snapshots/all", load_config(config).record
    snapshot = write_snapshot(place, hash_spec((10, 10)), files, config=record)

    def result(*argv: str) -> dict:
        assert main([*argv, "--config", str(config)]) == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    trained = result("train")
    kept = [json.loads(path.read_text()) for path in config.parent.glob("work/planted/**/config/snapshot-all.json")]
    assert kept
    assert all(each["digest"] == snapshot.manifest.digest for each in kept)
    assert all(each["config"]["label"] == "click" for each in kept)
    for command in ("train", "evaluate", "sweep"):
        code, line = failure(capsys, command, "--config", str(config), "--set", "label=click == 2")
        assert code == 2
        assert "expected a snapshot of this config, found label: snapshot click, config click == 2. Build it" in line
    for command in ("explain", "score-rows"):
        code, line = failure(capsys, command, "--config", str(config), "--set", "label=click == 2")
        assert code == 2
        assert "expected a model of this config, found label: model click, config click == 2. Use the" in line
    assert trained["registered"] == {"model": "planted", "version": "1", "champion": "1", "challenger": "1"}
    evaluated = result("evaluate")
    counts = {name: evaluated[name] for name in ("rows", "positives")}
    assert counts | evaluated["metrics"] == pytest.approx(trained["metrics"]["test"])
    again = result("train", "--init", trained["bundle"], "--set", "training.learning_rate=0.01")
    assert again["registered"]["version"] == "2"
    assert result("promote")["champion"] == "2"
    assert result("rollback") == {"model": "planted", "champion": "1", "former": "2"}


@pytest.mark.parametrize("date", ["20260115", "2026-W03-4", "2026-1-15", "2026-01-32", " 2026-01-15", ""])
@pytest.mark.parametrize("name", ["features", "score-rows", "score-catalog", "export-factors", "rollback", "daily"])
def test_days_are_written_in_one_form(name: str, date: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--config", "none.yaml", "--date", date])
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    line = f"fieldwise {name}: error: argument --date: expected YYYY-MM-DD, found {date!r}"
    assert said.err.splitlines()[-1] == line


@pytest.mark.parametrize(
    "arguments",
    [["demo", "--seed", "-1"], ["demo", "--rows", "-5"], ["sweep", "--seed", "-1"], ["sweep", "--seed", "9" * 13],
     ["sweep", "--trials", "0"], ["explain", "--top", "-1"]],
)  # fmt: skip
def test_numbers_that_nothing_can_be_done_with(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--config", "none.yaml"])
    assert stopped.value.code == 2
    assert "expected a whole number" in capsys.readouterr().err


def test_arguments_are_read_before_anything_is_imported_that_takes_time() -> None:
    script = (
        "import sys; from fieldwise.jobs.cli import parser\n"
        "parser().parse_args(['features', '--config', 'shop.yaml', '--date', '2026-01-07'])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert not {"numpy", "pyarrow", "numba", "pydantic", "torch"} & set(done.stdout.split())


def test_a_table_beyond_all_memory_is_no_defect() -> None:
    with pytest.raises(MemoryError) as asked:
        np.empty((1 << 50, 1 << 8), np.float32)
    found = known_error(asked.value)
    assert found is not None
    assert found.exit_code == 1
    assert str(found).startswith("memory: expected room, found Unable to allocate 1.00 EiB")


@pytest.mark.parametrize("date", ["0001-01-03", "0999-12-31", "9000-01-01", "9999-12-31"])
def test_days_before_and_after_which_there_must_be_others(date: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["daily", "--config", "none.yaml", "--date", date])
    assert f"argument --date: expected a year from 1000 to 8999, found {date!r}" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [InputError, RefusedError])
def test_failures_cross_processes(kind: type[FieldwiseError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDWISE_FAILURES", str(tmp_path))
    error = kind("here", expected="a", found="b", fix="Do c.")
    write_failure(error)
    back = read_failure(tmp_path / "rank-0.json")
    assert type(back) is kind
    assert (str(back), back.exit_code) == (str(error), error.exit_code)
