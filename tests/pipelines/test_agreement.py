"""Config, snapshots and model are of one piece, or a command refuses by name; columns are there before Spark starts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fieldwise.features.errors import ArtifactError, ConfigError, InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.snapshot.manifest import Snapshot
from fieldwise.features.snapshot.record import without_paths
from fieldwise.pipelines.agreement import require_measurable, require_model, require_snapshots, say_changes
from fieldwise.pipelines.build.checks import require_split
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.ranks.launch import Days
from fieldwise.pipelines.train.train import open_days
from fieldwise.training.network.bundle import Bundle, load_bundle, save_bundle
from tests.pipelines.shop import shop_config, write_bundle, write_shop
from tests.snapshots import hash_spec, write_snapshot

TEXT = """
name: planted
source: {path: "${LOGS:-logs}/log.csv"}
label: click
fields: [{name: "f{0..1}", kind: hash, buckets: 10}]
split: {by: hash, key: f0, valid: 0.2, test: 0.2}
model: {kind: lr}
"""
FILES = {"train": [300], "valid": [100], "test": [100]}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "planted.yaml").write_text(TEXT)
    return tmp_path / "planted.yaml"


def built(config: Config, name: str = "all", files: dict[str, list[int]] | None = None) -> Snapshot:
    place = Path(config.workspace_dir, "snapshots", name)
    return write_snapshot(place, hash_spec((10, 10)), files or FILES, name=name, config=config.record)


def refusal(config: Config, snapshot: Snapshot, *, named: bool = False) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        require_snapshots(config, [snapshot], named=named)
    assert caught.value.exit_code == 2
    return caught.value


def test_what_differs_is_named_with_the_command_that_mends_it(file: Path) -> None:
    snapshot = built(load_config(file))
    open_days(load_config(file, ["training.epochs=3", "snapshot.rows_per_file=7"]), Days())
    error = refusal(load_config(file, ["label=click == 2", "fields.0.buckets=20", "training.epochs=3"]), snapshot)
    assert error.where == snapshot.dir
    assert error.found == (
        "fields.f0.buckets: snapshot 10, config 20; fields.f1.buckets: snapshot 10, config 20; "
        "label: snapshot click, config click == 2"
    )
    assert error.fix == (
        f"Build it again: `fieldwise features --config {file} --set 'label=click == 2' --set fields.0.buckets=20 "
        "--replace`, or use the config it was built with."
    )
    with pytest.raises(ArtifactError, match=r"split\.test: snapshot 0\.2, config 0\.1"):
        open_days(load_config(file, ["split.test=0.1"]), Days())


def test_moved_directories_are_the_same_source(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = built(load_config(file))
    monkeypatch.setenv("LOGS", "/elsewhere")
    require_snapshots(load_config(file), [snapshot], named=False)
    other = load_config(file, ["source.path=other.csv"])
    assert "source.path: snapshot ${LOGS:-logs}/log.csv, config other.csv" in refusal(other, snapshot).found
    require_snapshots(other, [snapshot], named=True)


def test_days_are_whole_and_may_come_from_other_files(file: Path) -> None:
    day = built(load_config(file, ["split={by: none}"]), "2026-01-02", {"all": [100]})
    require_snapshots(load_config(file), [day], named=True)
    require_snapshots(load_config(file, ["source={path: 'new/{date}.tsv', format: tsv}"]), [day], named=True)
    error = refusal(load_config(file, ["weight=price"]), day, named=True)
    assert f"--set weight=price --date 2026-01-02 --spec {day.dir} --replace`" in error.fix


def test_a_snapshot_of_an_earlier_version_is_compared_by_its_fields_and_says_so(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(file)
    snapshot = write_snapshot(Path(config.workspace_dir, "snapshots/all"), hash_spec((10, 10)), FILES)
    require_snapshots(load_config(file, ["label=click == 2"]), [snapshot], named=False)
    say_changes(config, [snapshot.dir])
    assert "was built by an earlier version and does not tell its config: only its fields" in capsys.readouterr().err
    assert "fields.f0.buckets" in refusal(load_config(file, ["fields.0.buckets=9"]), snapshot).found


def test_changed_files_are_said(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot = built(load_config(file))
    say_changes(load_config(file), [snapshot.dir])  # the log is not at hand
    assert capsys.readouterr().err == ""
    (file.parent / "logs").mkdir()
    (file.parent / "logs/log.csv").write_text("click,f0,f1\n1,a,b\n")
    say_changes(load_config(file), [snapshot.dir])
    assert f"warning: the source's files are not those that {snapshot.dir} was built from" in capsys.readouterr().err


def test_an_unsplit_snapshot_is_told_in_words_about_the_split(file: Path) -> None:
    config = load_config(file, ["split={by: none}"])
    built(config, files={"all": [300]})
    with pytest.raises(InputError, match="rows to train, validate and test on, found a snapshot that was not split"):
        open_days(config, Days())


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("", "split: expected which rows train, validate and test, found none. Add `split: {by: hash, key: COLUMN, "),
        ("time: when", "split: expected which rows train, validate and test, found none. Add `split: {by: time, valid"),
        ("split: {by: files, test: b*}", "split.valid: expected rows to validate on: training.patience stops by"),
        ("split: {by: none}", ""),
        ("split: {by: files, test: b*}\ntraining: {patience: null}", ""),
    ],
)
def test_a_missing_split_is_told_by_the_first_build(file: Path, written: str, message: str) -> None:
    file.write_text(TEXT.replace("split: {by: hash, key: f0, valid: 0.2, test: 0.2}", written))
    if not message:
        return require_split(load_config(file))
    with pytest.raises(ConfigError) as caught:
        require_split(load_config(file))
    assert str(caught.value).startswith(message)


@pytest.fixture
def shop(tmp_path: Path) -> tuple[Path, Config, Bundle]:
    write_shop(tmp_path)
    config = shop_config(tmp_path)
    bundle = replace(load_bundle(write_bundle(tmp_path, config)), record=without_paths(config.record))
    return tmp_path, config, bundle


@pytest.mark.parametrize(
    ("overrides", "found"),
    [
        (["label=click == 0"], "label: model click, config click == 0"),
        (["fields.0.buckets=98"], "fields.user.buckets: model 97, config 98"),
        (["fields.5.of={column: when, zone: Europe/Berlin}"], "fields.hour.of.zone: model UTC, config Europe/Berlin"),
        (["source.separator=;"], "source.separator: model none, config ;"),
    ],
)
def test_a_model_of_another_config_is_refused(
    shop: tuple[Path, Config, Bundle], overrides: list[str], found: str
) -> None:
    folder, config, bundle = shop
    require_model(bundle, config, "model 1")
    with pytest.raises(ArtifactError) as caught:
        require_model(bundle, load_config(folder / "shop.yaml", overrides), "model 1")
    assert caught.value.found == found


def test_other_rows_are_scored_where_the_command_line_says_so(
    shop: tuple[Path, Config, Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _, bundle = shop
    require_model(bundle, load_config(folder / "shop.yaml", ["filter=age > 20"]), "model 1")
    assert capsys.readouterr().err == (
        "warning: model 1 was trained on other rows than these: filter: model none, config age > 20\n"
    )
    (folder / "shop.yaml").write_text((folder / "shop.yaml").read_text() + "filter: age > 20\n")
    with pytest.raises(ArtifactError, match="filter: model none, config age > 20"):
        require_model(bundle, load_config(folder / "shop.yaml"), "model 1")
    require_model(replace(bundle, record=None), load_config(folder / "shop.yaml"), "an old model")


def test_another_format_is_scored(shop: tuple[Path, Config, Bundle]) -> None:
    folder, _, bundle = shop
    require_model(bundle, load_config(folder / "shop.yaml", ["source={path: new.jsonl, format: jsonl}"]), "model 1")
    other = load_config(folder / "shop.yaml", ["source.separator=;"])
    require_model(bundle, other, "model 1", own_source=False)


def test_a_model_is_not_measured_on_another_label(file: Path, shop: tuple[Path, Config, Bundle]) -> None:
    bundle, snapshot = shop[2], built(load_config(file))
    require_measurable(bundle, [snapshot], "model 1")
    require_measurable(replace(bundle, record=None), [snapshot], "model 1")
    config = load_config(file, ["label=click == 2"])
    with pytest.raises(ArtifactError, match="rows of the label that model 1 was trained on, found label: model"):
        require_measurable(bundle, [built(config, "2026-01-01")], "model 1")


def test_a_bundle_keeps_what_its_rows_followed_from(shop: tuple[Path, Config, Bundle]) -> None:
    folder, _, bundle = shop
    digest = save_bundle(folder / "kept", bundle)
    assert load_bundle(folder / "kept").record == bundle.record
    assert digest == save_bundle(folder / "old", replace(bundle, record=None))
    assert load_bundle(folder / "old").record is None
    (folder / "kept/data.json").write_text(json.dumps({"source": 3}))
    with pytest.raises(ArtifactError, match=r"data\.json: expected what the training rows followed from, as JSON"):
        load_bundle(folder / "kept")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], ""),
        (["label=clik"], "label: expected a column 'clik' in .*log.csv, found columns .* Did you mean `click`"),
        (["weight=price * 2"], "weight: expected a column 'price'"),
        (["filter=positon > 1"], "filter: expected a column 'positon' .* Did you mean `position`"),
        (["time=whn"], "time: expected a column 'whn' .* Did you mean `when`"),
        (["fields.1.column=aged"], "fields.age: expected a column 'aged' .* Did you mean `age`"),
        (["split={by: hash, key: usr, valid: 0.1, test: 0.1}"], "split.key: expected a column 'usr'"),
        (["join=[{path: users.csv, on: usr}]"], r"join\.0\.on: expected a column 'usr' in .*users\.csv"),
        (["join=[{path: items.csv, on: stock}]"], r"join\.0\.on: expected a column 'stock' in .*log\.csv"),
        (["join=[{path: users.csv, on: user, select: [agee]}]"], r"join\.0\.select: expected a column 'agee'"),
        (["catalog.context_id=usr"], r"catalog\.context_id: expected a column 'usr' in users.csv"),
        (["catalog.item_id=itm"], r"catalog\.item_id: expected a column 'itm' in items.csv"),
        (["catalog.filter=stok > 0"], r"catalog\.filter: expected a column 'stok' .* Did you mean `stock`"),
        (["catalog.cap={column: brand, items: 2}"], r"catalog\.cap\.column: expected a column 'brand'"),
        (["catalog.fixed={}"], "catalog: field 'position': expected column 'position' in contexts or items"),
        (["catalog.contexts.path=later/{date}.csv", "catalog.context_id=usr"], ""),
        (["catalog.items.path=later.csv", "catalog.item_id=itm"], ""),
    ],
)
def test_columns_that_are_not_there(shop: tuple[Path, Config, Bundle], overrides: list[str], message: str) -> None:
    folder = shop[0]
    config: Any = load_config(folder / "shop.yaml", overrides)
    if not message:
        return require_columns(config, list_files(config.source, config.base))
    with pytest.raises(InputError, match=message):
        require_columns(config, list_files(config.source, config.base))


def test_a_table_may_be_joined_by_a_column_of_another(shop: tuple[Path, Config, Bundle]) -> None:
    (shop[0] / "ages.csv").write_text("age,group\n15,young\n")
    chained = "join=[{path: users.csv, on: user, select: [age]}, {path: ages.csv, on: age}]"
    config = load_config(shop[0] / "shop.yaml", [chained, "filter=group == 'young'", "source.path=ids.csv"])
    (shop[0] / "ids.csv").write_text("user,item,category,tags,when,position,click\n")
    require_columns(config, list_files(config.source, config.base))
