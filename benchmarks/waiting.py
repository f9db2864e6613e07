"""Seconds that people wait: each command on small logs, on a machine that has compiled nothing, then again.

    python benchmarks/waiting.py --before ../fieldwise-of-yesterday --part days
    FIELDWISE_DATA=data python benchmarks/waiting.py --part movielens

Of each command: until its first words on stderr, the longest time without a word or a sign of life there (on a
terminal), until its result, until its process has ended, and the CPU seconds of all its processes. Cold: the caches of
compiled kernels and of the JVM's classes are empty. Warm: the same commands again, in another workspace; with
``--warm`` alone, by the user's own caches. With ``--before``, each command of that checkout runs just before ours, with
caches and workspaces of its own.

    days       two days of 5,000 rows of a shop: features, train, score-catalog, a date of daily, explain, --help; the
               first train of a workspace makes MLflow's database, a next one finds it
    movielens  MovieLens 100K by configs/movielens.yaml: features, train FFM with the settings given (training.auto:
               false; a search for them is 17 trainings), score-catalog of all users and films
    demo       20,000 rows
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.processes import fieldwise  # noqa: E402
from benchmarks.record import record  # noqa: E402
from benchmarks.streams import shop  # noqa: E402

Commands = dict[str, list[str]]


def days(place: Path, work: str) -> Commands:
    """The log is made once, and stays."""
    made = place / "shop"
    file = made / "stream.yaml"
    if not made.exists():
        shop(made, drifting=False, days=3, rows_per_day=5000)
    dates = sorted(log.stem for log in (made / "log").iterdir())
    catalog = (f"catalog={{contexts: {{path: {made}/users.csv}}, context_id: user, "
               f"items: {{path: {made}/items.csv}}, item_id: item, time: '{{date}}T19:00:00', "
               "fixed: {position: 1, device: phone}}")  # fmt: skip
    where = ["--config", str(file), "--set", f"workspace={work}", "--set", catalog]
    first, second = (f"{work}/snapshots/{day}" for day in dates[:2])
    return {
        "--help": ["--help"],
        "features": ["features", "--date", dates[0], *where],
        "features, a next day": ["features", "--date", dates[1], "--spec", first, *where],
        "train": ["train", "--train", first, "--valid", second, *where],
        "train, again": ["train", "--train", first, "--valid", second, *where],
        "score-catalog": ["score-catalog", "--date", dates[1], *where],
        "daily": ["daily", "--date", dates[2], *where],
        "explain": ["explain", "--set", f"source.path={made}/log/{dates[2]}.csv", *where],
    }


def movielens(place: Path, work: str) -> Commands:
    data = f"{os.environ['FIELDWISE_DATA']}/ml-100k"
    catalog = (f"catalog={{contexts: {{path: {data}/u.user, separator: '|', columns: [user, a, g, o, z]}}, "
               f"context_id: user, items: {{path: {data}/u.item, separator: '|', encoding: latin-1, columns: [item, "
               "t, r, v, w, 'g{1..19}']}, item_id: item, time: '1998-04-23T19:00:00'}")  # fmt: skip
    where = ["--config", "configs/movielens.yaml", "--set", f"workspace={work}", "--set", catalog]
    return {
        "features": ["features", *where],
        "train": ["train", *where, "--set", "training.auto=false"],
        "train, again": ["train", *where, "--set", "training.auto=false"],
        "score-catalog": ["score-catalog", *where],
    }


def demo(place: Path, work: str) -> Commands:
    return {"demo": ["demo", "--rows", "20000", "--set", f"workspace={work}"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="another checkout, beside this one")
    parser.add_argument("--part", choices=["days", "movielens", "demo"], default="days")
    parser.add_argument("--warm", action="store_true", help="these alone")
    options = parser.parse_args()
    trees = {"before": Path(options.before).resolve()} if options.before else {}
    trees["after"] = ROOT
    figures: dict[str, dict[str, dict[str, dict[str, float | None]]]] = {}
    with tempfile.TemporaryDirectory(prefix="fieldwise-waiting-") as folder:
        place = Path(folder)
        for state in ("warm",) if options.warm else ("cold", "warm"):
            commands = {age: globals()[options.part](place, f"{place}/{age}-{state}") for age in trees}
            figures[state] = {age: {} for age in trees}
            for name in commands["after"]:
                for age, tree in trees.items():
                    caches = {"XDG_CACHE_HOME": f"{place}/{age}/cache", "NUMBA_CACHE_DIR": f"{place}/{age}/kernels"}
                    environment = os.environ if options.warm else {**os.environ, **caches}
                    cost = fieldwise(str(tree), *commands[age][name], environment=environment)
                    figures[state][age][name] = {
                        "first_words_s": cost.first_words,
                        "silence_s": cost.silence,
                        "result_s": cost.result,
                        "end_s": cost.wall,
                        "cpu_s": sum(cost.cpu.values()),
                    }
                    print(f"{state:5} {age:6} {name:22} {figures[state][age][name]}", file=sys.stderr)
    record("waiting" if options.part == "days" else f"waiting_{options.part}", figures)


if __name__ == "__main__":
    main()
