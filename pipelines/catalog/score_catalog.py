"""The exact top-K items of a catalog for every context, as published Parquet sorted by (context id, rank)."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from fieldwise.features import store
from fieldwise.features.build.files import merge_rejects, write_rejects
from fieldwise.features.config import SourceConfig
from fieldwise.features.engine.base import Engine, Frame, collect_reports
from fieldwise.features.errors import ConfigError, InputError
from fieldwise.features.files.listing import list_files
from fieldwise.features.source.headers import require_one_header
from fieldwise.features.source.quarantine import Quarantined, by_reason
from fieldwise.features.source.raw import split_ranges
from fieldwise.features.terminal import say, warn
from fieldwise.pipelines.agreement import require_model
from fieldwise.pipelines.build.quality import judged, say_quarantined
from fieldwise.pipelines.catalog import tasks
from fieldwise.pipelines.catalog.distinct import different
from fieldwise.pipelines.catalog.items import RANGE_BYTES, Items, read_items
from fieldwise.pipelines.catalog.lists import CATEGORY, IDS, RAW, factored_lists, pairwise_lists
from fieldwise.pipelines.catalog.page import page
from fieldwise.pipelines.catalog.pairs import match, require_columns, require_matched
from fieldwise.pipelines.catalog.samples import Sampled, say_samples
from fieldwise.pipelines.catalog.tasks import CANDIDATE, CONTEXT, EXCLUDE, PAIRS, REPORT, Inputs, Model, Said
from fieldwise.pipelines.catalog.vectors import require_similarity
from fieldwise.pipelines.config.catalog import CatalogConfig
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.engine import open_engine
from fieldwise.pipelines.registry import open_model
from fieldwise.pipelines.score.coverage import Coverage, Tally, require_known
from fieldwise.pipelines.score.ids import IdKind, column_types
from fieldwise.pipelines.score.output import PAGE, QUARANTINE, Output, target_of
from fieldwise.pipelines.score.shipping import Shipment
from fieldwise.pipelines.score.sides import Split, split_sides
from fieldwise.pipelines.unchanged import Stamps, require_unchanged, stamps_of
from fieldwise.training.models import kind_of
from fieldwise.training.network.bundle import Bundle
from fieldwise.training.scoring.items import Catalog
from fieldwise.training.scoring.scorer import Scorer

CONTEXTS_PER_FILE = 1024
MOST_FILES = 4096
_RULES = 4
"""Raised when other lists, or other words on them, follow from the same request: what stands is made anew."""
_DRAWN_PER_FILE = 200
"""Contexts whose ids say where files begin, drawn by the hash of their ids."""


def score_catalog(
    config: Config, *, model: str | None = None, date: str | None = None, out: str | None = None
) -> dict[str, Any]:
    """Publish ``<out>/date=<date or all>``: context_id, rank (from 1), item_id, probability, model_version.

    The list of a context holds its ``catalog.k`` best eligible items by (logit descending, item id ascending), exactly
    those that scoring every pair with the model gives. Running it again changes nothing unless model, sources or the
    ``catalog`` block changed; then the new output takes the old one's place.

    Args:
        model: a bundle's directory or a registered model; default: the champion.
        date: stands for ``{date}`` in the catalog's paths and its ``time``, and names the partition.
        out: default ``<workspace>/scores/catalog``.

    Raises: ConfigError, InputError, ArtifactError (exit code 2), RefusedError (3): nothing is published then.
    """
    started = time.perf_counter()
    catalog = config.require_catalog()
    opened = open_model(model, config)
    bundle, version = opened.bundle, opened.label
    require_model(bundle, config, f"model {version}")
    for source in _sources(config, catalog):
        require_one_header(source, list_files(source, config.base, date))
    split = split_sides(config, bundle.spec, date)
    if catalog.diversity is not None:
        require_similarity(bundle, split, "catalog.diversity")
    target = target_of(config, out, date, "scores", "catalog")
    stamps = _stamps(config, catalog, date)
    newer = ("at_least", "diversity", "item_name")
    unset = {key for key in newer if getattr(catalog, key) is None}  # as in earlier versions
    asked = catalog.model_dump(mode="json", exclude={"max_unmatched", *unset})
    output = Output(target, [_RULES, bundle.digest, version, date, asked, stamps])
    found = output.standing()
    if found is not None:
        _require(config, bundle, found["fields"])
        require_matched(config, found["matched"])
        result = _result(found, target, "already published", started)
        say_samples(config, found, target, bundle.kind, date)
        return result | {"used_model": opened.facts}
    files = [file for source in _sources(config, catalog) for file in list_files(source, config.base, date)]
    engine = open_engine(config, "score-catalog", files)
    scratch = tempfile.mkdtemp(prefix="fieldwise-catalog-")
    try:
        with output:
            run = _Run(engine, config, catalog, bundle, split, output.staging, scratch, version, date)
            parts, facts = run.score()
            require_unchanged(stamps)
            facts |= {"date": date, "model": bundle.digest, "model_version": version}
            html = page(config, facts, Sampled.of(output.staging, parts), bundle.kind, date)
            store.write_atomic(store.join(output.staging, PAGE), html.encode())
            manifest = output.publish(parts, facts)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    result = _result(manifest, target, "published", started)
    say_samples(config, manifest, target, bundle.kind, date)
    return result | {"used_model": opened.facts}


@dataclass(frozen=True)
class _Run:
    """One job: items on the driver, contexts and lists in tasks."""

    engine: Engine
    config: Config
    catalog: CatalogConfig
    bundle: Bundle
    split: Split
    staging: str
    scratch: str
    version: str
    date: str | None

    def score(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Reports of the written files, and figures."""
        lists = factored_lists if kind_of(self.bundle.kind).splits and not self.split.mixed else pairwise_lists
        with _beside() as driver, ExitStack() as ending:
            coverage = Coverage.of(self.bundle, self.config)
            reading = driver.submit(read_items, self.config, self.split.items, self.bundle.spec, self.date, coverage)
            writing = driver.submit(lambda: self._write(reading.result(), factored=lists is factored_lists))
            encoded = ending.enter_context(self._encoded(reading, coverage, whole=lists is pairwise_lists).kept())
            said, rejected, bad = self._said(encoded, reading, coverage)
            counts, items = said.counts, reading.result()
            if len(items.ids) < self.catalog.k:
                warn(f"catalog.k is {self.catalog.k:,}, and {len(items.ids):,} items are eligible: lists are shorter")
            fields = {
                "contexts": said.tally.shares(self.split.fields(self.bundle.spec, item=False)),
                "items": items.tally.shares(self.split.fields(self.bundle.spec, item=True)),
            }
            _require(self.config, self.bundle, fields)
            if lists is pairwise_lists:
                self._require_small(counts["contexts"] * len(items.ids))
            borders = self._borders(encoded, counts["contexts"])
            model = self.engine.share(self._model(*writing.result(), items, bool(counts["wide"])))
            keys = self.engine.places(len(borders) + 1)
            schema = tasks.PLACED.format(id=self._ids.spark)
            rows = encoded.where("kind", [CONTEXT, *PAIRS], ["kind", "id", "payload", "item"])
            placed = rows.mapped(tasks.place_task(borders, keys), schema).shuffled("place", len(keys))
            reports = collect_reports(placed, tasks.rank_task(model, keys, lists), "lists")
        self._refuse_twins(reports)
        matched = match(said, reports, items.ids, self.catalog)
        require_matched(self.config, matched)
        if rejected:
            merge_rejects(self.staging, rejected, QUARANTINE)
        for found in bad.values():
            say_quarantined(self.config, found)
        reports.sort(key=lambda report: report["number"])
        varied = different(reports, counts["contexts"], len(items.ids))
        items_aside = {("items", ""): len(items.rejects)} if items.rejects else {}
        facts = {
            "source_files": self._source_files(),
            "contexts": counts["contexts"],
            "items": len(items.ids),
            "items_read": items.rows,
            "rows": sum(report["rows"] for report in reports),
            "pairs": counts["candidates"] if self.catalog.candidates else counts["contexts"] * len(items.ids),
            "by": "factors" if lists is factored_lists else "pairs",
            "matched": matched,
            "different": varied,
            "fields": fields,
            "quarantined": by_reason(said.set_aside("contexts")[0] | items_aside),
            "quarantine": {side: [part.model_dump() for part in found] for side, found in bad.items()},
        }
        return reports, facts

    def _encoded(self, items: Future[Items], coverage: Coverage, *, whole: bool) -> Frame:
        """Contexts and pairs, read and encoded by tasks; only pairs need to know the items."""
        contexts, pairs = self.split.contexts, []
        ranges = [(CONTEXT, rng) for rng in self._ranges(contexts.source)]
        for kind, source in ((EXCLUDE, self.catalog.exclude), (CANDIDATE, self.catalog.candidates)):
            if source is not None:
                pairs.append(
                    (kind, source, source.context or self.catalog.context_id, source.item or self.catalog.item_id)
                )
                require_columns(
                    source, list_files(source, self.config.base, self.date), f"catalog.{PAIRS[kind]}", pairs[-1][2:]
                )
                ranges += [(kind, rng) for rng in self._ranges(source)]
        ids = items.result().ids if pairs else pa.nulls(0, pa.string())
        ids_as = self._ids
        inputs = Inputs(contexts, tuple(pairs), tuple(ranges), ids, ids_as, coverage, whole, self.staging)
        schema = pa.schema(
            [
                ("kind", pa.int32()), ("id", ids_as.arrow), ("key", pa.int64()), ("payload", pa.binary()),
                ("item", pa.int64()),
            ]
        )  # fmt: skip
        task = tasks.encode_task(self.engine.share(inputs), self.engine.share(self.bundle.spec), schema)
        return self.engine.numbered(len(ranges)).mapped(task, tasks.ROW.format(id=ids_as.spark))

    def _source_files(self) -> dict[str, int]:
        """How many files each source has."""
        sources = {name: getattr(self.catalog, name) for name in ("contexts", "items", "exclude", "candidates")}
        listed = {name: list_files(source, self.config.base, self.date) for name, source in sources.items() if source}
        return {name: len(files) for name, files in listed.items()}

    def _ranges(self, source: SourceConfig) -> list[Any]:
        return split_ranges(source, list_files(source, self.config.base, self.date), RANGE_BYTES)

    @cached_property
    def _ids(self) -> IdKind:
        """Of the contexts."""
        side = self.split.contexts
        return IdKind.of(
            column_types(side.source, list_files(side.source, self.config.base, self.date), side.id, "catalog.contexts")
        )

    def _said(
        self, encoded: Frame, items: Future[Items], coverage: Coverage
    ) -> tuple[Said, list[str], dict[str, list[Quarantined]]]:
        """What tasks counted, the names of their quarantine files, and what is in them."""
        said = Said(Tally(self.bundle.spec, coverage))
        for row in encoded.where("kind", [REPORT], ["payload"]).rows("contexts"):
            said.hear(bytes(row["payload"]))
        counts = said.counts
        files = sorted(key.removeprefix("quarantine ") for key in counts if key.startswith("quarantine "))
        bad, seen = said.set_aside("contexts")
        formats = self.split.contexts.source.format
        contexts = judged(self.config, "catalog.contexts", counts["contexts"], bad, seen, formats)
        if not counts["contexts"]:
            raise InputError("catalog.contexts", expected="at least one context", found="none", fix="Check its path.")
        rejects = items.result().rejects
        if rejects:
            files.append(write_rejects(self.staging, 1 << 20, rejects))
        return said, files, {"contexts": contexts, "items": items.result().quarantined}

    def _borders(self, encoded: Frame, contexts: int) -> list[Any]:
        """First ids of all files but the first: quantiles of ids drawn by their hash, so the data alone decides."""
        files = min(MOST_FILES, -(-contexts // CONTEXTS_PER_FILE))
        if files == 1:
            return []
        share = min(1.0, _DRAWN_PER_FILE * files / contexts)
        drawn = encoded.where("kind", [CONTEXT], ["id", "key"]).mapped(tasks.drawn_task(share), f"id {self._ids.spark}")
        ids = sorted(row["id"] for row in drawn.rows("contexts"))
        return [ids[len(ids) * i // files] for i in range(1, files)]

    def _write(self, items: Items, *, factored: bool) -> tuple[Shipment, list[str]]:
        """Write what executors open."""
        bundle, prefix = self.bundle, f"{self.staging.rpartition('.')[2]}-"
        shipment = Shipment(self.engine, bundle, self.scratch, prefix)
        _write_arrow(shipment.path(IDS), pa.table({"id": items.ids}))
        if factored:
            catalog = Catalog.of(Scorer(bundle), self.split.of_item, items.slots, items.category)
            return shipment, [IDS, *catalog.save(shipment.path)]
        side = self.split.items
        joined = {name for table in side.tables for name in table.names}
        own = {*side.read, *joined} - set(self.split.contexts.constants)
        raw = items.columns([column for column in bundle.spec.raw_columns if column in own])
        _write_arrow(shipment.path(RAW), raw.append_column(CATEGORY, pa.array(items.category)))
        return shipment, [IDS, RAW]

    def _model(self, shipment: Shipment, names: list[str], items: Items, wide: bool) -> Model:
        """Send it, and say where it is."""
        return Model(
            shipped=shipment.send(names),
            k=self.catalog.k,
            cap=self.catalog.cap.items if self.catalog.cap else 0,
            least=items.least,
            diversity=self.catalog.diversity,
            only=self.catalog.candidates is not None,
            version=self.version,
            directory=self.staging,
            ids=self._ids,
            wide=wide,
            spec=self.bundle.spec if RAW in names else None,
        )

    def _require_small(self, pairs: int) -> None:
        reason = (
            f"field {self.split.mixed[0]!r} reads columns of both contexts and items"
            if self.split.mixed
            else f"a {self.bundle.kind} model does not split into context and item factors"
        )
        if pairs > self.catalog.max_pairs:
            raise ConfigError(
                "catalog",
                expected=f"at most {self.catalog.max_pairs:,} pairs, because {reason}",
                found=f"{pairs:,}",
                fix="Use a model and fields that split, fewer contexts or items, or raise catalog.max_pairs.",
            )

    def _refuse_twins(self, reports: list[dict[str, Any]]) -> None:
        for report in reports:
            if "twin" in report:
                raise InputError(
                    "catalog.contexts",
                    expected=f"each {self.catalog.context_id} once",
                    found=f"{report['twin']!r} again",
                    fix="Give every context one row.",
                )


def _require(config: Config, bundle: Bundle, fields: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse values that training has not seen, side by side."""
    for side, shares in fields.items():
        require_known(config, bundle.spec, f"catalog.{side}", shares)


@contextmanager
def _beside() -> Iterator[ThreadPoolExecutor]:
    """A thread for the driver's own work, beside what Spark does. When that fails, nobody waits for the thread."""
    driver = ThreadPoolExecutor(1)
    try:
        yield driver
    except BaseException:
        driver.shutdown(wait=False, cancel_futures=True)
        raise
    driver.shutdown()


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _stamps(config: Config, catalog: CatalogConfig, date: str | None) -> Stamps:
    """Marks of every file the output depends on."""
    sources = _sources(config, catalog)
    return stamps_of(file for source in sources for file in list_files(source, config.base, date))


def _sources(config: Config, catalog: CatalogConfig) -> list[SourceConfig]:
    whole = (catalog.contexts, catalog.items, catalog.exclude, catalog.candidates, *config.join)
    return [source for source in whole if source is not None]


def _result(manifest: dict[str, Any], target: str, status: str, started: float) -> dict[str, Any]:
    """The job's result; its summary goes to stderr."""
    seconds = time.perf_counter() - started
    say(f"catalog {manifest['digest'][:12]} {status}: {target}")
    shown = {name: f"{manifest[name]:,}" for name in ("contexts", "items", "pairs", "rows")}
    shown |= {"files": f"{len(manifest['files']):,}", "model": str(manifest["model_version"]), "by": manifest["by"]}
    pace = f"{manifest['pairs'] / seconds:,.0f}" if status == "published" else "-"
    shown |= {"seconds": f"{seconds:.1f}", "pairs/s": pace}
    widths = [max(len(name), len(text)) for name, text in shown.items()]
    for row in (shown.keys(), shown.values()):
        say("  " + "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)))
    if "source_files" in manifest:  # not in outputs of older versions
        say(f"  files read: {', '.join(f'{count:,} {name}' for name, count in manifest['source_files'].items())}")
    for reason, count in manifest["quarantined"].items():
        say(f"  quarantined {reason}: {count:,}")
    report = store.join(target, PAGE)
    say(f"  report: {report}")
    facts = {key: value for key, value in manifest.items() if key not in ("files", "request")}
    return {
        **facts,
        "dir": target,
        "report": report,
        "status": status,
        "files": len(manifest["files"]),
        "seconds": round(seconds, 3),
    }
