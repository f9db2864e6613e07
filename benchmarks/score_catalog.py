"""Exact top-K of a catalog, from files to published files, against a model call per pair and the bare matrix product.

    python benchmarks/score_catalog.py --contexts 10000 --items 100000 --k 100

FM (k = 16) and FFM (k = 4, so 20 * 19 * 4 = 1,520 numbers a vector) with 20 context and 19 item fields, random weights.

pairs_per_s            score_catalog as a whole: reading, encoding, lists, writing; the Spark session runs and has
                       scored some contexts: its workers have started, kernels are compiled
over_model_call        its ratio to (a): every pair encoded as a row and sent through the compiled training-side model
over_bare_product      its ratio to (b): torch.topk(u @ v.T), the vectors given, nothing else done
peak_mb                largest memory of the executor: its JVM and Python workers together (pages that they share count
                       once), and the largest of one worker (mapped files included); also for a tenth of the contexts
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.record import record  # noqa: E402
from fieldwise.features.fields import fitting  # noqa: E402
from fieldwise.features.spark.session import spark_session  # noqa: E402
from fieldwise.features.terminal import say  # noqa: E402
from fieldwise.pipelines.catalog.score_catalog import CONTEXTS_PER_FILE, score_catalog  # noqa: E402
from fieldwise.pipelines.config.load import load_config  # noqa: E402
from fieldwise.pipelines.config.schema import Config  # noqa: E402
from fieldwise.training.data.batch import layout_of  # noqa: E402
from fieldwise.training.models import settings_of  # noqa: E402
from fieldwise.training.models.base import build_model  # noqa: E402
from fieldwise.training.network.bundle import Bundle, load_bundle, save_bundle  # noqa: E402
from fieldwise.training.network.network import Network  # noqa: E402
from fieldwise.training.scoring.factors import context_factors, item_factors  # noqa: E402
from fieldwise.training.scoring.scorer import Scorer  # noqa: E402

CONTEXT_FIELDS, ITEM_FIELDS = 20, 19
SAMPLE = 40_000
"""Pairs of the model-call measurement."""
MEASURED = 2_000
"""Contexts of the bare-product measurement."""


def main() -> None:
    options = parse()
    os.environ.setdefault("SPARK_MASTER", f"local[{options.cores}]")
    torch.set_num_threads(options.cores)
    spark_session("benchmark")
    results = {}
    for kind in options.kinds.split(","):
        with tempfile.TemporaryDirectory() as folder:
            results[kind] = measure(Path(folder), kind, options)
    sizes = {"contexts": options.contexts, "items": options.items, "k": options.k, "cores": options.cores}
    record("score_catalog", {**sizes, "kinds": results})


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--kinds", default="fm,ffm")
    parser.add_argument("--cores", type=int, default=2)
    return parser.parse_args()


def measure(folder: Path, kind: str, options: argparse.Namespace) -> dict[str, Any]:
    config = write_inputs(folder, kind, options)
    bundle = str(folder / "bundle")
    score_catalog(instead(config, "few"), model=bundle, out=str(folder / "few"))
    with Peak() as tenth:
        score_catalog(instead(config, "tenth"), model=bundle, out=str(folder / "tenth"))
    with Peak() as peak:
        started = time.perf_counter()
        result = score_catalog(config, model=bundle)
        seconds = time.perf_counter() - started
    pairs = options.contexts * options.items
    call, bare = model_call(bundle, options), bare_product(bundle, options)
    row = {
        "pairs": pairs, "seconds": seconds, "pairs_per_s": pairs / seconds, "digest": result["digest"],
        "model_call_pairs_per_s": call, "bare_product_pairs_per_s": bare,
        "over_model_call": pairs / seconds / call, "over_bare_product": pairs / seconds / bare,
        "peak_mb": peak.megabytes, "peak_mb_at_a_tenth_of_the_contexts": tenth.megabytes,
    }  # fmt: skip
    say(f"{kind}: {row['pairs_per_s'] / 1e6:.1f} M pairs/s, {row['over_model_call']:.0f}x model calls, "
        f"{row['over_bare_product']:.2f}x bare product")  # fmt: skip
    for n, found in ((pairs // 10, tenth.megabytes), (pairs, peak.megabytes)):
        say(f"  {n:.0e} pairs: peak {found['executor']:,.0f} MB an executor, JVM {found['jvm']:,.0f}, "
            f"one Python worker {found['worker']:,.0f}")  # fmt: skip
    return row


def instead(config: Config, contexts: str) -> Config:
    """The config with other contexts."""
    return load_config(config.file, [f"catalog.contexts.path={contexts}.csv"])


def write_inputs(folder: Path, kind: str, options: argparse.Namespace) -> Config:
    """CSV files of random values, a config, a bundle of random weights."""
    draw = np.random.default_rng(0)
    for name, rows, fields, letter in (
        ("contexts", options.contexts, CONTEXT_FIELDS, "c"),
        ("tenth", options.contexts // 10, CONTEXT_FIELDS, "c"),
        ("few", options.cores * CONTEXTS_PER_FILE, CONTEXT_FIELDS, "c"),
        ("items", options.items, ITEM_FIELDS, "i"),
    ):
        values = draw.integers(0, 1000, (rows, fields))
        values[:, 0] = np.arange(rows)
        lines = [",".join(f"{letter}{n}" for n in range(fields)), *(",".join(map(str, row)) for row in values.tolist())]
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    sizes = [(f"c{n}", options.contexts if n == 0 else 1000) for n in range(CONTEXT_FIELDS)]
    sizes += [(f"i{n}", options.items if n == 0 else 1000) for n in range(ITEM_FIELDS)]
    document = {
        "name": "catalog", "source": {"path": "items.csv"}, "label": "i1 == i2",
        "fields": [{"name": name, "kind": "hash", "buckets": buckets} for name, buckets in sizes],
        "model": {"kind": kind},
        "catalog": {"contexts": {"path": "contexts.csv"}, "items": {"path": "items.csv"}, "context_id": "c0",
                    "item_id": "i0", "k": options.k},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    config = load_config(folder / "config.yaml")
    spec = fitting.fit_spec(config.fields, fitting.TALLY.empty_table())
    model = build_model(settings_of(kind, dim={"ffm": 4, "fm": 16}.get(kind, 0), pair_buckets=1 << 20), layout_of(spec))
    weight = draw.standard_normal((model.rows, model.width), dtype=np.float32) * np.float32(0.2)
    dense = {name: np.ones(tuple(p.shape), np.float32) for name, p in model.named_parameters()}
    save_bundle(folder / "bundle", Bundle(model.settings, spec, weight, dense))
    return config


def random_rows(scorer: Scorer, rows: int) -> Any:
    draw = np.random.default_rng(1)
    return np.stack([draw.integers(3, size, rows) for size in scorer.layout.size_of_slot], axis=1).astype(np.int32)


def model_call(bundle: str, options: argparse.Namespace) -> float:
    """Pairs/s of the training-side model on whole rows."""
    loaded = load_bundle(bundle)
    network, slots = Network.from_bundle(loaded), random_rows(Scorer(loaded), SAMPLE)
    network.score(network.lookup(slots[:1000]))
    started = time.perf_counter()
    for start in range(0, SAMPLE, 4096):
        network.score(network.lookup(slots[start : start + 4096]))
    return SAMPLE / (time.perf_counter() - started)


def bare_product(bundle: str, options: argparse.Namespace) -> float:
    """Pairs/s of torch.topk(u @ v.T) in blocks of 500 contexts."""
    scorer = Scorer(load_bundle(bundle))
    of_item = np.arange(CONTEXT_FIELDS + ITEM_FIELDS) >= CONTEXT_FIELDS
    contexts = min(MEASURED, options.contexts)
    u = torch.from_numpy(context_factors(scorer, of_item, random_rows(scorer, contexts)).vectors)
    v = torch.from_numpy(item_factors(scorer, of_item, random_rows(scorer, options.items)).vectors)
    torch.topk(u[:100] @ v.T, min(options.k, options.items), dim=1)
    started = time.perf_counter()
    for start in range(0, contexts, 500):
        torch.topk(u[start : start + 500] @ v.T, min(options.k, options.items), dim=1)
    return contexts * options.items / (time.perf_counter() - started)


class Peak:
    """Largest memory of the processes we started (the local executor: a JVM and Python workers) while it is open."""

    def __enter__(self) -> Peak:
        self.megabytes = {"executor": 0.0, "jvm": 0.0, "worker": 0.0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            found = {"executor": 0.0, "jvm": 0.0, "worker": 0.0}
            for pid in descendants(os.getpid()):
                try:
                    name = Path(f"/proc/{pid}/comm").read_text().strip()
                    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                except OSError:
                    continue  # it ended while we looked
                sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
                kind = "jvm" if name == "java" else "worker"
                found["executor"] += sizes["Pss:"]
                found[kind] = max(found[kind], sizes["Rss:"])
            self.megabytes = {kind: max(size, found[kind]) for kind, size in self.megabytes.items()}


def descendants(pid: int) -> list[int]:
    """Processes started by a process, and by those."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return []
    return children + [further for child in children for further in descendants(child)]


if __name__ == "__main__":
    main()
