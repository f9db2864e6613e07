"""What a config would meet: its data opened, joined, labelled and encoded in small, what it would cost, and whether the
places it names answer. No Spark: a few thousand rows from the beginning of the source."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from fieldwise.features import store
from fieldwise.features.columns.batch import Columns, one_table
from fieldwise.features.columns.expression import Expression
from fieldwise.features.errors import ConfigError, FieldwiseError, InputError, known_error, store_error
from fieldwise.features.fields.base import all_but, first_of_rows
from fieldwise.features.fields.encoder import Encoder
from fieldwise.features.fields.fitting import check, count, fit_spec
from fieldwise.features.fields.spec import FeatureSpec
from fieldwise.features.files.listing import SourceFile, list_files
from fieldwise.features.process import cores
from fieldwise.features.source.keys import require_keys
from fieldwise.features.source.log import LogBatch, LogReader
from fieldwise.features.source.rows import FileRange, Reject
from fieldwise.features.terminal import printable
from fieldwise.pipelines.build.checks import require_split
from fieldwise.pipelines.build.columns import require_columns
from fieldwise.pipelines.build.quality import judged_rejects
from fieldwise.pipelines.config.schema import Config
from fieldwise.pipelines.engine import chosen
from fieldwise.pipelines.score.sides import split_sides
from fieldwise.training.data.batch import layout_of
from fieldwise.training.models import kind_of, resolved
from fieldwise.training.models.base import build_model
from fieldwise.training.ranks.world import World
from fieldwise.training.step.exchange import Exchange
from fieldwise.training.step.fused import FusedStep
from fieldwise.training.step.lookup import Lookup
from fieldwise.training.step.optim import OPTIMIZERS, build_optimizer
from fieldwise.training.step.table import EmbeddingTable

ROWS = 10_000
"""That are looked at."""
SHOWN = 10
"""Rows that are shown as they are encoded."""
LEAST_MET = 0.5
"""Share of rows that find their key in a side table, below which something is wrong with the keys."""
_LOOKED, _FILES = 8 << 20, 20
"""Bytes from the beginning of a file, and files, that are read for them at most."""
_MOST_TABLE = 1 << 30
"""Bytes of a table with which a step is tried."""
_CELL = 18
_PROBE = b"fieldwise doctor"


class Head(NamedTuple):
    """The first rows of the source."""

    raw: pa.Table
    """The first ``ROWS`` of those that are kept, at most."""
    label: np.ndarray
    """Of all that are kept."""
    joined: dict[str, int]
    read: int
    """Rows, those that cannot be used among them."""
    bytes: int
    """Of the file, that they take."""
    seconds: float


class ConfigChecks:
    """Checks of one config, in the order of ``all``; later ones use what earlier ones found."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.notes: list[str] = []
        """What is no mistake, but not as it should be, with its remedy."""
        self.lines: list[str] = []
        """The encoded rows."""

    @property
    def all(self) -> dict[str, Callable[[], str]]:
        found = {"config": self._combinations, "source": self._source, "rows": self._rows, "fields": self._fields,
                 "cost": self._cost}  # fmt: skip
        found |= {"catalog": self._catalog} if self.config.catalog is not None else {}
        return found | {"workspace": self._workspace, "store": self._store}

    @cached_property
    def _files(self) -> list[SourceFile]:
        return list_files(self.config.source, self.config.base, None)

    def without_spark(self) -> str | None:
        """Why commands of this config do without Spark; None where they take it, or that is not known."""
        try:
            name, why = chosen(self.config, sum(file.size for file in self._files))
        except (FieldwiseError, OSError):
            return None
        return why if name == "local" else None

    def _combinations(self) -> str:
        """What loading a config does not refuse, since some command can do without it."""
        config, dated = self.config, any("{date}" in path for path in self.config.source.path)
        if not dated:
            require_split(config)
        label = Expression(config.label, "label").columns
        for field in config.fields:
            if set(field.columns) & set(label):
                self._note(f"fields.{field.name} reads the label's column {field.columns[0]!r}: a model that knows the "
                           "answer learns nothing else. Remove the field.")  # fmt: skip
        if config.catalog is not None and not kind_of(config.model.kind).splits:
            most = f"score-catalog scores at most {config.catalog.max_pairs:,} pairs (catalog.max_pairs)"
            self._note(f"model.kind {config.model.kind} does not split into context and item factors: {most}. For more "
                       "write `model: {kind: ffm}`.")  # fmt: skip
        return f"{len(config.fields)} fields, {config.model.kind}, split by {config.split.by}"

    def _source(self) -> str:
        require_columns(self.config, self._files)
        size = sum(file.size for file in self._files)
        return f"{len(self._files)} files, {size / 2**20:.1f} MiB; every column that the config names is there"

    @cached_property
    def _head(self) -> Head:
        """InputError or RefusedError where the rows cannot be used."""
        config, started = self.config, time.perf_counter()
        reader = LogReader(config.features, config.base)
        require_keys(config.source, self._files, reader.columns)
        rejects: list[Reject] = []
        batches: list[LogBatch] = []
        rows = bytes = filtered = 0
        for batch in (found for rng in self._ranges() for found in reader.read(rng)):
            batch = batch.without(check(config.fields, batch.columns))
            batches += [batch] if batch.rows else []
            rejects += batch.rejects
            rows, filtered = rows + batch.rows, filtered + batch.filtered
            line = batch.raw.line
            bytes += int(line[-1, 1] - line[0, 0]) if batch.rows and line is not None else 0
            if rows >= ROWS:
                break
        judged_rejects(config.features, "source", rows + filtered, rejects, config.source.format)
        if not rows:
            raise InputError("source", expected="rows", found=f"none, {filtered} filtered",
                             fix="Check `filter` and source.path.")  # fmt: skip
        raw = one_table([batch.columns.batch() for batch in batches]).slice(0, ROWS)
        label = np.concatenate([batch.label for batch in batches if batch.label is not None])
        met: dict[str, int] = {}
        for batch in batches:
            met |= {name: met.get(name, 0) + found for name, found in batch.joined.items()}
        return Head(raw, label, met, rows + filtered + len(rejects), bytes, time.perf_counter() - started)

    def _ranges(self) -> list[FileRange]:
        """The first part of the first files."""
        parquet = self.config.source.format == "parquet"
        files = [file for file in self._files if file.size][:_FILES] or self._files[:1]
        return [FileRange(file.path, 0, 1 if parquet else min(file.size, _LOOKED)) for file in files]

    def _rows(self) -> str:
        head, rate = self._head, float(self._head.label.mean())
        if rate in (0.0, 1.0):
            same = f"label `{self.config.label}` is {rate:.0f} in each of the first {len(head.label):,} rows"
            self._note(f"{same}: is it what you mean? A click column is named alone (`label: click`), ratings are "
                       "compared (`label: rating >= 4`), texts, too (`label: event == \"click\"`).")  # fmt: skip
        for name, met in head.joined.items():
            if met < LEAST_MET * head.read:
                self._note(f"join {name}: {met:,} of {head.read:,} rows find their key. Write keys alike in both files "
                           "(7 and 007 are two), or join on another column.")  # fmt: skip
        joins = "".join(f"; {met / max(1, head.read):.1%} meet {name}" for name, met in head.joined.items())
        return f"{head.read:,} read, {len(head.label):,} kept, {rate:.3%} positive{joins}"

    @cached_property
    def _spec(self) -> FeatureSpec:
        return fit_spec(self.config.fields, count(self.config.fields, Columns.of(self._head.raw)))

    @cached_property
    def _encoded(self) -> tuple[np.ndarray, float]:
        """(slots of the rows that can be encoded, seconds)"""
        encoder, started = Encoder(self._spec), time.perf_counter()
        encoded = encoder.encode(self._head.raw)
        seconds = time.perf_counter() - started
        bad = first_of_rows(encoded.problems)
        return encoded.slots[all_but(bad, len(encoded.slots))], seconds

    def _fields(self) -> str:
        spec, slots = self._spec, self._encoded[0]
        self.lines = _table(spec, slots)
        for field in spec.fields:
            own = slots[:, field.first_slot : field.first_slot + field.slots]
            missing = float((own[:, 0] == 1).mean())
            distinct = len(np.unique(own[own > 2]))
            if missing > 0.95:
                self._note(f"fields.{field.name}: {missing:.0%} of the first rows lack a value. Check `column`, or the "
                           "key of the side table it comes from.")  # fmt: skip
            elif field.kind == "vocabulary" and float((own == 2).mean()) > 0.9:
                self._note(f"fields.{field.name}: nine of ten values come too rarely for min_count. Use kind: hash.")
            elif distinct < 2:
                self._note(f"fields.{field.name}: one value in the first rows. Remove the field.")
        return f"{len(spec.fields)} fields in {spec.slots} slots; the first {min(SHOWN, len(slots))} rows are below"

    def _cost(self) -> str:
        """Estimates: from this machine's speed at these rows."""
        head, spec = self._head, self._spec
        total = self._total_rows()
        model = build_model(resolved(self.config.model), layout_of(spec))
        optimizer = OPTIMIZERS[self.config.training.optimizer]
        state = optimizer.state_width(model.width) * len(optimizer.states)
        table = model.rows * 4 * (2 * model.width + state)
        build = total * head.seconds / max(1, head.read) / cores()
        engine, _ = chosen(self.config, sum(file.size for file in self._files))
        start = " and a Spark start" if engine == "spark" else ""
        words = f"about {total:,} rows; features about {build:,.0f} s{start}; "
        words += f"table {model.rows:,} x {model.width}, with optimizer and best weights {table / 2**20:,.0f} MiB"
        grows = any(field.config.fitted and field.kind == "vocabulary" for field in spec.fields)
        words += " (vocabularies as the first rows fill them)" if grows and total > head.read else ""
        step = self._step() if table <= _MOST_TABLE else None
        if step is not None:
            epoch = total * step
            words += f"; an epoch about {epoch:,.1f} s, a training some ten to thirty"
            words += ", and half of that again to choose settings (training.auto)" if self.config.training.auto else ""
        have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if table > have / 2:
            takes = f"the table takes {table / 2**30:.1f} GiB of this machine's {have / 2**30:.1f}"
            self._note(f"{takes}. Give hashed fields fewer `buckets` (two a value are plenty), set a smaller "
                       "model.dim, or `training: {table: bfloat16}`.")  # fmt: skip
        return words

    def _total_rows(self) -> int:
        head, size = self._head, sum(file.size for file in self._files)
        kept = len(head.label)
        if kept < ROWS and size <= _LOOKED and len(self._files) <= _FILES:
            return head.read  # those are all
        return max(head.read, int(size * kept / head.bytes)) if head.bytes else head.read

    def _step(self) -> float | None:
        """Seconds a row of a training step on these rows; None for models without a compiled one."""
        layout, slots = layout_of(self._spec), self._encoded[0]
        model = build_model(resolved(self.config.model), layout)
        world = World()
        table = EmbeddingTable(model.rows, model.width, seed=1, scale=0.1)
        if not self.config.training.fused or not FusedStep.serves(model, table.weight.device, world.size):
            return None
        optimizer, exchange = build_optimizer("adagrad", table), Exchange(world, table.rows)
        rows = min(len(slots), self.config.training.batch_size)
        label = self._head.label[:rows].astype(np.float32)
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            found = Lookup(layout)(np.asfortranarray(slots[:rows]))
            step = FusedStep(model, table, optimizer, exchange)
            step(found, exchange.union(found, rows, float(rows)), label, np.ones(rows, np.float32), 0.01, 0.0)
            taken.append(time.perf_counter() - started)
        return min(taken) / rows

    def _catalog(self) -> str:
        catalog = self.config.require_catalog()
        if any("{date}" in path for path in (*catalog.contexts.path, *catalog.items.path)):
            return "its paths name a day: score-catalog --date will see"
        date = "2000-01-01" if catalog.time is not None and "{date}" in catalog.time else None
        split = split_sides(self.config, self._spec, date)
        if split.mixed:
            mixed = f"field {split.mixed[0]!r} reads columns of contexts and items: every pair is scored by itself"
            self._note(f"{mixed}, at most {catalog.max_pairs:,}. Leave the field out for large catalogs.")
        items = int(split.of_item.sum())
        if items == 0:
            fix = f"Add one: `- {{name: {catalog.item_id}, kind: vocabulary}}`."
            raise ConfigError("catalog.items", expected="a field of the items, to rank them by", found="none", fix=fix)
        if items == len(split.of_item):
            self._note("no field is of the contexts, so all lists are the same. Add one, such as "
                       f"`- {{name: {catalog.context_id}, kind: vocabulary}}`.")  # fmt: skip
        return f"{len(split.of_item) - items} fields of contexts, {items} of items"

    def _workspace(self) -> str:
        place = near = self.config.workspace_dir
        local = store.is_local(place)
        if local:  # where it will be made
            near = store.resolve(place)[1]
            while not os.path.isdir(near):
                near = os.path.dirname(near)
        probe = store.join(near, f".doctor.{uuid.uuid4().hex}.tmp")
        try:
            store.create_exclusive(probe, _PROBE)
        except OSError as error:
            if store_error(error) is not None:
                raise
            found = error.strerror or str(error)
            raise ConfigError(
                place, expected="a place to write", found=found, fix="Set another `workspace`."
            ) from error
        try:
            read = store.read_bytes(probe)
            listed = os.path.basename(probe) in store.list_sizes(near)
            try:
                store.create_exclusive(probe, _PROBE[::-1])
                again = "a second one put over it"
            except FileExistsError:
                again = ""
        finally:
            store.remove(probe)
        if again or not listed:
            fix = "Take a store that knows conditional writes (If-None-Match) and lists what was written."
            expected = "a file that can be created once and is listed"
            raise ConfigError(place, expected=expected, found=again or "none listed", fix=fix)
        if read != _PROBE:
            raise InputError(place, expected="what was written", found="other bytes", fix="Set another `workspace`.")
        free = f", {shutil.disk_usage(near).free / 2**30:.0f} GiB free" if local else ""
        return f"{place}: written, read, listed, created once and removed{free}"

    def _store(self) -> str:
        from fieldwise.pipelines.registry import registry
        from fieldwise.training.tracking import runs

        uri = runs.connect(self.config.tracking.uri, self.config.workspace_dir)
        return f"{uri}, champion: {registry(self.config).version_of('champion') or 'none'}"

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def remedied(error: Exception, otherwise: str) -> str:
    """What a check found, with what to do about it."""
    return str(known_error(error) or f"{type(error).__name__}: {error}. {otherwise}")


def _table(spec: FeatureSpec, slots: np.ndarray) -> list[str]:
    """A line a field, a column a row: what the model will see of the first rows."""
    lines = []
    for field in spec.fields:
        cells = []
        for row in slots[:SHOWN]:
            own = row[field.first_slot : field.first_slot + field.slots].tolist()
            told = "|".join(spec.value_of(field.name, index) for index in own if index)
            cells.append(f"{printable(told)[:_CELL]:<{_CELL}}")
        lines.append(f"{printable(field.name)[:24]:<24} {field.kind:<10} {' '.join(cells)}".rstrip())
    return lines
