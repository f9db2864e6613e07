"""What every benchmark leaves: figures with the command, the versions and the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("pyspark", "pyarrow", "torch", "petastorm", "mlflow", "numba", "numpy")


def record(name: str, figures: dict[str, Any]) -> None:
    """Write ``results/<name>.json`` and print the same object as the last line of stdout.

    ``load`` counts the benchmark itself: far above the cores, others were using the machine too. ``stolen`` is the
    share of the cores' time since the start that the host of a virtual machine gave to others.
    """
    total, stolen = (now - then for now, then in zip(_cores_time(), _SINCE, strict=True))
    cpu = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine())
    whole = {
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": {
            "cores": len(os.sched_getaffinity(0)),
            "cpu": cpu,
            "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 2),
            "stolen": round(stolen / max(total, 1), 3),
        },
        "versions": {package: version(package) for package in PACKAGES},
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1, sort_keys=True) + "\n")
    print(json.dumps(whole, sort_keys=True))


def _cores_time() -> tuple[int, int]:
    """Of all cores since boot, in ticks: all of it, and what was stolen; zeros where the system does not say."""
    path = Path("/proc/stat")
    times = [int(part) for part in path.read_text().splitlines()[0].split()[1:9]] if path.exists() else [0] * 8
    return sum(times), times[7]


_SINCE = _cores_time()


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
