"""Rows per second of one training step, in memory: lookup, forward, loss, gradient and optimizer.

Data: F fields in one table of ``--rows`` rows, values long-tailed (benchmarks/rows.py).

Steps follow each other on this process's threads while one thread looks the next batch up, as in training; nothing is
read from disk. rows_per_second is the median over the repeats, ``best`` the fastest repeat; ``lookup_ms`` and
``step_ms`` are measured one after the other. On a machine that others use too, cpu_us_per_row is the steadier figure.
Bytes per row: what the step must move at least
between memory and cache when every distinct row of the batch is loaded and stored once with its optimizer state.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder, whose scripts would hide packages

from benchmarks.record import record  # noqa: E402
from benchmarks.rows import field_sizes, long_tailed  # noqa: E402
from fieldwise.training.models import settings_of  # noqa: E402
from fieldwise.training.models.base import build_model  # noqa: E402
from fieldwise.training.models.layout import Layout  # noqa: E402
from fieldwise.training.ranks.world import World  # noqa: E402
from fieldwise.training.step.dense import DenseOptimizer  # noqa: E402
from fieldwise.training.step.exchange import Exchange, Union  # noqa: E402
from fieldwise.training.step.fused import FusedStep  # noqa: E402
from fieldwise.training.step.lookup import Compact, Lookup, can_be_direct  # noqa: E402
from fieldwise.training.step.loss import Loss  # noqa: E402
from fieldwise.training.step.optim import build_optimizer  # noqa: E402
from fieldwise.training.step.table import EmbeddingTable  # noqa: E402

GOALS = {"fm-16": 650_000, "ffm-4": 215_000, "lr-0": 2_000_000, "poly2-0": 40_000}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lr", "poly2", "fm-16", "ffm-4"], help="kind or kind-dim")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[4096, 16384])
    parser.add_argument("--fields", type=int, default=39)
    parser.add_argument("--rows", type=int, default=1 << 20, help="table rows of all fields together")
    parser.add_argument("--pair-buckets", type=int, default=1 << 20, help="poly2")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--optimizer", default="adagrad")
    parser.add_argument("--table", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--batches", type=int, default=8, help="different batches, prepared in memory")
    parser.add_argument("--repeats", type=int, default=4, help="times through the batches")
    parser.add_argument("--ways", nargs="+", default=["step"], choices=["step", "loss", "reference"],
                        help="step: fused step of one process; loss: gather, Loss, optimizer, as with several ranks; "
                             "reference: plain torch")  # fmt: skip
    return parser.parse_args()


def bandwidth(threads: int) -> dict[str, float]:
    """GB/s of a copy (bytes read + written) of 256 MiB, and of random gathers of 64-byte lines."""
    torch.set_num_threads(threads)
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    lines = source.view(-1, 16)
    order = torch.randint(0, len(lines), (1 << 21,))
    gathered = torch.empty(len(order), 16)
    figures = {}
    for name, bytes_moved, run in (
        ("copy", 2 * source.nbytes, lambda: target.copy_(source)),
        ("gather_64B", 2 * gathered.nbytes, lambda: torch.index_select(lines, 0, order, out=gathered)),
    ):
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - start)
        figures[name] = round(bytes_moved / min(seconds) / 1e9, 2)
    return figures


def measure(name: str, way: str, batch: int, options: argparse.Namespace) -> dict[str, Any]:
    kind, _, dim = name.partition("-")
    sizes = field_sizes(options.fields, options.rows)
    layout = Layout.single(sizes)
    model = build_model(
        settings_of(kind, dim=int(dim or 0), pair_buckets=options.pair_buckets), layout, fused=way != "reference"
    )
    dtype = getattr(torch, options.table) if model.width > 1 else torch.float32
    table = EmbeddingTable(model.rows, model.width, seed=1, scale=model.init_scale, dtype=dtype)
    optimizer, lookup = build_optimizer(options.optimizer, table), Lookup(layout, model.pair_buckets)
    slots = long_tailed(sizes, batch * options.batches)
    batches = [np.asfortranarray(slots[i * batch : (i + 1) * batch]) for i in range(options.batches)]
    labels = np.random.default_rng(1).integers(0, 2, batch).astype(np.float32)
    step = FusedStep(model, table, optimizer, Exchange(World(), table.rows)) if way == "step" else None
    lookup.direct = way == "step" and can_be_direct(layout, model.width, model.pair_buckets, batch, options.threads)
    loss, dense = Loss(model), DenseOptimizer(options.optimizer, model)

    def run(found: Compact) -> None:
        if step is not None:
            step(found, Union(found.ids, None, batch, float(batch), 0), labels, None, 0.05, 1e-6)
            dense.step(0.05)
            return
        rows = table.gather(found.ids)
        loss(rows, found.index, found.factor, torch.from_numpy(labels), None, float(batch))[0].backward()
        assert rows.grad is not None
        optimizer.step(table, found.ids, rows.grad, 0.05, 1e-6)
        dense.step(0.05)
        model.bias.grad = None

    found = lookup(batches[0])
    run(found)  # compile
    apart = np.array([_seconds(lookup, run, one) for one in batches])
    walls, cpus = [], []
    with ThreadPoolExecutor(1) as ahead:
        for _ in range(options.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            coming = ahead.submit(lookup, batches[0])
            for number in range(len(batches)):
                found = coming.result()
                coming = ahead.submit(lookup, batches[(number + 1) % len(batches)])
                run(found)
            coming.result()
            walls.append((time.perf_counter() - wall) / (len(batches) + 0.5))  # one lookup more than steps
            cpus.append((time.process_time() - cpu) / (len(batches) + 0.5))
    states = sum(matrix.shape[1] for matrix in optimizer.state.values()) / model.width
    lookup.direct = False
    found = lookup(batches[0])
    distinct = len(found.ids)
    return {
        "model": name, "way": way, "batch": batch, "dim": model.dim, "width": model.width,
        "rows_per_second": round(batch / float(np.median(walls))), "best": round(batch / min(walls)),
        "cpu_us_per_row": round(1e6 * float(np.median(cpus)) / batch, 3),
        "lookup_ms": round(1e3 * float(np.median(apart[:, 0])), 3),
        "step_ms": round(1e3 * float(np.median(apart[:, 1])), 3),
        "distinct_rows": distinct, "occur_once": round(float((found.repeat < 0).float().mean()), 3),
        "bytes_per_row": round(distinct * model.width * (table.weight.itemsize + 4 * states) * 2 / batch),
        "goal": GOALS.get(f"{kind}-{dim or 0}"),
    }  # fmt: skip


def _seconds(lookup: Lookup, run: Callable[[Compact], None], slots: np.ndarray) -> tuple[float, float]:
    start = time.perf_counter()
    found = lookup(slots)
    middle = time.perf_counter()
    run(found)
    return middle - start, time.perf_counter() - middle


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    result = {
        "threads": options.threads, "bandwidth_gb_per_second": bandwidth(options.threads),
        "fields": options.fields, "rows": options.rows, "pair_buckets": options.pair_buckets,
        "optimizer": options.optimizer, "table": options.table, "steps": [],
    }  # fmt: skip
    columns = ["model", "way", "batch", "rows_per_second", "best", "goal", "cpu_us_per_row", "lookup_ms", "step_ms",
               "bytes_per_row"]  # fmt: skip
    print(f"bandwidth GB/s {result['bandwidth_gb_per_second']}", file=sys.stderr)
    print(" ".join(f"{column:>15}" for column in columns), file=sys.stderr)
    for name in options.models:
        for way in options.ways:
            for batch in options.batch_sizes:
                row = measure(name, way, batch, options)
                result["steps"].append(row)
                print(" ".join(f"{row[column]!s:>15}" for column in columns), file=sys.stderr)
    record("train_step", result)


if __name__ == "__main__":
    main()
