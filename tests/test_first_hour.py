"""docs/first_hour.md, command by command, as somebody follows it with a log of his own."""

from __future__ import annotations

import json
import random
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fieldwise.jobs.cli import main
from tests.pipelines.init.shop import write_log

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "first_hour.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page speaks of."""
    draw = random.Random(3)
    write_log(tmp_path / "clicks.csv", 6000)
    rows = [(draw.randint(1, 40), draw.randint(1, 60), draw.randint(1, 5), 9 * 10**8 + 6000 * n) for n in range(2000)]
    (tmp_path / "ratings.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    (tmp_path / "users.csv").write_text("".join(f"{n},{n % 7},{'MF'[n % 2]}\n" for n in range(1, 41)))
    (tmp_path / "movies.csv").write_text("".join(f"{n};film {n};{n % 9}\n" for n in range(1, 61)))
    return tmp_path


def test_the_page(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results, said = {}, {}
    for line in COMMANDS:
        name, *rest = shlex.split(line)[1:]
        code = main([name, *rest])
        out, said[line] = capsys.readouterr()
        assert code == 0, said[line]
        results[line] = json.loads(out.splitlines()[-1])
    first, movies, doctor, features, train, evaluate, explain, lists, measured = results.values()
    assert [warning.split(":")[0] for warning in first["warnings"]] == ["paid until", "view id"]
    assert movies["fields"][:2] == ["user", "item"]
    assert movies["label"] == "rating >= 4"
    assert doctor["notes"] == []
    assert "fields: 8 fields in 10 slots; the first 10 rows are below" in said["fieldwise doctor --config config.yaml"]
    assert set(features["rows"]) == {"train", "valid", "test"}
    assert features["quarantined"] == {}
    assert train["registered"]["champion"] == "1"
    assert evaluate["metrics"]["normalized_entropy"] < 0.95
    assert len(explain["rows"]) == 2
    table = pq.read_table(lists["dir"], columns=["context_id", "rank", "item_id"]).to_pandas()
    assert table.groupby("context_id")["rank"].apply(list).map(lambda ranks: ranks == list(range(1, 11))).all()
    assert table["context_id"].nunique() == 60
    assert table.groupby("context_id")["item_id"].apply(tuple).nunique() > 40, "not one list for everybody"
    (as_csv,) = re.findall(r'`python -c "(.*?)"`', PAGE)
    subprocess.run([sys.executable, "-c", as_csv], check=True)
    assert (folder / "lists.csv").read_text().startswith(",context_id,rank,item_id,probability,")
    recall = measured["metrics"]["recall@10"]
    assert recall["lists"]["value"] > recall["random"]["value"]
    (log,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
    assert (folder / "clicks.csv").read_text().startswith(log)
    (shown,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    assert shown in (folder / "config.yaml").read_text()
