"""Twelve poisonings of a small log, each named; ordinary days, of which none is."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fieldwise.features.errors import (
    ArtifactError,
    BusyError,
    ClusterError,
    ConfigError,
    FieldwiseError,
    InputError,
    RefusedError,
)
from fieldwise.features.report.drift import Distribution
from fieldwise.features.report.report import Day as Counted
from fieldwise.features.report.report import FieldReport, Report, Tally
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.config.suspicion import SuspicionConfig
from fieldwise.pipelines.cycle.suspicion import Day, Finding, findings, model_findings, refused_day
from fieldwise.training.evaluation.metrics import Metrics

DEFAULT = SuspicionConfig()
DATES = [f"2026-01-0{day}" for day in range(1, 8)]
POISONED = DATES[-1]
COLUMNS = ["click", "user", "item", "city", "price", "at"]
Table = dict[str, np.ndarray]


def table(day: int, rows: int = 400) -> Table:
    """The rows of one day, in the order of their moments."""
    draw = np.random.default_rng(day)
    seconds = np.sort(draw.integers(0, 86_400, rows))
    start = np.datetime64(DATES[day], "s")
    return {
        "click": (draw.random(rows) < 0.2).astype(int),
        "user": np.array([f"u{n}" for n in draw.integers(0, 50, rows)]),
        "item": np.array([f"i{n}" for n in draw.zipf(1.5, rows) % 30]),
        "city": draw.choice(["", "rome", "oslo", "lima"], rows, p=[0.02, 0.4, 0.3, 0.28]),
        "price": draw.lognormal(3, 1, rows).round(2),
        "at": start + seconds,
    }


def text(rows: Table) -> str:
    names = list(rows)
    return "\n".join([",".join(names), *(",".join(map(str, row)) for row in zip(*rows.values(), strict=True))]) + "\n"


def shifted(by: str) -> Callable[[Table], Table]:
    return lambda rows: rows | {"at": rows["at"] + np.timedelta64(int(by[:-1]), by[-1])}  # type: ignore[call-overload]


def tripled(rows: Table) -> Table:
    """A click rate of 60 % by leaving out other rows."""
    clicks = int(rows["click"].sum())
    kept = (rows["click"] == 1) | (np.cumsum(rows["click"] == 0) <= clicks * 2 // 3)
    more = {name: np.concatenate([values[kept]] * 3)[: len(kept)] for name, values in rows.items()}
    return more | {"user": np.array([f"u{n}" for n in np.random.default_rng(9).integers(0, 50, len(kept))])}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("suspicion")
    for day, date in enumerate(DATES):
        (place / f"log-{date}.csv").write_text(text(table(day)))
    return place


def config_of(place: Path, workspace: str = "work") -> Config:
    document: dict[str, Any] = {
        "name": "log", "workspace": workspace, "source": {"path": "log-{date}.csv"}, "label": "click", "time": "at",
        "fields": [
            {"name": "user", "kind": "vocabulary", "min_count": 1},
            {"name": "item", "kind": "vocabulary", "min_count": 1},
            {"name": "city", "kind": "hash", "buckets": 16},
            {"name": "price", "kind": "number", "edges": [5, 10, 20, 35, 60, 100]},
        ],
        "model": {"kind": "lr"},
    }  # fmt: skip
    (place / "log.yaml").write_text(yaml.safe_dump(document))
    return load_config(place / "log.yaml")


@pytest.fixture(scope="module")
def recent(place: Path) -> list[Day]:
    """Six sound days under the first one's spec."""
    config = config_of(place)
    spec = None
    days = []
    for date in DATES[:-1]:
        built = build_features(config, date=date, spec=spec)
        spec = spec or built["dir"]
        days.append(Day.open(config, date, built["dir"]))
    return days


def judged(place: Path, recent: list[Day], written: str) -> list[Finding]:
    """Of the last date, its file written anew."""
    (place / f"log-{POISONED}.csv").write_text(written)
    config = config_of(place)
    spec = f"{place}/work/snapshots/{DATES[0]}"
    try:
        built = build_features(config, date=POISONED, spec=spec, replace=True)
    except FieldwiseError as error:
        return [refused_day(error)]
    return findings(Day.open(config, POISONED, built["dir"]), recent, DEFAULT)


