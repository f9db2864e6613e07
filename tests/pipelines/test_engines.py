"""Local and Spark engines give equal digests: snapshots of every source format and field kind, scores, lists."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from fieldwise.features.snapshot.manifest import load_snapshot
from fieldwise.pipelines import engine as room
from fieldwise.pipelines.build import features as build
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.catalog.score_catalog import score_catalog
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.score.score_rows import score_rows
from tests.pipelines.every_kind import COLUMNS, FIELDS, OF
from tests.pipelines.shop import shop_config, write_bundle, write_shop

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ["csv", "tsv.gz", "jsonl", "parquet"]
KEYS: list[dict[str, Any]] = [
    {"split": {"by": "hash", "key": "b", "valid": 0.2, "test": 0.2}, "snapshot": {"negative_rate": 0.5}},
    {"split": {"by": "time", "valid": 0.2, "test": 0.2}, "time": OF},
    {"split": {"by": "none"}, "snapshot": {"shuffle": "none"}, "weight": "1 + y"},
    {"split": {"by": "none"}, "beside": ["a"], "filter": "b != 'h'"},
]


def drawn(seed: int) -> list[tuple[str, ...]]:
    """Rows with missing, multi-valued, quoted and unreadable values, and a value for every vocabulary."""
    draw = random.Random(seed)

    def text() -> str:
        return "".join(draw.choices("ab\u00e9\u4e2d \"',;0", k=draw.randrange(5)))

    rows = [
        (
            draw.choice("01"), text(), draw.choice("abcdefgh"), "|".join(text() for _ in range(draw.randrange(5))),
            draw.choice(["", "bad", f"{draw.uniform(-9, 1e6):.3f}", str(draw.randrange(2**40))]),
            str(draw.randrange(2**31)), draw.choice(["0", "1"]), draw.choice(["1", ""]),
        )
        for _ in range(draw.randrange(150, 400))
    ]  # fmt: skip
    ends = [(label, "a", word, "c", "1", "0", "1", "1") for label in "01" for word in "abcdefg" for _ in range(3)]
    return [*rows, *ends]


def write(place: Path, format: str, rows: list[tuple[str, ...]]) -> dict[str, Any]:
    """Two files of the log; returns the source."""
    for number, part in enumerate((rows[::2], rows[1::2])):
        path = place / f"log-{number}.{format}"
        if format == "parquet":
            columns = [pa.array(column, pa.string()) for column in zip(*part, strict=True)]
            pq.write_table(pa.table(columns, names=COLUMNS), path, row_group_size=40)
        elif format == "jsonl":
            path.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in part))
        else:
            text = io.StringIO()
            tab = format != "csv"
            csv.writer(text, delimiter="\t" if tab else ",", quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(part)
            path.write_bytes(gzip.compress(text.getvalue().encode()) if tab else text.getvalue().encode())
    named = {"columns": COLUMNS} if format in ("csv", "tsv.gz") else {"format": format}
    return {"path": f"log-*.{format}", **({"separator": "\t"} if format == "tsv.gz" else {}), **named}


def built(place: Path, document: dict[str, Any], engine: str) -> Any:
    """Of the published snapshot what does not depend on names and times."""
    (place / "config.yaml").write_text(yaml.safe_dump(document | {"engine": engine, "workspace": engine}))
    result = build_features(load_config(place / "config.yaml"))
    manifest = load_snapshot(result["dir"]).manifest.model_dump()
    quarantine = pq.read_table(place / engine / "snapshots/all" / manifest["data"] / "quarantine.parquet").to_pylist()
    kept = ("digest", "spec_digest", "quarantined", "filtered", "dropped_negatives", "fields", "joined", "sources")
    report = (place / engine / "snapshots/all" / manifest["data"] / "report.json").read_text()
    return {name: manifest[name] for name in kept}, sorted(map(str, quarantine)), json.loads(report)


def require_same(place: Path, format: str, keys: dict[str, Any], seed: int) -> None:
    snapshot = {"rows_per_file": 30, "max_bad_fraction": 1.0} | keys.get("snapshot", {})
    document = {"name": "same", "source": write(place, format, drawn(seed)), "label": "label", "fields": FIELDS}
    document |= {"model": {"kind": "lr"}} | keys | {"snapshot": snapshot}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "RANGE_BYTES", 1500)
        assert built(place, document, "local") == built(place, document, "spark")


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize(("format", "keys"), zip(FORMATS, KEYS, strict=True), ids=FORMATS)
def test_snapshots(tmp_path: Path, format: str, keys: dict[str, Any]) -> None:
    require_same(tmp_path, format, keys, seed=1)


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
@given(st.sampled_from(FORMATS), st.sampled_from(KEYS), st.integers(0, 2**32))
@settings(max_examples=25, phases=[Phase.generate])  # an example takes seconds
def test_any_snapshots(tmp_path_factory: pytest.TempPathFactory, format: str, keys: dict[str, Any], seed: int) -> None:
    require_same(tmp_path_factory.mktemp("engines"), format, keys, seed)


def outputs(config: Config, bundle: str, engine: str) -> list[Any]:
    config = config.model_copy(update={"engine": engine})
    rows = score_rows(config, model=bundle, out=f"{engine}-rows")
    lists = score_catalog(config, model=bundle, date="2026-01-07", out=f"{engine}-lists")
    return [{k: v for k, v in result.items() if k not in ("dir", "report", "seconds")} for result in (rows, lists)]


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("kind", ["ffm", "poly2"])
def test_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    write_shop(tmp_path)
    (tmp_path / "seen.csv").write_text("user,item\n" + "".join(f"u{n % 45:03d},i{n % 61:03d}\n" for n in range(300)))
    monkeypatch.setattr("fieldwise.pipelines.catalog.score_catalog.CONTEXTS_PER_FILE", 15)
    config = shop_config(tmp_path, kind, exclude={"path": "seen.csv"})
    bundle = write_bundle(tmp_path, config)
    assert outputs(config, bundle, "local") == outputs(config, bundle, "spark")


@pytest.mark.parametrize(
    ("environment", "engine", "limit", "taken"),
    [
        ({}, "auto", 1 << 30, ("local", "0.0 MiB of sources, less than 1024 MiB")),
        ({}, "auto", 0, ("spark", "0.0 MiB of sources, not less than 0 MiB")),
        ({"SPARK_MASTER": "local[3]"}, "auto", 1 << 30, ("spark", "SPARK_MASTER is local[3]")),
        ({"PYSPARK_GATEWAY_PORT": "1"}, "auto", 1 << 30, ("spark", "spark-submit started this")),
        ({"SPARK_MASTER": "local[3]"}, "local", 0, ("local", "as the config says")),
        ({}, "spark", 1 << 30, ("spark", "as the config says")),
    ],
)
def test_which_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], engine: str, limit: int,
    taken: tuple[str, str],
) -> None:  # fmt: skip
    write_shop(tmp_path)
    config = shop_config(tmp_path).model_copy(update={"engine": engine})
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(room, "LOCAL_BYTES", limit)
    assert room.chosen(config, 400) == taken


def test_small_jobs_import_no_spark_and_no_more_than_they_need(tmp_path: Path) -> None:
    """Torch and MLflow take seconds to import, scipy what numba would have of it half of one."""
    write_shop(tmp_path)
    config = shop_config(tmp_path)
    bundle = write_bundle(tmp_path, config)
    script = (
        "import sys; from fieldwise.jobs.cli import main\n"
        f"where = ['--config', {str(tmp_path / 'shop.yaml')!r}]\n"
        "assert main(['features', *where, '--set', 'split.by=none']) == 0\n"
        "assert not {'torch', 'mlflow', 'scipy.linalg', 'fieldwise.features.kernels.jsonl'} & set(sys.modules)\n"
        f"assert main(['score-rows', *where, '--model', {bundle!r}]) == 0\n"
        f"assert main(['score-catalog', *where, '--model', {bundle!r}, '--date', '2026-01-07']) == 0\n"
        "assert not {'pyspark', 'py4j', 'mlflow'} & set(sys.modules)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK"))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("engine local: ") == 3
