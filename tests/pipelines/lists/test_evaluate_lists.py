"""Published lists against what happened afterwards: equal to plain Python, however the work is cut."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fieldwise.features.errors import ConfigError, InputError
from fieldwise.pipelines.build.features import build_features
from fieldwise.pipelines.config.lists import ListsConfig
from fieldwise.pipelines.config.load import load_config
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.lists.asked import by_training
from fieldwise.pipelines.lists.evaluate_lists import evaluate_lists
from fieldwise.training.evaluation.ranking import metric_names, ranking
from tests.pipelines.shop import shop_config, write_shop

CUTOFFS = [1, 3, 12]
FIRST, LAST = "2026-01-06", "2026-01-07"
TIME = {"column": "when", "zone": "UTC"}
Row = dict[str, str]


def config_of(folder: Path, *, lists: dict[str, Any] | None = None, **more: Any) -> Config:
    """The shop's, with days and slices."""
    shop_config(folder, **more.pop("catalog", {}))
    document = yaml.safe_load((folder / "shop.yaml").read_text())
    document |= {"time": TIME, "lists": {"cutoffs": CUTOFFS, **(lists or {})}, **more}
    (folder / "shop.yaml").write_text(yaml.safe_dump(document))
    return load_config(folder / "shop.yaml")


def write_lists(folder: Path, seed: int = 3) -> dict[str, list[str]]:
    """Lists of most users: some repeat an item, some name one that is not in the catalog, ranks have gaps."""
    draw = np.random.default_rng(seed)
    lists = {f"u{u:03d}": [f"i{i:03d}" for i in draw.integers(0, 65, 8)] for u in range(38) if u % 6}
    rows = [(user, 2 * at + 3, item) for user, items in lists.items() for at, item in enumerate(items)]
    columns = zip(*draw.permutation(np.array(rows, object)).tolist(), strict=True)
    names = ["context_id", "rank", "item_id"]
    (folder / "lists").mkdir()
    pq.write_table(pa.table(dict(zip(names, columns, strict=True))), folder / "lists" / "a.parquet", row_group_size=50)
    return lists


def rows_of(path: Path) -> list[Row]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


class Plain:
    """The same in plain Python."""

    def __init__(self, folder: Path, lists: dict[str, list[str]], excluded: set[tuple[str, str]] = frozenset()) -> None:  # type: ignore[assignment]
        log = rows_of(folder / "log.csv")
        self.before = [row for row in log if row["when"] < FIRST]
        self.after = [row for row in log if row["when"] >= FIRST and row["click"] == "1"]
        self.items = sorted(row["item"] for row in rows_of(folder / "items.csv"))
        self.wanted = [row["item"] for row in self.before if row["click"] == "1"]
        popular = sorted(self.items, key=lambda item: (-self.wanted.count(item), item))
        pairs = sorted({(row["user"], row["item"]) for row in self.after})
        self.users = sorted({user for user, _ in pairs})
        self.pairs = pairs
        lists = {user: lists.get(user, []) for user in self.users}
        best = {user: [item for item in popular if (user, item) not in excluded] for user in self.users}
        self.places = {
            "lists": [lists[u].index(i) + 1 if i in lists[u] else 0 for u, i in pairs],
            "popularity": [best[u].index(i) + 1 if i in best[u] else 0 for u, i in pairs],
        }

    def mean(
        self, system: str, kept: Sequence[bool] | None = None, gains: Sequence[float] | None = None
    ) -> list[float]:
        """Over the pairs that are kept."""
        chosen = np.flatnonzero(np.ones(len(self.pairs)) if kept is None else kept)
        users, context = np.unique([self.pairs[at][0] for at in chosen], return_inverse=True)
        gain = np.ones(len(chosen)) if gains is None else np.array(gains)[chosen]
        place = np.array(self.places[system])[chosen]
        return ranking(context, place, gain, CUTOFFS, len(users)).mean(0).tolist()


def values(metrics: dict[str, Any], system: str) -> list[float]:
    return [metrics[name][system]["value"] for name in metric_names(CUTOFFS)]


def told(result: dict[str, Any]) -> dict[str, Any]:
    return json.loads((Path(result["dir"]) / "lists.json").read_text())


def evaluated(config: Config, **more: Any) -> dict[str, Any]:
    return evaluate_lists(config, first=FIRST, last=LAST, lists="lists", **more)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    write_shop(tmp_path, rows=1500)
    return tmp_path


