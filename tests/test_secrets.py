"""Planted secrets: whatever a command says, returns, writes or hands to another process holds none of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fieldwise.jobs.cli import main
from tests.commands import Commands
from tests.files_server import files_served
from tests.pipelines.shop import write_shop

MARK = "Zq-planted"
"""Every secret begins so. None is a word, a number or a place."""
VARIABLES = {"SOURCE_PASSWORD": f"{MARK}-telling", "SIGNED": f"{MARK}-signature", "LOGIN": f"{MARK}-harmless"}
CONFIG = f"""
name: shop
workspace: work
source: {{path: "http://ann:${{SOURCE_PASSWORD}}@HOST/log.csv?X-Amz-Signature=${{SIGNED}}&token={MARK}-token"}}
join:
  - {{path: "http://ann:{MARK}-literal@HOST/ages.csv?sig={MARK}-sig&x=${{LOGIN}}", on: user}}
label: click
split: {{by: hash, key: user, valid: 0.2, test: 0.2}}
fields:
  - {{name: user, kind: hash, buckets: 97}}
  - {{name: years, kind: number, edges: [20, 40, 60]}}
  - {{name: item, kind: vocabulary}}
  - {{name: hour, kind: time, part: hour, of: when}}
model: {{kind: lr}}
training: {{batch_size: 256, epochs: 1, threads: 1, learning_rate: 0.1}}
tracking: {{uri: "sqlite:///FOLDER/mlflow.db?password={MARK}-database&x=${{LOGIN}}"}}
catalog:
  contexts: {{path: "http://ann:${{SOURCE_PASSWORD}}@HOST/ages.csv?sig={MARK}-contexts"}}
  items: {{path: "http://{MARK}-user@HOST/items.csv?key={MARK}-items"}}
  context_id: user
  item_id: item
  k: 3
  time: "2026-01-01T18:30:00"
"""


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Path]:
    """A folder with shop.yaml, and www/ which a server on loopback has the data of; FOLDER/port tells where."""
    www = tmp_path / "www"
    www.mkdir()
    write_shop(www, rows=2500)
    head, *rows = (line.split(",") for line in (www / "log.csv").read_text().splitlines())
    for row in rows:  # what a model can learn
        row[-1] = str(int(int(row[2][1:]) % 3 == 0))
    rows[7][5] = "never"  # and a row for the quarantine
    drop = [n for n, name in enumerate(head) if name == "age"]
    lines = [",".join(v for n, v in enumerate(row) if n not in drop) for row in [head, *rows]]
    (www / "log.csv").write_text("\n".join(lines) + "\n")
    (www / "ages.csv").write_text((www / "users.csv").read_text().replace("user,age", "user,years"))
    with files_served(www) as port:
        text = CONFIG.replace("HOST", f"127.0.0.1:{port}").replace("FOLDER", str(tmp_path))
        (tmp_path / "shop.yaml").write_text(text)
        (tmp_path / "port").write_text(str(port))
        yield tmp_path


FAILURES = [
    (2, ["features", "--set", f"source.path=http://ann:{MARK}-a@HOST/none.csv?sig={MARK}-b"]),
    (2, ["features", "--set", "source.path=${SIGNED}/x.csv"]),
    (2, ["features", "--set", "training.epochs=${LOGIN}"]),
    (2, ["features", "--set", "fields.0.kind=${LOGIN}"]),
    (2, ["train", "--train", "/nowhere/${LOGIN}", "--set", f"workspace=memory://ann:{MARK}-c@host/work"]),
    (2, ["evaluate", "--model", f"http://ann:{MARK}-d@HOST/model?token={MARK}-e"]),
    (1, ["promote", "--set", f"tracking.uri=http://ann:{MARK}-f@127.0.0.1:9/"]),
    (1, ["promote", "--set", f"tracking.uri=http://{MARK}-g@127.0.0.1:9/"]),
    (2, ["promote", "--set", f"tracking.uri=postgresql://ann:{MARK}-m@127.0.0.1:port/db"]),
    (2, ["promote", "--set", f"tracking.uri=postgresql+none://ann:{MARK}-n@127.0.0.1:9/db"]),
    (2, ["promote", "--set", f"tracking.uri=ftp://ann:{MARK}-h@127.0.0.1:9/"]),
    (2, ["score-rows", "--input", f"http://ann:{MARK}-i@HOST/none.csv?sig={MARK}-j", "--model", "models:/a/1"]),
    (2, ["doctor", "--quick", "--set", f"source.path=http://ann:{MARK}-k@HOST/none.csv?sig={MARK}-l"]),
]


@pytest.mark.parametrize(("code", "arguments"), FAILURES)
def test_failures_say_none(
    planted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
    arguments: list[str],
) -> None:
    """Wrong paths, refused stores, values of the wrong type, a store that is away."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    host = f"127.0.0.1:{(planted / 'port').read_text()}"
    command = [argument.replace("HOST", host) for argument in arguments]
    assert main([command[0], "--config", str(planted / "shop.yaml"), *command[1:]]) == code
    said = capfd.readouterr()
    assert f"fieldwise {command[0]}: " in said.err
    assert MARK not in said.out + said.err


