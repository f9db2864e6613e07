"""Context and item vectors for a vector index (inner product), and the recipe that makes it give our lists.

    query  q(c) = [u(c), 1]        item  x(i) = [v(i), b(i)]
    logit(c, i) = a(c) + <q(c), x(i)>,   probability = 1 / (1 + exp(-g(logit + logit_shift)))

a(c) is the same for all items, so the index ranks by <q, x> alone: build it over items.npy with the inner-product
metric (FAISS: IndexFlatIP for exact lists, IndexHNSWFlat or IndexIVFFlat for approximate ones) and search it with
rows of contexts.npy. Its float32 sums may swap items whose logits agree to about six digits; score_catalog decides
such ties.

    items.parquet, contexts.parquet    id, bias (b or a), vector (u or v)
    items.npy, contexts.npy            float32 rows x(i) and q(c), in the order of the Parquet files
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fieldwise.features import store
from fieldwise.features.arrays import Float32
from fieldwise.features.terminal import say
from fieldwise.pipelines.agreement import require_model
from fieldwise.pipelines.build.quality import say_quarantined
from fieldwise.pipelines.catalog.items import read_items
from fieldwise.pipelines.catalog.vectors import read_contexts, require_vectors
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.score.coverage import Coverage, require_known
from fieldwise.pipelines.score.output import Output, target_of
from fieldwise.pipelines.score.sides import split_sides
from fieldwise.training.scoring.factors import Factors, context_factors, item_factors
from fieldwise.training.scoring.scorer import Scorer


def export_factors(
    config: Config, *, model: str | None = None, date: str | None = None, out: str | None = None
) -> dict[str, Any]:
    """Publish the factors of the catalog's contexts and eligible items, computed on this machine alone.

    Args:
        out: directory or URL; default ``<workspace>/factors``. Files go to ``date=<date or all>`` below it.

    Raises ConfigError for models and fields without such a split: POLY2's pairs across are no inner product.
    """
    started = time.perf_counter()
    config.require_catalog()  # before a model is opened
    opened = open_model(model, config)
    bundle = opened.bundle
    require_model(bundle, config, "the model")
    split = split_sides(config, bundle.spec, date)
    require_vectors(bundle, split)
    scorer = Scorer(bundle)
    target = target_of(config, out, date, "factors")
    coverage = Coverage.of(bundle, config)
    items = read_items(config, split.items, bundle.spec, date, coverage)
    contexts = read_contexts(config, split.contexts, bundle.spec, date, coverage)
    say_quarantined(config, [*items.quarantined, *contexts.quarantined])
    for name, of, item in (("contexts", contexts.tally, False), ("items", items.tally, True)):
        shares = of.shares(split.fields(bundle.spec, item=item))
        require_known(config, bundle.spec, f"catalog.{name}", shares)
    found = context_factors(scorer, split.of_item, contexts.slots)
    output = Output(target, bundle.digest)
    output.standing()  # clears away what killed jobs left
    with output, TemporaryDirectory(prefix="fieldwise-factors-") as scratch:
        folder = Path(scratch)
        _write(folder, "items", items.ids, item_factors(scorer, split.of_item, items.slots), one=False)
        _write(folder, "contexts", contexts.ids, found, one=True)
        g = None if bundle.calibrator is None else bundle.calibrator.model_dump(mode="json")
        recipe = {"model": bundle.digest, "kind": bundle.kind, "logit_shift": bundle.logit_shift, "calibrator": g,
                  "recipe": __doc__}  # fmt: skip
        (folder / "recipe.json").write_text(json.dumps(recipe, indent=1) + "\n")
        files = [
            {"path": path.name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in sorted(folder.iterdir())
        ]
        for file in files:
            store.write_new(store.join(output.staging, str(file["path"])), (folder / str(file["path"])).read_bytes())
        output.publish(files, {"date": date, "model": bundle.digest})
    seconds = time.perf_counter() - started
    say(f"factors of {len(contexts.ids):,} contexts and {len(items.ids):,} items: {target}, {seconds:.1f} s")
    return {
        "dir": target, "contexts": len(contexts.ids), "items": len(items.ids), "dimensions": found.vectors.shape[1] + 1,
        "used_model": opened.facts,
    }  # fmt: skip


def _write(folder: Path, name: str, ids: pa.Array, factors: Factors, *, one: bool) -> None:
    width = factors.vectors.shape[1]
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(factors.vectors.ravel()), width) if width else None
    vectors = pa.array([[]] * len(ids), pa.list_(pa.float32())) if vectors is None else vectors
    pq.write_table(
        pa.table({"id": ids, "bias": pa.array(factors.linear), "vector": vectors}), folder / f"{name}.parquet"
    )
    last = np.ones(len(ids)) if one else factors.linear
    rows: Float32 = np.column_stack([factors.vectors, last]).astype(np.float32)
    np.save(folder / f"{name}.npy", rows, allow_pickle=False)
