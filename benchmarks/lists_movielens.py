"""Lists from positives alone: FM and FFM with sampled negatives beside popularity and implicit's ALS and BPR.

    python -m venv /tmp/implicit && /tmp/implicit/bin/pip install implicit
    python benchmarks/lists_movielens.py --implicit-python /tmp/implicit/bin/python

MovieLens 100K, ratings of 4 and more, no others. Three periods by whole days: about 80 % of the rows, the next tenth
(valid) and the last (test). Every system learns from the rows before a period, lists the ``K`` best of all films that a
user does not have there, for every user, and is measured by `evaluate-lists` on the period's rows: full-catalog NDCG@10
and recall@20. A user without rows before the period gets popular films from ALS and BPR, who cannot know any better.

Settings are chosen on valid alone: all of ``OURS``, ``MORE`` and ``THEIRS`` learn from the first period, and the one
with the best NDCG@10 of each system learns again from the first two and is measured on test.

valid    by system and setting: NDCG@10 and recall@20 of all users
test     by system: [value, low, high] (95 %, bootstrap over users) of all users with a wanted film, and of those who
         were there before (known)
past     whether FFM's NDCG@10 and recall@20 on test are above those of ALS, and of BPR
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import record  # noqa: E402
from fieldwise.features.spark.session import spark_session  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.build.features import build_features  # noqa: E402
from fieldwise.pipelines.catalog.score_catalog import score_catalog  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.lists.evaluate_lists import evaluate_lists  # noqa: E402
from fieldwise.pipelines.ranks.launch import Days  # noqa: E402
from fieldwise.pipelines.train.train import train_model  # noqa: E402
from fieldwise.training.models.defaults import settle  # noqa: E402

K = 20
METRICS = ("ndcg@10", "recall@20")
OURS = [
    {"by": by, "per_positive": count, "epochs": epochs}
    for by, count, epochs in (("popularity^0.75", 4, 10), ("uniform", 4, 10), ("uniform", 4, 30), ("uniform", 16, 10))
]
"""Of FM and FFM alike; learning rate, l2 and dim are the model's own."""
MORE = [
    {"by": "uniform", "per_positive": 16, "epochs": 10, "prior": 3.0},
    {"by": "uniform", "per_positive": 16, "epochs": 10, "prior": 0.3},
    {"by": "uniform", "per_positive": 64, "epochs": 5},
]
"""Of FFM: times the model's own l2, and more negatives."""
THEIRS = {
    "als": [{"factors": f, "regularization": r, "alpha": a, "iterations": 15}
            for f, r, a in product((8, 16, 32), (0.1, 10.0), (1.0, 10.0))],
    "bpr": [{"factors": f, "learning_rate": 0.05, "regularization": r, "iterations": n}
            for f, r, n in product((16, 64), (0.01, 0.1), (50, 150))],
}  # fmt: skip
IMPLICIT = """
import json, sys
import numpy as np, scipy.sparse as sp
from implicit.als import AlternatingLeastSquares
from implicit.bpr import BayesianPersonalizedRanking
asked = json.load(sys.stdin)
pairs = [line.split(",")[:2] for line in open(asked["log"]).read().splitlines()[1:]]
items = asked["items"]
place = {item: at for at, item in enumerate(items)}
users = sorted({user for user, _ in pairs})
row = {user: at for at, user in enumerate(users)}
matrix = sp.csr_matrix(
    (np.ones(len(pairs), np.float32), ([row[u] for u, _ in pairs], [place[i] for _, i in pairs])),
    shape=(len(users), len(items)))
kind = {"als": AlternatingLeastSquares, "bpr": BayesianPersonalizedRanking}[asked["system"]]
model = kind(**asked["setting"], random_state=7, num_threads=1)
model.fit(matrix, show_progress=False)
best, _ = model.recommend(np.arange(len(users)), matrix, N=asked["k"], filter_already_liked_items=True)
popular = np.argsort(-np.asarray(matrix.sum(0)).ravel(), kind="stable")[: asked["k"]]
lists = {user: [items[at] for at in best[row[user]] if at >= 0] if user in row else [items[at] for at in popular]
         for user in asked["users"]}
json.dump(lists, sys.stdout)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("FIELDWISE_DATA", str(ROOT.parent / "shared" / "data")))
    parser.add_argument("--implicit-python", help="of an environment that has implicit (default: without ALS and BPR)")
    parser.add_argument("--settings", type=int, help="only the first few of each system, to see the script work")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", "local[2]")
    spark_session("benchmark")
    with tempfile.TemporaryDirectory(prefix="fieldwise-movielens-") as folder:
        cuts = write(Path(options.data, "ml-100k"), Path(folder))
        systems: dict[str, list[dict[str, Any]]] = {"fm": OURS, "ffm": [*OURS, *MORE]}
        systems |= THEIRS if options.implicit_python else {}
        valid: dict[str, Any] = {}
        test: dict[str, Any] = {}
        for system, settings in systems.items():
            tried = []
            for setting in settings[: options.settings]:
                found = measured(Path(folder, "valid"), system, setting, options.implicit_python)
                tried.append({"setting": setting, **{name: found["all"][name][0] for name in METRICS}})
                say(f"{system} {setting}: " + ", ".join(f"{name} {tried[-1][name]:.5f}" for name in METRICS))
            best = max(tried, key=lambda each: each[METRICS[0]])["setting"]
            found = measured(Path(folder, "test"), system, best, options.implicit_python)
            valid[system], test[system] = tried, {"setting": best, **{key: found[key] for key in ("all", "known")}}
            test["popularity"] = {key: found[f"popularity {key}"] for key in ("all", "known")}
            say(f"{system} on test: {found['all']}")
    past = {
        other: all(test["ffm"]["all"][name][0] > test[other]["all"][name][0] for name in METRICS)
        for other in test
        if other not in ("fm", "ffm")
    }
    record("lists_movielens", {**cuts, "k": K, "valid": valid, "test": test, "past": past})


def write(data: Path, folder: Path) -> dict[str, Any]:
    """Users, films, and for each period what was before it and what it holds."""
    rows = [line.split("\t") for line in (data / "u.data").read_text().splitlines()]
    rows = sorted((row for row in rows if int(row[2]) >= 4), key=lambda row: (int(row[3]), row))
    days = [int(row[3]) // 86400 for row in rows]
    cut = {name: days[int(share * len(rows))] for name, share in (("valid", 0.8), ("test", 0.9))}
    ends = {"valid": cut["test"], "test": days[-1] + 1}
    users = [line.split("|")[:4] for line in (data / "u.user").read_text().splitlines()]
    films = [line.split("|") for line in (data / "u.item").read_text("latin-1").splitlines()]
    genres = [line.split("|")[0] for line in (data / "u.genre").read_text().splitlines() if line]
    told: dict[str, Any] = {}
    for name, day in cut.items():
        place = folder / name
        place.mkdir()
        log = ["user", "item", "watched", "when"]
        for part, first, stop in (("before", 0, day), ("after", day, ends[name])):
            held = [[u, i, 1, t] for (u, i, _, t), d in zip(rows, days, strict=True) if first <= d < stop]
            write_csv(place / f"{part}.csv", log, held)
            told[f"{name} {part}"] = len(held)
        write_csv(place / "users.csv", ["user", "age", "gender", "occupation"], users)
        kept = [[film[0], film[2][-4:], *film[5:24]] for film in films]
        write_csv(place / "films.csv", ["item", "year", *genres], kept)
        document = {
            "name": name, "source": {"path": "before.csv"}, "label": "watched", "time": "when",
            "join": [{"path": "users.csv", "on": "user"}, {"path": "films.csv", "on": "item"}],
            "negatives": {"items": {"path": "films.csv"}, "context": "user", "item": "item"},
            "fields": [{"name": "user", "kind": "vocabulary", "min_count": 1},
                       {"name": "item", "kind": "vocabulary", "min_count": 1},
                       {"name": "age", "kind": "number", "quantiles": 10}, {"name": "gender", "kind": "vocabulary"},
                       {"name": "occupation", "kind": "vocabulary"}, {"name": "year", "kind": "vocabulary"},
                       {"name": "genres", "kind": "vocabulary", "flags": genres}],
            "model": {"kind": "ffm"}, "training": {"auto": False, "patience": None},
            "catalog": {"contexts": {"path": "users.csv"}, "items": {"path": "films.csv"}, "context_id": "user",
                        "item_id": "item", "k": K, "exclude": {"path": "before.csv"}},
            "scoring": {"max_unseen": 1.0},
            "lists": {"cutoffs": [10, K], "events": {"path": "after.csv"}, "history": {"path": "before.csv"}},
        }  # fmt: skip
        (place / "config.yaml").write_text(yaml.safe_dump(document))
    return told


def write_csv(path: Path, names: list[str], rows: list[list[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])


def measured(place: Path, system: str, setting: dict[str, Any], python: str | None) -> dict[str, Any]:
    """Metrics of a system's lists, and of the most popular films, of all users and of known ones."""
    started = time.perf_counter()
    lists = ours(place, system, setting) if system in ("fm", "ffm") else theirs(place, system, setting, str(python))
    out = place / "evaluations"
    found = evaluate_lists(load_config(place / "config.yaml"), lists=str(lists), out=str(out))
    told = json.loads((Path(found["dir"]) / "lists.json").read_text())
    known = next(each for each in told["slices"] if each["slice"] == "contexts = known")
    figures: dict[str, Any] = {"seconds": time.perf_counter() - started}
    for name, of in (("all", told["metrics"]), ("known", known)):
        for system_name, key in (("lists", name), ("popularity", f"popularity {name}")):
            ends = {metric: of[metric][system_name] for metric in METRICS}
            figures[key] = {m: [ends[m][end] for end in ("value", "low", "high")] for m in METRICS}
    return figures