def test_what_argparse_and_yaml_repeat(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        main(["features", "--config", "x.yaml", f"http://ann:{MARK}-a@host/"])
    broken = (planted / "shop.yaml").read_text().replace(f"{MARK}-literal@", f"{MARK}-literal\\q@")
    (planted / "broken.yaml").write_text(broken)
    assert main(["features", "--config", str(planted / "broken.yaml")]) == 2
    said = capfd.readouterr().err
    assert "unrecognized arguments: http://ann:***@host/" in said
    assert "found unknown escape character 'q' in line 6, column" in said
    assert MARK not in said


def left_in(folder: Path) -> list[str]:
    """Files that hold a secret, and names that do."""
    found = []
    for path in folder.rglob("*"):
        own = path.name == "shop.yaml" and path.parent == folder
        if own or "www" in path.relative_to(folder).parts or path.is_symlink():
            continue
        if MARK in path.name or (path.is_file() and MARK.encode() in path.read_bytes()):
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nothing_that_commands_leave_holds_one(planted: Path) -> None:
    run = Commands(planted, **VARIABLES)
    host = f"127.0.0.1:{(planted / 'port').read_text()}"
    built = json.loads(run("features"))
    assert built["quarantined"] == {"bad_time": 1}
    run("train")
    result = json.loads(run("train", "--ranks", "2", "--set", "model.kind=fm"))
    assert Path(result["bundle"]).is_dir()  # results stay usable
    run("sweep", "--trials", "2")
    run("evaluate", "--model", result["bundle"], "--set", "model.kind=fm")
    run("score-rows", "--input", f"http://ann:{MARK}-a@{host}/log.csv?sig={MARK}-b")
    run("score-catalog")
    run("explain")
    run("promote")
    run("send")
    run("prune", "--keep", "30d")
    run("doctor")
    # a task fails over a file whose name a variable brought, a rank over its snapshot, a store is away
    broken = gzip.compress((planted / "www/log.csv").read_bytes())[:-400]
    (planted / "www/cut.csv.gz").write_bytes(broken)
    cut = f"source.path=http://ann:{MARK}-c@{host}/cut.csv.gz?sig={MARK}-d&x=${{LOGIN}}"
    run("features", "--replace", "--set", cut, code=2)
    away = f"http://ann:{MARK}-e@127.0.0.1:9"
    run("train", "--ranks", "2", "--train", "/nowhere/${LOGIN}", code=2)
    run("train", "--set", "model.kind=ffm", "--set", "tracking.uri=null", code=1, MLFLOW_TRACKING_URI=away)
    run("send", "--set", "tracking.uri=null", code=1, MLFLOW_TRACKING_URI=away)
    assert [line for line in run.said.splitlines() if MARK in line] == []
    assert [line for line in run.lines if MARK in line] == []
    assert left_in(planted) == []
    assert "mlflow.db" in {path.name for path in planted.iterdir()}
    assert list((planted / "events").iterdir())
