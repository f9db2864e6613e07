"""Do the numbers still stand? Digests of what two small jobs publish, for comparison before and after a change.

The demo (20,000 rows, two ranks): its snapshot, the four bundles, the ranked catalog, what the table shows. MovieLens:
its snapshot and the FFM that is trained on it. A change that shall move no number leaves all of them as they are.

    python benchmarks/digests.py                 # compares with results/digests.json; exit code 1 where they differ
    python benchmarks/digests.py --write         # keeps them there instead
    python benchmarks/digests.py --beside .venv-3.5/bin/python    # both sets of versions; exit code 1 where they differ

They belong to a machine's kind: processors with other vector units round other sums. They do not depend on the versions
of Spark, Arrow, numpy and pandas: Parquet files, which name what wrote them, are compared by their rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from benchmarks.record import RESULTS, record  # noqa: E402

KINDS = ("lr", "poly2", "fm", "ffm")
DATA = Path(os.environ.get("FIELDWISE_DATA", ROOT.parent / "shared" / "data"))


def run(command: str, *options: str, place: Path, config: str) -> dict[str, Any]:
    """The result of one ``fieldwise`` command in a workspace of its own."""
    program = Path(sys.executable).with_name("fieldwise")
    where = ["--config", str(ROOT / "configs" / f"{config}.yaml"), "--set", f"workspace={place}"]
    environment = {**os.environ, "FIELDWISE_DATA": str(DATA), "FIELDWISE_WORK": str(place)}
    done = subprocess.run(
        [str(program), command, *where, *options], env=environment, cwd=place, stdout=subprocess.PIPE, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def digest(directory: Path) -> str:
    """SHA-256 over names and bytes of the files in a bundle, in order, but for learned.json, which bundles of old lack:
    the same weights come from training once or in parts."""
    whole = hashlib.sha256()
    for file in sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "learned.json"):
        content = rows_of([file]) if file.suffix == ".parquet" else hashlib.sha256(file.read_bytes()).hexdigest()
        whole.update(f"{file.relative_to(directory)}\0{content}".encode())
    return whole.hexdigest()


def rows_of(files: Iterable[Path]) -> str:
    """SHA-256 over the rows of Parquet files, as Python shows them."""
    whole = hashlib.sha256()
    for file in files:
        whole.update(repr(pq.ParquetFile(file).read().to_pydict()).encode())
    return whole.hexdigest()


def bundles(place: Path) -> dict[str, str]:
    """Of every training in a workspace, by its model's kind."""
    found = {path.name.split("-")[0]: digest(path / "bundle") for path in (place / "training").glob("*-*")}
    return dict(sorted(found.items()))


def demo(place: Path, rows: int) -> dict[str, Any]:
    result = run("demo", "--rows", str(rows), "--ranks", "2", "--models", ",".join(KINDS), place=place, config="demo")
    shown = [{key: value for key, value in row.items() if key != "seconds"} for row in result["models"]]
    table = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
    return {
        "snapshot": result["snapshot"], "bundles": bundles(place), "table": table,
        "catalog": rows_of(sorted(Path(result["catalog"]["dir"]).glob("part-*.parquet"))),
    }  # fmt: skip


def movielens(place: Path) -> dict[str, Any]:
    snapshot = run("features", place=place, config="movielens")["digest"]
    run("train", "--set", "model.kind=ffm", "--no-register", place=place, config="movielens")
    return {"snapshot": snapshot, "bundles": bundles(place)}


def beside(python: str, count: int, here: dict[str, Any]) -> int:
    """Our figures beside those of another environment, one a line on stderr."""
    asked = [python, __file__, "--rows", str(count)]
    done = subprocess.run(asked, stdout=subprocess.PIPE, check=False)  # its exit code compares it with what is kept
    there = json.loads(done.stdout.splitlines()[-1])["now"]
    for (name, one), (_, other) in zip(flat(here), flat(there), strict=True):
        print(f"{name:24} {one[:32]} {other[:32]} {'same' if one == other else 'DIFFERENT'}", file=sys.stderr)
    print(json.dumps({"same": here == there, "here": here, "beside": there}))
    return 0 if here == there else 1


def flat(figures: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Digests by their dotted names."""
    found: list[tuple[str, str]] = []
    for key, value in figures.items():
        found += flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--beside", metavar="PYTHON", help="of another environment, whose figures are compared instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        for name in ("demo", "movielens"):
            (Path(place) / name).mkdir()
        figures = {"demo": demo(Path(place) / "demo", options.rows), "movielens": movielens(Path(place) / "movielens")}
    if options.beside:
        return beside(options.beside, options.rows, figures)
    kept = RESULTS / "digests.json"
    before = json.loads(kept.read_text())["figures"] if kept.exists() and not options.write else figures
    if options.write:
        record("digests", figures)
    else:
        print(json.dumps({"same": before == figures, "before": before, "now": figures}))
    return 0 if before == figures else 1


if __name__ == "__main__":
    sys.exit(main())