def ours(place: Path, kind: str, setting: dict[str, Any]) -> Path:
    """Lists of a model trained on all rows before the period; the period's own rows are only looked at afterwards."""
    drawn = f"{setting['by']}-{setting['per_positive']}"
    overrides = [
        f"workspace=work-{drawn}", f"negatives.by={setting['by']}", f"negatives.per_positive={setting['per_positive']}",
        f"training.epochs={setting['epochs']}", f"model.kind={kind}", "split.by=none",
    ]  # fmt: skip
    config = load_config(place / "config.yaml", overrides)
    built = build_features(config)
    own = settle(config.training, kind, built["rows"]["all"], built["positives"]["all"]).l2
    assert own is not None
    overrides.append(f"training.l2={own * setting.get('prior', 1.0)!r}")
    config = load_config(place / "config.yaml", overrides)
    after = load_config(place / "config.yaml", [*overrides, f"workspace=after-{drawn}", "source.path=after.csv"])
    held = build_features(after, spec=built["dir"])
    trained = train_model(config, Days([built["dir"]], (), [held["dir"]]), register=False)
    assert trained is not None
    out = place / f"lists-{kind}-{drawn}-{setting['epochs']}-{setting.get('prior', 1.0)}"
    return Path(score_catalog(config, model=trained["bundle"], out=str(out))["dir"])


def theirs(place: Path, system: str, setting: dict[str, Any], python: str) -> Path:
    """Lists of implicit."""
    users = pa.csv.read_csv(place / "users.csv")["user"].cast(pa.string()).to_pylist()
    items = pa.csv.read_csv(place / "films.csv")["item"].cast(pa.string()).to_pylist()
    asked = {"log": str(place / "before.csv"), "users": users, "items": sorted(items), "system": system,
             "setting": setting, "k": K}  # fmt: skip
    alone = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": ""}
    done = subprocess.run(
        [python, "-c", IMPLICIT], input=json.dumps(asked), capture_output=True, text=True, check=True, env=alone
    )
    rows = [(u, rank, i) for u, of in json.loads(done.stdout).items() for rank, i in enumerate(of, 1)]
    context, rank, item = zip(*rows, strict=True)
    target = place / f"lists-{system}"
    target.mkdir(exist_ok=True)
    pq.write_table(
        pa.table({"context_id": context, "rank": pa.array(rank, pa.int32()), "item_id": item}), target / "part.parquet"
    )
    return target


if __name__ == "__main__":
    main()
