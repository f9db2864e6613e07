"""What was measured, how and on what: ``python docs/benchmarks.py > docs/benchmarks.md``. Methods are the scripts' own
docstrings, commands, machines and figures those of their results."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Benchmarks

One script per claim, below `benchmarks/`; each writes its command, its machine, the versions and raw figures to
`benchmarks/results/`, from which `python docs/benchmarks.py` makes this page. Machines were shared and are not alike:
within a row figures are of one run, between rows compare with care. `load` counts the benchmark itself: far above the
cores, others used the machine, too. What the figures mean stands in [training](training.md),
[feature builds](features.md), [lists](lists.md), [daily](daily.md) and the [decisions](decisions/README.md).
"""


WAITING = {"waiting": "a day of 5,000 rows", "waiting_movielens": "MovieLens", "waiting_demo": "20,000 rows"}


def method(path: Path) -> str:
    """The first paragraph of a script's docstring, in one line."""
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].split())


def results() -> dict[str, dict[str, Any]]:
    """By name, in alphabetical order."""
    return {
        path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    }


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def headlines(found: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The figures that are asked for first."""
    step = found["train_step"]["figures"]
    yield "## Training\n"
    size = f"{step['fields']} fields, {step['rows']:,} rows of the table, {step['threads']} threads"
    yield f"A step, optimizer included ({size}):\n"
    rows = [
        [f"`{each['model']}`", f"{each['rows_per_second']:,}", f"{each['cpu_us_per_row']:.1f}", f"{each['width']:,}"]
        for each in step["steps"]
    ]  # fmt: skip
    yield from table(["model", "rows/s", "CPU us a row", "numbers a table row"], rows)
    built = found["features"]["figures"]
    yield "## Feature builds\n"
    yield f"{built['rows']:,} rows of 40 text columns to a published snapshot, {built['cores']} cores:\n"
    contenders = built["contenders"]
    rows = [[name, f"{each['rows_per_second']:,}", f"{each['peak_mb']['all']:,}"] for name, each in contenders.items()]
    yield from table(["build", "rows/s", "peak MB, all processes"], rows)
    catalog = found["score_catalog"]["figures"]
    yield "## Catalogs\n"
    yield f"The {catalog['k']} best of {catalog['items']:,} items for {catalog['contexts']:,} contexts, exactly:\n"
    rows = [
        [
            f"`{kind}`",
            f"{each['pairs_per_s']:,.0f}",
            f"{each['over_bare_product']:.2f}",
            f"{each['over_model_call']:,.0f}",
        ]
        for kind, each in catalog["kinds"].items()
    ]
    yield from table(["model", "pairs/s", "of the bare matrix product", "times a model call per pair"], rows)
    yield "## Waiting\n"
    yield (
        "Seconds until a command ends: on a machine that has compiled nothing, then again, by the version before and "
        "by this one; and CPU seconds of these. A workspace's first `train` makes MLflow's database, others find it.\n"
    )
    rows = []
    for name, log in WAITING.items():
        states = found[name]["figures"] if name in found else {"warm": {"after": {}}}
        for command, again in states["warm"]["after"].items():
            first = states.get("cold", {}).get("after", {}).get(command, {}).get("end_s")
            before = states["warm"].get("before", {}).get(command, {})
            times = [first, *(each.get(key) for key in ("end_s", "cpu_s") for each in (before, again))]
            rows.append([f"`{command}`", log, *("-" if each is None else f"{each:.1f}" for each in times)])
    yield from table(["command", "of", "first", "again, before", "again", "CPU, before", "CPU"], rows)


def page() -> str:
    """The page as Markdown."""
    found = results()
    lines = [HEAD, *headlines(found), "## All of them\n"]
    rows = []
    for name, each in found.items():
        script = each["command"].split()[0] if "command" in each else f"{name}.py"
        path = ROOT / "benchmarks" / script
        machine = each["machine"]
        versions = each["versions"]
        what = method(path) if path.exists() else ""
        on = f"{machine['cpu']}, {machine['cores']} cores, load {machine.get('load', '-')}"
        with_ = f"Spark {versions['pyspark']}, numpy {versions['numpy']}"
        rows.append(
            [f"[{name}](../benchmarks/results/{name}.json)", what, f"`{each.get('command', '')}`", f"{on}; {with_}"]
        )
    lines += table(["results", "method", "command", "machine"], rows)
    return "\n".join(lines)


if __name__ == "__main__":
    print(page(), end="")
