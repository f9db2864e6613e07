"""What a training leaves for people: its page, its card, what the registry tells of the version."""

from __future__ import annotations

import html
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from fieldwise.features.fields.hashed import HashField
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.jobs.cli import parser
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.train.card import Told
from fieldwise.pipelines.train.report import PAGE
from fieldwise.pipelines.train.train import train_model
from tests.snapshots import write_snapshot

NAMES = ("f0", "<b>f1</b>", "f2", "f3")
SHOP = """
name: shop
source: {path: log.csv}
label: "click < 2"
fields: [{name: f0, kind: hash, buckets: 12}, {name: "<b>f1</b>", kind: hash, buckets: 12},
         {name: f2, kind: hash, buckets: 12}, {name: f3, kind: hash, buckets: 12}]
model: {kind: ffm}
training: {batch_size: 256, epochs: 4, threads: 1, auto: false, learning_rate: 0.1, patience: null}
"""


def spec_of() -> FeatureSpec:
    configs = [HashField(kind="hash", name=name, buckets=12) for name in NAMES]
    return FeatureSpec.assemble(configs, {config.name: config.fit(None) for config in configs})


def crossing(slots: np.ndarray) -> np.ndarray:
    """The second and third field decide together, and no field alone; the first says a little."""
    signs = np.where(np.arange(15) % 2, 1.0, -1.0)
    return 1.5 * signs[slots[:, 1]] * signs[slots[:, 2]] + 0.3 * signs[slots[:, 0]] - 0.4


def trained(folder: Path, *overrides: str, logit: Any = crossing) -> dict[str, Any]:
    (folder / "shop.yaml").write_text(SHOP)
    files = {"train": [6000], "valid": [2000], "test": [2000, 2000]}
    write_snapshot(folder / "work/shop/snapshots/all", spec_of(), files, logit=logit)
    result = train_model(load_config(folder / "shop.yaml", list(overrides)))
    assert result is not None
    return result


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


class Tags(HTMLParser):
    """Titles, and what would load something."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.titles, self.loads, self.text = list[str](), list[str](), ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag if tag != "bdi" else self._inside
        self.loads += [tag] if tag in ("script", "link", "img", "iframe") else []
        self.loads += [name for name, value in attributes if name in ("src", "href", "onload")]

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside in ("h2", "h3", "figcaption", "caption") and data.strip():
            self.titles.append(data.strip())
            self._inside = ""


def test_the_page_says_all_that_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = trained(tmp_path)
    page = Path(result["report"])
    assert page.name == PAGE
    assert f"report: {page}" in capsys.readouterr().err
    text = page.read_text()
    tags = Tags(text)
    assert tags.loads == []
    assert tags.titles == [
        "Quality", "Learning curves", "Reliability", "ROC", "Precision by recall", "Logits by class, test",
        "Slices, the worst first", "Fields and pairs of fields", "Share of the logits' variance",
        "Pairs; the diagonal: fields alone", "Strongest pairs", "Data", "Speed and memory", "Epochs",
        "To make it again",
    ]  # fmt: skip
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "<b>f1" not in text
    assert "&lt;b&gt;f1&lt;/b&gt;" in text
    strongest = text[text.index("Strongest pairs") :]
    assert strongest.index("&lt;b&gt;f1&lt;/b&gt; x f2") < strongest.index("%"), "the planted pair comes first"
    cells = re.findall(r'fill-opacity="([\d.]+)"[^>]*><title>([^<]*) x ([^<]*): ', text)
    deepest = max(cells, key=lambda cell: float(cell[0]))
    assert {html.unescape(name) for name in deepest[1:]} == {"<b>f1</b>", "f2"}, "and is the deepest cell"
    assert len(text) < 300_000


def test_the_command_makes_the_same_model_again(tmp_path: Path) -> None:
    first = trained(tmp_path, "training.seed=7", "training.epochs=1")
    text = Tags(Path(first["report"]).read_text()).text
    whole = shlex.join(["fieldwise", "train", "--config", str(tmp_path / "shop.yaml"), "--set", "training.seed=7",
                        "--set", "training.epochs=1"])  # fmt: skip
    assert whole in text
    options = parser().parse_args(shlex.split(whole)[1:])
    again = train_model(load_config(options.config, options.overrides), name="again")
    assert again is not None
    assert again["bundle_digest"] == first["bundle_digest"]


def test_rare_labels_and_models_without_shares(tmp_path: Path) -> None:
    result = trained(tmp_path, "model.kind=deepfm", "training.epochs=2", logit=lambda slots: crossing(slots) - 4.0)
    tags = Tags(Path(result["report"]).read_text())
    assert "Reliability, in powers of ten" in tags.titles
    assert "no sum over fields and pairs of fields" in tags.text
    assert "Strongest pairs" not in tags.titles


def test_versions_tell_what_they_are(tmp_path: Path) -> None:
    result = trained(tmp_path)
    child = train_model(load_config(tmp_path / "shop.yaml", ["training.epochs=1"]), init="models:/shop/1")
    assert child is not None
    client = MlflowClient()
    first, second = (client.get_model_version("shop", version) for version in ("1", "2"))
    assert first.tags["fieldwise.kind"] == "ffm"
    assert first.tags["fieldwise.test.auc"] == f"{result['metrics']['test']['auc']:.5f}"
    assert first.tags["fieldwise.snapshot"].startswith("all ")
    assert "fieldwise.parent" not in first.tags
    assert second.tags["fieldwise.parent"] == "models:/shop/1"
    logloss = result["metrics"]["test"]["logloss"]
    assert f"On test: logloss {logloss:.5f} (" in first.description
    names = {file.path for file in client.list_artifacts(result["run"])}
    assert {"report.html", "model_card.md"} <= names
    card = Path(result["report"]).with_name("model_card.md").read_text()
    assert "## Limits" in card
    assert f"| test | 4,000 | {result['metrics']['test']['positives']:,.0f} | {logloss:.5f} ±" in card
    assert r"\<b\>f1\</b\>" in card
    assert "`click < 2`" in card
    experiment = client.get_experiment_by_name("shop")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_a_description_needs_no_more_than_the_result() -> None:
    metrics = {"logloss": 0.5, "logloss_se": float("nan"), "auc": float("nan"), "rows": 1, "positives": 0}
    told = Told({"kind": "lr", "metrics": {"valid": metrics}, "init": {"digest": "a" * 64, "version": None}})
    assert told.tags == {"fieldwise.kind": "lr", "fieldwise.parent": "a" * 12, "fieldwise.valid.logloss": "0.50000"}
    assert told.description.startswith("lr trained on snapshots from aaaaaaaaaaaa. On valid: logloss 0.50000.")
