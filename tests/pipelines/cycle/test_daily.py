"""A date that was done says when its source has changed since."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.cycle.record import Record
from fieldwise.pipelines.cycle.start import say_changed_sources, sources_of
from fieldwise.pipelines.unchanged import changes
from tests.pipelines.shop import shop_config, write_shop

DAYS = ["2026-01-01", "2026-01-02"]


@pytest.fixture
def shop(tmp_path: Path) -> Config:
    """A file a day, two done."""
    write_shop(tmp_path)
    shop_config(tmp_path)
    for day in DAYS:
        (tmp_path / f"log-{day}.csv").write_bytes((tmp_path / "log.csv").read_bytes())
    document = yaml.safe_load((tmp_path / "shop.yaml").read_text())
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(document | {"source": {"path": "log-{date}.csv"}}))
    return load_config(tmp_path / "shop.yaml", [f"workspace={tmp_path}/other"])


def done(config: Config) -> Record:
    record = Record(config.workspace_dir, DAYS[1])
    record.step("champion", lambda: "models:/shop/1")
    record.step("sources", lambda: sources_of(config, [DAYS[1]]))
    record.step("today", lambda: {"dir": f"{config.workspace_dir}/snapshots/{DAYS[1]}"})
    record.step("done", lambda: True)
    return Record(config.workspace_dir, DAYS[1])


def test_changed_files_are_told_with_the_commands_that_take_them_in(
    shop: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    record = done(shop)
    say_changed_sources(shop, record, DAYS[1])
    assert "warning" not in capsys.readouterr().err
    changed = Path(shop.base, f"log-{DAYS[1]}.csv")
    size = changed.stat().st_size
    changed.write_text(changed.read_text() + "u001,20,i001,a,,2026-01-01T00:00:00,1,1\n")
    say_changed_sources(shop, record, DAYS[1])
    place = f"{shop.workspace_dir}/snapshots/{DAYS[1]}"
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"warning: {DAYS[1]} was done, and what was built stays, but its source has changed since: {changed.name} was "
        f"written again ({size:,} bytes then, {changed.stat().st_size:,} now). To do it anew: `fieldwise features "
        f"--config {shop.file} --set workspace={shop.workspace_dir} --date {DAYS[1]} --spec {place} --replace`, remove "
        f"{record.path}, and run the same `fieldwise daily` again."
    )


def test_a_source_that_is_no_longer_kept_is_said(shop: Config, capsys: pytest.CaptureFixture[str]) -> None:
    record = done(shop)
    os.remove(Path(shop.base, f"log-{DAYS[1]}.csv"))
    say_changed_sources(shop, record, DAYS[1])
    assert "whether the source has changed since 2026-01-02 was done is not known: " in capsys.readouterr().err


def test_changes_of_files() -> None:
    before = [["a", "5:1"], ["b", "5:1"], ["c", "5:1"], ["d", "5:1"]]
    now = [["a", "5:1"], ["b", "5:2"], ["c", "1500:2"], ["e", "1:1"]]
    assert changes(before, before) == []
    assert changes(before, now) == [
        "d is gone", "e is new", "b was written again (of the same size)",
        "c was written again (5 bytes then, 1,500 now)",
    ]  # fmt: skip