def test_ordinary_days_are_not_suspicious(place: Path, recent: list[Day]) -> None:
    assert judged(place, recent, text(table(6))) == []
    for k in range(1, 6):
        assert findings(recent[k], recent[:k], DEFAULT, expected=recent[0].report.distribution) == []


POISONS: dict[str, tuple[Callable[[Table], Table], str]] = {
    "labels flipped": (lambda t: t | {"click": 1 - t["click"]}, r"label rate 79\.\d+%, recent days 1\d.*% to 2\d.*%"),
    "a field emptied": (lambda t: t | {"city": np.full(400, "")}, r"field 'city': 100.00% missing, recent days .*%"),
    "prices x1000": (lambda t: t | {"price": t["price"] * 1000}, r"field 'price': values moved by .*, recent days by"),
    "all ids unseen": (lambda t: t | {"user": np.array([f"x{n}" for n in t["user"]])},
                       r"field 'user': 100.00% unseen, recent days 0.00%"),
    "rows duplicated": (lambda t: {name: np.repeat(values, 2) for name, values in t.items()},
                        r"51.25% of the rows repeat another one, recent days 0.75% to 3.75%"),
    "positive rate x3": (tripled, r"label rate 59.5000%, recent days 19.0000% to 22.5000%"),
    "clock +7 h": (shifted("7h"), r"31.75% of the rows have moments outside 2026-01-07, recent days 0.00%"),
    "last year": (shifted("-365D"), r"100.00% of the rows have moments outside 2026-01-07, recent days 0.00%"),
    "one class": (lambda t: t | {"click": t["click"] * 0},
                  r"label rate 0.0000%, all 400 rows of one class, recent days 1\d"),
    "no rows": (lambda t: {name: values[:0] for name, values in t.items()},
              "source: expected rows, found none"),
    "column gone": (lambda t: {name: values for name, values in t.items() if name != "price"}, "'price'"),
}  # fmt: skip


@pytest.mark.parametrize("poison", POISONS)
def test_a_poisoned_day_is_named(place: Path, recent: list[Day], poison: str) -> None:
    change, words = POISONS[poison]
    found = judged(place, recent, text(change(table(6))))
    assert re.search(words, "\n".join(map(str, found))), found
    assert all("\n" not in str(finding) for finding in found)


