"""Raw columns beside a snapshot's rows: they are the log's, move no row, and tell rows apart in ``evaluate``."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
import yaml

from fieldwise.features.errors import ArtifactError, ConfigError, InputError, IntegrityError
from fieldwise.features.snapshot.manifest import Snapshot, load_snapshot
from fieldwise.pipelines.build import features as room
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.evaluate import evaluate_model
from fieldwise.pipelines.train.train import train_model
from fieldwise.training.evaluation.apart import grouped
from fieldwise.training.models import settings_of
from fieldwise.training.network.bundle import Bundle, save_bundle
from fieldwise.training.network.network import Network

ROWS = 1200
DEVICES = ["", "phone", "tablet", "tv"]


def config_of(folder: Path, *overrides: str, **more: Any) -> Config:
    """A log of sessions on devices, which no field reads; a side table says which house a user lives in."""
    draw = np.random.default_rng(1)
    rows = [
        f"u{draw.integers(9)},i{draw.integers(7)},s{draw.integers(200)},{draw.choice(DEVICES)},{draw.integers(2)}"
        for _ in range(ROWS)
    ]
    (folder / "log.csv").write_text("user,item,session,device,click\n" + "\n".join(rows) + "\n")
    (folder / "users.csv").write_text("user,house\n" + "".join(f"u{n},{n % 3}\n" for n in range(8)))
    document = {
        "name": "sessions", "source": {"path": "log.csv"}, "join": [{"path": "users.csv", "on": "user"}],
        "label": "click", "beside": ["session", "device", "house"], "split": {"by": "hash", "key": "item", "test": 0.4,
        "valid": 0.0}, "fields": [{"name": n, "kind": "hash", "buckets": 30} for n in ("user", "item")],
        "snapshot": {"rows_per_file": 300}, "model": {"kind": "lr"}, "training": {"patience": None},
        "evaluation": {"group": "session", "slices": ["device", "house", "user"]},
    }  # fmt: skip
    (folder / "sessions.yaml").write_text(yaml.safe_dump(document | more))
    return load_config(folder / "sessions.yaml", list(overrides))


def log_of(folder: Path) -> list[dict[str, str]]:
    names, *rows = [line.split(",") for line in (folder / "log.csv").read_text().splitlines()]
    return [dict(zip(names, row, strict=True)) for row in rows]


def table_of(snapshot: Snapshot, role: str | None = None) -> pa.Table:
    files = [file for file in snapshot.manifest.files if role in (None, file.role)]
    return pa.concat_tables([pq.read_table(Path(snapshot.data_dir, file.path)) for file in files])


def hash_of(text: str) -> int:
    return int(np.uint64(xxhash.xxh64_intdigest(text.encode(), 42)).view(np.int64))


@pytest.mark.parametrize("shuffle", ["global", "none"])
def test_they_are_the_logs_and_move_no_row(tmp_path: Path, shuffle: str) -> None:
    overrides = [f"snapshot.shuffle={shuffle}"]
    found = load_snapshot(build_features(config_of(tmp_path, *overrides))["dir"])
    none = {"beside": [], "evaluation": {}}
    plain = load_snapshot(build_features(config_of(tmp_path, *overrides, "workspace=plain", **none))["dir"])
    assert "beside" not in json.loads((Path(plain.dir) / "manifest.json").read_text())
    assert "beside" not in (plain.manifest.config or {})
    names = plain.spec.slot_names
    assert table_of(found).select([*names, "label"]).equals(table_of(plain))
    assert found.manifest.digest != plain.manifest.digest

    session, device, house = found.manifest.beside
    assert (session.column, len(session.values or ())) == ("session", len({row["session"] for row in log_of(tmp_path)}))
    assert (device.column, device.values) == ("device", DEVICES)
    assert (house.column, house.values) == ("house", ["", "0", "1", "2"])  # u8 lives nowhere
    houses = {f"u{n}": str(n % 3) for n in range(8)}
    wanted = Counter(
        (int(row["click"]), *map(hash_of, (row["session"], row["device"], houses.get(row["user"], ""))))
        for row in log_of(tmp_path)
    )
    columns = [table_of(found)[name].to_pylist() for name in ("label", "beside_0000", "beside_0001", "beside_0002")]
    assert Counter(zip(*columns, strict=True)) == wanted


def test_the_same_however_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = set()
    for size in (1 << 20, 2000):
        monkeypatch.setattr(room, "RANGE_BYTES", size)
        digests.add(build_features(config_of(tmp_path, f"workspace=work{size}"))["digest"])
    assert len(digests) == 1


@pytest.mark.parametrize("reader", ["petastorm", "arrow"])
def test_groups_and_slices(tmp_path: Path, reader: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(tmp_path, f"training.reader={reader}")
    snapshot = load_snapshot(build_features(config)["dir"])
    network = Network(snapshot.spec, settings_of("lr", dim=1, pair_buckets=0, own={}))
    weight = np.random.default_rng(2).standard_normal(tuple(network.table.weight.shape)).astype(np.float32)
    bundle = Bundle(network.settings, snapshot.spec, weight, network.dense(), 0.0)
    save_bundle(tmp_path / "bundle", bundle)
    found = evaluate_model(config, model=str(tmp_path / "bundle"))

    rows = table_of(snapshot, "test")
    slots = np.stack([rows[name].to_numpy() for name in snapshot.spec.slot_names], axis=1)
    sizes = np.array([0, snapshot.spec.fields[0].size])
    logits, label = weight[slots + sizes, 0].sum(1).astype(np.float32), rows["label"].to_numpy()
    ours = grouped(rows["beside_0000"].to_numpy(), logits, label, np.ones(len(label)))
    assert found["group"]["field"] == "session"
    for name, value in ours.items():
        assert found["group"][name] == pytest.approx(value, abs=1e-9), name
    slices = {each["slice"] if "slice" in each else each["name"]: each for each in found["slices"]}
    for value in DEVICES:
        mine = rows["beside_0001"].to_numpy() == hash_of(value)
        one = slices[f"device = {value or 'missing'}"]
        assert (one["rows"], one["positives"]) == (mine.sum(), label[mine].sum())
        z, y = logits[mine].astype(np.float64), label[mine]
        assert one["logloss"] == pytest.approx(np.mean(np.logaddexp(0, z) - y * z), abs=1e-6)
    assert {"house = missing", "house = 0"} <= set(slices)
    assert set(found["reliability"]) - {"all"} == set(slices)
    assert "groups of session" in capsys.readouterr().err


@pytest.mark.parametrize("reader", ["petastorm", "arrow"])
def test_a_model_is_trained_and_measured_by_some_of_them(tmp_path: Path, reader: str) -> None:
    """The rows' digest is of all that travels beside them, and training reads none of it."""
    overrides = [f"training.reader={reader}", "training.epochs=1", "training.auto=false"]
    config = config_of(tmp_path, *overrides, evaluation={"slices": ["device"]})
    snapshot = load_snapshot(build_features(config)["dir"])
    assert train_model(config, Days(), force=True)["metrics"]["test"]["rows"] == len(table_of(snapshot, "test"))
    found = evaluate_model(config, model="models:/sessions/1")
    assert {each.get("slice", each.get("name")) for each in found["slices"]} >= {"device = missing"}
    file = Path(snapshot.data_dir, snapshot.manifest.files[0].path)
    table = pq.read_table(file)
    other = pa.array(table["beside_0002"].to_numpy() + 1)
    pq.write_table(table.set_column(table.column_names.index("beside_0002"), "beside_0002", other), file)
    manifest = json.loads(Path(snapshot.dir, "manifest.json").read_text())
    manifest["files"][0] |= {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "bytes": file.stat().st_size
    }  # fmt: skip
    Path(snapshot.dir, "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(IntegrityError, match="expected rows of SHA-256"):
        train_model(config_of(tmp_path, *overrides, "training.seed=2"), Days(), force=True)


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"beside: expected each column once, found 'device' twice"):
        config_of(tmp_path, beside=["device", "device"], evaluation={})
    words = r"evaluation\.slices: expected fields of the model: user, item, or columns of `beside`: device, found s"
    with pytest.raises(ConfigError, match=words):
        config_of(tmp_path, beside=["device"], evaluation={"slices": ["session"]})
    with pytest.raises(InputError, match=r"beside: expected a column 'colour' in .*log\.csv and the joined tables"):
        build_features(config_of(tmp_path, beside=["colour"], evaluation={}))
    built = build_features(config_of(tmp_path, beside=["device"], evaluation={}))
    with pytest.raises(ArtifactError, match=r"beside: snapshot device, config session, device, house"):
        build_features(config_of(tmp_path))
    network = Network(spec := load_snapshot(built["dir"]).spec, settings_of("lr", dim=1, pair_buckets=0, own={}))
    bundle = Bundle(network.settings, spec, network.table.weight.detach().numpy(), network.dense(), 0.0)
    save_bundle(tmp_path / "bundle", bundle)
    told = r"session, device, house beside its rows, found device\. Build it again: `fieldwise features .* --replace"
    with pytest.raises(ArtifactError, match=told):
        evaluate_model(config_of(tmp_path), model=str(tmp_path / "bundle"))


def test_too_many_values_and_texts_that_are_none(tmp_path: Path) -> None:
    config = config_of(tmp_path, "snapshot.max_bad_fraction=0.1")
    many = [f"u1,i1,s{n},{'x' * 201},1" for n in range(1001)]
    with (tmp_path / "log.csv").open("ab") as file:
        file.write(("\n".join(many) + "\n").encode() + b"u1,i1,\xff,tv,1\n")
    built = build_features(config)
    assert [each.values for each in load_snapshot(built["dir"]).manifest.beside[:2]] == [None, None]
    assert built["quarantined"] == {"undecodable": 1}
    with pytest.raises(ConfigError, match=r"evaluation\.slices: expected a column of at most 1,000 values, found dev"):
        save_and_evaluate(tmp_path, config)


def save_and_evaluate(folder: Path, config: Config) -> None:
    spec = load_snapshot(f"{config.workspace_dir}/snapshots/all").spec
    network = Network(spec, settings_of("lr", dim=1, pair_buckets=0, own={}))
    save_bundle(
        folder / "bundle",
        Bundle(network.settings, spec, network.table.weight.detach().numpy(), network.dense(), 0.0),
    )
    evaluate_model(config, model=str(folder / "bundle"))