def test_equals_plain_python(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = write_lists(shop)
    excluded = {(f"u{u:03d}", f"i{(u * 7 + n) % 60:03d}") for u in range(40) for n in range(9)}
    (shop / "bought.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in sorted(excluded)))
    config = config_of(
        shop,
        lists={"item_slices": ["category"], "context_slices": ["age"]},
        catalog={"exclude": {"path": "bought.csv"}},
    )
    found = told(evaluated(config))
    plain = Plain(shop, lists, excluded)
    for system in ("lists", "popularity"):
        assert values(found["metrics"], system) == pytest.approx(plain.mean(system), abs=1e-9)
    assert found["counts"]["contexts"] == len(plain.users)
    assert found["counts"]["pairs"] == len(plain.pairs)
    assert found["counts"]["lists"] == len(lists)
    assert found["counts"]["repeated"] == sum(len(of) - len(set(of)) for of in lists.values()) > 0
    assert found["counts"]["outside"] == len({(u, i) for u, of in lists.items() for i in of if i > "i059"}) > 0

    slices = {each["slice"]: each for each in found["slices"]}
    category = {row["item"]: row["category"] or "missing" for row in rows_of(shop / "items.csv")}
    age = {row["user"]: row["age"] or "missing" for row in rows_of(shop / "users.csv")}
    known = {row["user"] for row in plain.before}
    cases = [(f"items.category = {v}", [category[i] == v for _, i in plain.pairs]) for v in ("a", "b", "c", "missing")]
    cases += [(f"contexts.age = {v}", [age[u] == v for u, _ in plain.pairs]) for v in ("15", "33", "missing")]
    cases += [("contexts = with a list", [u in lists for u, _ in plain.pairs])]
    cases += [("contexts = known", [u in known for u, _ in plain.pairs])]
    for name, kept in cases:
        assert values(slices[name], "lists") == pytest.approx(plain.mean("lists", kept), abs=1e-9), name
        assert values(slices[name], "popularity") == pytest.approx(plain.mean("popularity", kept), abs=1e-9), name

    shown = [i for of in lists.values() for at, i in enumerate(of) if at < 3 and i not in of[:at] and i <= "i059"]
    assert found["exposure"]["coverage@3"] == len(set(shown)) / 60
    assert found["exposure"]["popularity@3"] == pytest.approx(np.mean([plain.wanted.count(i) for i in shown]))


def test_new_contexts_and_items_apart(shop: Path) -> None:
    write_shop(shop, rows=400)
    lists = write_lists(shop)
    config = config_of(shop, lists={"history_days": 1})
    found = told(evaluated(config))
    plain = Plain(shop, lists)
    yesterday = [row for row in plain.before if row["when"] >= "2026-01-05"]
    users, items = ({row[name] for row in yesterday} for name in ("user", "item"))
    slices = {each["slice"]: each for each in found["slices"]}
    for name, kept in {
        "contexts = new": [u not in users for u, _ in plain.pairs],
        "contexts = known": [u in users for u, _ in plain.pairs],
        "items = new": [i not in items for _, i in plain.pairs],
        "items = known": [i in items for _, i in plain.pairs],
    }.items():
        assert values(slices[name], "lists") == pytest.approx(plain.mean("lists", kept), abs=1e-9), name


def test_a_table_of_events_with_gains(shop: Path) -> None:
    """Of a pair that comes twice the larger gain counts, and one of gain 0 was not wanted."""
    lists = write_lists(shop)
    plain = Plain(shop, lists)
    draw = np.random.default_rng(1)
    gains = draw.integers(1, 6, len(plain.pairs))
    rows = [f"{u},{i},{g}" for (u, i), g in zip(plain.pairs, gains, strict=True)]
    rows += [f"{u},{i},0.5" for u, i in plain.pairs] + ["u001,i059,0", "u999,i000,-1"]  # once more, for less
    (shop / "after.csv").write_text("who,what,stars\n" + "\n".join(draw.permutation(rows)) + "\n")
    log = [f"{row['user']},{row['item']}" for row in plain.before if row["click"] == "1"]
    (shop / "before.csv").write_text("user,item\n" + "\n".join(log) + "\n")
    events = {"path": "after.csv", "context": "who", "item": "what"}
    config = config_of(shop, lists={"events": events, "history": {"path": "before.csv"}, "gain": "stars"})
    found = told(evaluate_lists(config, lists="lists"))
    for system in ("lists", "popularity"):
        expected = plain.mean(system, gains=gains.astype(float).tolist())
        assert values(found["metrics"], system) == pytest.approx(expected, abs=1e-9)


@pytest.mark.usefixtures("spark")
def test_the_same_bytes_however_it_is_cut_on_either_engine(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lists(shop)
    config = config_of(shop, lists={"item_slices": ["category"]})
    whole = Path(evaluated(config)["dir"], "lists.json").read_bytes()
    monkeypatch.setattr("fieldwise.pipelines.lists.evaluate_lists.RANGE_BYTES", 3000)
    monkeypatch.setattr("fieldwise.pipelines.lists.evaluate_lists._MOST_PLACES", 1)
    for engine in ("local", "spark"):
        again = config.model_copy(update={"engine": engine})
        assert Path(evaluated(again)["dir"], "lists.json").read_bytes() == whole


def test_days_that_training_has_seen_are_warned_of(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lists(shop)
    config = config_of(shop, lists={"cutoffs": None}, split={"by": "time", "valid": 0.1, "test": 0.2})
    build_features(config)
    trained, unseen = by_training(config)
    assert trained
    assert unseen
    assert max(trained) < unseen[0] <= unseen[-1] == "2026-01-07"
    with pytest.raises(ConfigError, match=f"Name them: --from {unseen[0]} --to {unseen[-1]}, which training has not"):
        evaluate_lists(config, lists="lists")
    found = evaluate_lists(config, lists="lists", first=unseen[-1])
    assert found["cutoffs"] == [5]  # catalog.k is 7
    assert "was trained on" not in capsys.readouterr().err
    evaluate_lists(config, lists="lists", first=min(trained), last=unseen[0])
    told = f"trained on rows of {min(trained)} and later: measured by what it has learned, its lists look better"
    assert told in capsys.readouterr().err


def test_the_verdict_and_what_may_help(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_lists(shop)  # of random items
    config = config_of(shop)
    found = evaluated(config)
    said = capsys.readouterr().err
    by, gap = found["by"], found["metrics"][found["by"]]["over_popularity"]
    assert gap["low"] <= 0
    how = "worse than" if gap["high"] < 0 else "no better, beyond chance, than"
    assert f"the lists are {how} the most popular items: {by} {gap['value']:+.5f}" in said
    assert said.count("negatives:") == 1
    lines = said.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("    filter:"))
    block = yaml.safe_load("\n".join(line[4:] for line in lines[at : at + 2]))
    assert block["negatives"]["exclude"] is None
    page = (Path(found["dir"]) / "report.html").read_text()
    assert "Over the most popular items" in page
    plain = yaml.safe_load((shop / "shop.yaml").read_text())
    (shop / "shop.yaml").write_text(yaml.safe_dump(plain | block))
    evaluated(load_config(shop / "shop.yaml"))
    said = capsys.readouterr().err
    assert "negatives:" not in said
    assert "exclude: seen" not in said
    block["negatives"].pop("exclude")
    (shop / "shop.yaml").write_text(yaml.safe_dump(plain | block))
    evaluated(load_config(shop / "shop.yaml"))
    assert "negatives.exclude: seen leaves out what contexts did on these days" in capsys.readouterr().err


def test_lengths_are_those_of_the_lists() -> None:
    assert ListsConfig().lengths(100) == [5, 10, 20]
    assert ListsConfig().lengths(10) == [5, 10]
    assert ListsConfig().lengths(3) == [3]
    assert ListsConfig(cutoffs=[50]).lengths(10) == [50]


def test_days_and_what_is_missing(shop: Path) -> None:
    write_lists(shop)
    config = config_of(shop)
    with pytest.raises(ConfigError, match="expected the days that the lists are measured on"):
        evaluate_lists(config, lists="lists")
    with pytest.raises(ConfigError, match="--to: expected a day from 2026-01-06 on"):
        evaluate_lists(config, lists="lists", first=FIRST, last="2026-01-01")
    with pytest.raises(InputError, match=r"pairs that happened after the lists.*none among 0 rows"):
        evaluate_lists(config, lists="lists", first="2027-01-01")
    with pytest.raises(InputError, match="expected a column 'colour'"):
        evaluated(config_of(shop, lists={"item_slices": ["colour"]}))
    write_shop(shop, items=300, rows=1500)
    with pytest.raises(ConfigError, match=r"lists\.item_slices: expected columns of at most 200 values"):
        evaluated(config_of(shop, lists={"item_slices": ["item"]}))