def test_a_cut_file_is_named(place: Path, recent: list[Day]) -> None:
    whole = text(table(6))
    (found,) = judged(place, recent, whole[: len(whole) * 2 // 5])
    assert "1 of 160 (0.6250%): bad_time of time: 1 row, such as '2026-01' at" in found.words
    found, *_ = judged(place, recent, "".join(whole.splitlines(keepends=True)[:161]))  # between two rows
    assert found == Finding("rows", "", "160 rows, recent days 400")


def test_a_file_without_a_byte_is_named(place: Path, recent: list[Day]) -> None:
    (found,) = judged(place, recent, "")
    assert found.check == "build"
    assert f"in {place}/log-{POISONED}.csv, found no line that names any" in found.words


def report(label: list[int], fields: dict[str, list[int]], days: list[Counted] | None = None, **more: Any) -> Report:
    """Of counts by label, and of each field's missing, unseen and values."""
    tallies = {
        name: Tally(values=sum(c), missing=c[0], unseen=c[1], used=1, top=[], groups=c) for name, c in fields.items()
    }
    kinds = {name: FieldReport(kind="hash", tally=t, distinct=1, buckets=None, top=[]) for name, t in tallies.items()}
    return Report(
        rows=sum(label), fields=kinds, days=days or [],
        distribution=Distribution(spec_digest="s", label=label, fields=fields), drift=None, **more,
    )  # fmt: skip


def drawn(draw: np.random.Generator, rate: float, rows: int, unseen: float = 0.1) -> Report:
    """An ordinary day: nothing but binomial noise."""
    values = [0.02, unseen, *((0.98 - unseen) * np.array([0.4, 0.3, 0.2, 0.1]))]
    clicks = int(draw.binomial(rows, rate))
    fields = {name: draw.multinomial(rows, values).tolist() for name in "abc"}
    return report([rows - clicks, clicks], fields, repeated=int(draw.binomial(rows, 0.03)))


@pytest.mark.parametrize("rows", [20, 300, 100_000])
@pytest.mark.parametrize("k", [1, 3, 14])
def test_binomial_noise_raises_no_finding_on_99_of_100_days(rows: int, k: int) -> None:
    alarms = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        *recent, today = [Day(f"{n}", drawn(draw, 0.1, int(draw.integers(rows, 2 * rows)))) for n in range(k + 1)]
        alarms += bool(findings(today, recent, DEFAULT))
    assert alarms <= 2


def test_a_day_of_few_users_may_lie_farther() -> None:
    """Each user has a rate of his own, so that 2 of them differ more from all than 20 do."""

    def day(draw: np.random.Generator, users: int) -> Day:
        clicks = int(draw.binomial(50, draw.random(users)).sum())
        return Day("", report([50 * users - clicks, clicks], {}))

    alarms = 0
    for seed in range(200):
        draw = np.random.default_rng(seed)
        recent = [day(draw, 20) for _ in range(14)]
        alarms += any(found.check == "label rate" for found in findings(day(draw, 2), recent, DEFAULT))
    assert alarms <= 2


@given(st.floats(0.005, 0.6), st.integers(0, 10_000))
def test_values_that_become_new_day_by_day_are_drift(step: float, seed: int) -> None:
    """Of what was known, ``step`` goes each day: unseen values rise towards all of them."""
    draw = np.random.default_rng(seed)
    days = [Day(f"{n}", drawn(draw, 0.2, 2000, 0.97 * (1 - (1 - step) ** n))) for n in range(12)]
    stopped = [n for n in range(3, 12) if findings(days[n], days[:n], DEFAULT)]
    assert stopped == []


def test_a_rare_positive_rate_times_a_hundred_is_named() -> None:
    draw = np.random.default_rng(0)
    *recent, today = [Day(f"{n}", drawn(draw, 0.005, 5000)) for n in range(8)]
    assert findings(today, recent, DEFAULT) == []
    (found,) = findings(Day("8", drawn(draw, 0.5, 5000)), recent, DEFAULT)
    assert str(found) == "label rate 51.0600%, recent days 0.3600% to 0.5800%"


def test_without_recent_days_the_training_rows_stand_in() -> None:
    draw = np.random.default_rng(0)
    training = drawn(draw, 0.2, 50_000).distribution
    assert findings(Day("1", drawn(draw, 0.25, 2000)), [], DEFAULT, expected=training) == []
    assert findings(Day("1", drawn(draw, 0.25, 2000)), [], DEFAULT) == []
    emptied = report([1500, 500], {"a": [2000, 0, 0, 0, 0, 0], "b": [40, 200, 784, 588, 392, 196]})
    assert [str(found) for found in findings(Day("1", emptied), [], DEFAULT, expected=training)] == [
        "field 'a': 100.00% missing, training rows 2.01%"
    ]
    (single,) = findings(Day("1", report([300, 0], {})), [], DEFAULT)
    assert str(single) == "label rate 0.0000%: 300 rows of one class only"
    other = report([240, 60], {}, days=[Counted(day="2026-01-02", rows=300, positives=60, rate=0.2)])
    (outside,) = findings(Day("2026-01-03", other), [], DEFAULT)
    assert str(outside) == "100.00% of the rows have moments outside 2026-01-03"
    assert findings(Day("2026-01-03", other, since="2026-01-02"), [], DEFAULT) == []  # labels a day late


def test_reports_of_another_spec_and_older_ones_say_what_they_can() -> None:
    draw = np.random.default_rng(0)
    days = [Day(f"{n}", drawn(draw, 0.2, 2000)) for n in range(8)]
    older = []
    for day in days:
        others = day.report.distribution.model_copy(update={"spec_digest": "former"})
        older.append(Day(day.date, day.report.model_copy(update={"distribution": others, "repeated": None})))
    today = report([1600, 400], {name: [40, 1900, 60, 0, 0, 0] for name in "abc"}, repeated=1000)
    assert findings(Day("9", today), older, DEFAULT) == []
    assert [found.check for found in findings(Day("9", today), days, DEFAULT)] == ["repeated rows", *["unseen"] * 3]


def test_the_first_of_a_month_is_no_finding_and_another_hour_is() -> None:
    def at(part: int, of: int, kind: str) -> Report:
        made = report([800, 200], {"when": [0, 0, *(1000 * (np.arange(of) == part)).tolist()]})
        return made.model_copy(update={"fields": {"when": made.fields["when"].model_copy(update={"kind": kind})}})

    january = [Day(f"2026-01-{n}", at(0, 12, "time")) for n in range(20, 32)]
    assert findings(Day("2026-02-01", at(1, 12, "time")), january, DEFAULT) == []
    assert findings(Day("2026-02-01", at(1, 12, "hash")), january, DEFAULT) != []
    noon = [Day(f"2026-01-{n}", at(12, 24, "time")) for n in range(20, 32)]
    (found,) = findings(Day("2026-02-01", at(19, 24, "time")), noon, DEFAULT)
    assert found.field == "when"


def test_mistakes_of_a_day_are_findings_and_those_of_a_config_are_not() -> None:
    said = {"expected": "a", "found": "b", "fix": "c."}
    assert str(refused_day(InputError("log.csv", **said))) == "log.csv: expected a, found b"
    assert refused_day(RefusedError("source", **said)).check == "build"
    for other in (ConfigError, ArtifactError, ClusterError, BusyError):
        with pytest.raises(other):
            refused_day(other("x", **said))


def metrics(labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    found = Metrics()
    found.add(logits.astype(np.float32), labels.astype(np.float32))
    return {"rows": found.rows, "positives": found.positives} | found.values()


def champion_on(draw: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of a calibrated champion on a balanced day."""
    logits = draw.normal(0, 1.2, rows)
    return (draw.random(rows) < 1 / (1 + np.exp(-logits))).astype(float), logits


def test_flipped_labels_of_a_balanced_log_show_in_the_champions_metrics() -> None:
    draw = np.random.default_rng(1)
    recent = [metrics(*champion_on(draw, 1000)) for _ in range(5)]
    labels, logits = champion_on(draw, 1000)
    assert abs(labels.mean() - 0.5) < 0.05
    assert model_findings(metrics(labels, logits), recent, DEFAULT) == []
    flipped = metrics(1 - labels, logits)
    assert [str(found) for found in model_findings(flipped, recent, DEFAULT)] == [
        "the champion's AUC 0.2205, recent days 0.7546 to 0.7804",
        "the champion's normalized entropy 1.6341, recent days 0.8157 to 0.8448",
    ]
    assert [str(found) for found in model_findings(flipped, [], DEFAULT)] == [
        "the champion's AUC 0.2205, 0.5 is what chance gives"
    ]
    assert model_findings(metrics(labels * 0, logits), recent, DEFAULT) == []  # its label rate says it


@cache
def healthy_days(rows: int) -> list[dict[str, float]]:
    """The champion's metrics on many days."""
    draw = np.random.default_rng(rows)
    return [metrics(*champion_on(draw, rows)) for _ in range(214)]


@pytest.mark.parametrize("rows", [10, 100, 3000])
@pytest.mark.parametrize("k", [0, 3, 14])
def test_chance_in_the_champions_metrics_is_no_finding(rows: int, k: int) -> None:
    days = healthy_days(rows)
    alarms = sum(bool(model_findings(days[n + k], days[n : n + k], DEFAULT)) for n in range(200))
    assert alarms <= 2
