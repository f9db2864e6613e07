"""score-rows against what its two computations allow: the encoder alone, the forward pass alone, the job as a whole.

    python benchmarks/score_rows.py --rows 2000000

FM (k = 16) and FFM (k = 4) with 39 hashed fields of 1,000 buckets, random weights, random rows in one CSV file.

encoder_rows_per_s   features.fields.encoder on raw columns in memory, every core a process of its own
forward_rows_per_s   training.scoring.scorer on slots in memory, every core a process of its own
job_rows_per_s       score_rows as a whole: reading, parsing, both, writing Parquet with one column of the source beside
                     the probability, and with all forty; the Spark session runs and has scored a small file
of_limit             job over 1 / (1 / encoder + 1 / forward)
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.record import record  # noqa: E402
from fieldwise.features.config import SourceConfig  # noqa: E402
from fieldwise.features.fields import fitting  # noqa: E402
from fieldwise.features.fields.encoder import Encoder  # noqa: E402
from fieldwise.features.files.listing import list_files  # noqa: E402
from fieldwise.features.source.raw import read_range, split_ranges  # noqa: E402
from fieldwise.features.spark.session import spark_session  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.pipelines.score.score_rows import score_rows  # noqa: E402
from fieldwise.training.data.batch import layout_of  # noqa: E402
from fieldwise.training.models import settings_of  # noqa: E402
from fieldwise.training.models.base import build_model  # noqa: E402
from fieldwise.training.network.bundle import Bundle, load_bundle, save_bundle  # noqa: E402
from fieldwise.training.scoring.scorer import Scorer  # noqa: E402

FIELDS = 39
ALONE_SECONDS = 2.0
"""How long encoder and forward pass are measured."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--kinds", default="fm,ffm")
    parser.add_argument("--cores", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("SPARK_MASTER", f"local[{options.cores}]")
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        write_log(Path(folder), options)
        for kind in options.kinds.split(","):
            results[kind] = measure(Path(folder), kind, options)
    record("score_rows", {"rows": options.rows, "cores": options.cores, "fields": FIELDS, "kinds": results})


def write_log(folder: Path, options: argparse.Namespace) -> None:
    """``log.csv``, and a thousand of its rows for every core: a label and 39 values of up to four digits."""
    draw = np.random.default_rng(0)
    header = ",".join(["click", *(f"f{n}" for n in range(FIELDS))]) + "\n"
    with (folder / "log.csv").open("w") as log:
        log.write(header)
        for start in range(0, options.rows, 10_000):
            values = draw.integers(0, 2000, (min(10_000, options.rows - start), 1 + FIELDS))
            values[:, 0] %= 2
            lines = [",".join(map(str, row)) + "\n" for row in values.tolist()]
            log.writelines(lines)
    for core in range(options.cores):
        (folder / f"few-{core}.csv").write_text(header + "".join(lines[:1000]))


def measure(folder: Path, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    config, bundle = prepared(folder, kind)
    spark_session("benchmark")
    few = [str(folder / f"few-{n}.csv") for n in range(options.cores)]
    score_rows(config, model=bundle, inputs=few, out=str(folder / kind / "few"))  # starts every worker
    encoder, forward = on_all_cores(encoding, folder, kind, options), on_all_cores(scoring, folder, kind, options)
    limit = 1 / (1 / encoder + 1 / forward)
    found: dict[str, Any] = {"encoder_rows_per_s": encoder, "forward_rows_per_s": forward}
    for name, columns in (("one", ["f0"]), ("all", None)):
        started = time.perf_counter()
        score_rows(config, model=bundle, columns=columns, out=str(folder / kind / name))
        job = options.rows / (time.perf_counter() - started)
        found[f"{name}_column{'s' * (name == 'all')}"] = {"job_rows_per_s": job, "of_limit": job / limit}
        say(f"{kind}, {name}: {job:,.0f} rows/s, encoder {encoder:,.0f}, forward {forward:,.0f}: {job / limit:.0%}")
    return found


def prepared(folder: Path, kind: str) -> tuple[Config, str]:
    """A config and the directory of a bundle of random weights."""
    document = {
        "name": "rows", "source": {"path": "log.csv"}, "label": "click == 1",
        "fields": [{"name": f"f{n}", "kind": "hash", "buckets": 1000} for n in range(FIELDS)],
        "model": {"kind": kind},
    }  # fmt: skip
    (folder / f"{kind}.yaml").write_text(yaml.safe_dump(document))
    config = load_config(folder / f"{kind}.yaml")
    spec = fitting.fit_spec(config.fields, fitting.TALLY.empty_table())
    model = build_model(settings_of(kind, dim={"ffm": 4, "fm": 16}.get(kind, 0), pair_buckets=1 << 20), layout_of(spec))
    weight = np.random.default_rng(1).standard_normal((model.rows, model.width), dtype=np.float32) * np.float32(0.2)
    dense = {name: np.ones(tuple(p.shape), np.float32) for name, p in model.named_parameters()}
    save_bundle(folder / f"bundle-{kind}", Bundle(model.settings, spec, weight, dense))
    return config, str(folder / f"bundle-{kind}")


def on_all_cores(work: Callable[[str, str], float], folder: Path, kind: str, options: argparse.Namespace) -> float:
    """Rows/s of all cores together."""
    with multiprocessing.get_context("spawn").Pool(options.cores) as pool:
        return sum(pool.starmap(work, [(str(folder), kind)] * options.cores))


def encoding(folder: str, kind: str) -> float:
    bundle = load_bundle(f"{folder}/bundle-{kind}")
    source = SourceConfig.model_validate({"path": "log.csv"})
    rng = split_ranges(source, list_files(source, folder), 8 << 20)[0]
    batches = [batch.columns for batch in read_range(source, rng, [f"f{n}" for n in range(FIELDS)])]
    encoder = Encoder(bundle.spec)
    return rate(lambda: sum(len(encoder.encode(batch).slots) for batch in batches))


def scoring(folder: str, kind: str) -> float:
    scorer = Scorer(load_bundle(f"{folder}/bundle-{kind}"))
    slots = np.random.default_rng(2).integers(3, 1003, (32_768, FIELDS)).astype(np.int32)
    return rate(lambda: len(scorer.probabilities(slots)))


def rate(once: Callable[[], int]) -> float:
    """Rows/s, after a first call that compiles."""
    once()
    rows, started = 0, time.perf_counter()
    while time.perf_counter() - started < ALONE_SECONDS:
        rows += once()
    return rows / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
