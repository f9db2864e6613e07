"""From a log to a config that runs: look, guess, write, and say why. Nothing is asked, nothing is overwritten."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from fieldwise.features.columns.expression import quoted
from fieldwise.features.columns.moment import show_moment
from fieldwise.features.errors import InputError
from fieldwise.features.redact import redacted
from fieldwise.features.terminal import say, warn
from fieldwise.features.words import some
from fieldwise.pipelines.init import draft as drafts
from fieldwise.pipelines.init.draft import Draft, source_block, split_of
from fieldwise.pipelines.init.guess.columns import columns_of, follows, shown, words_of
from fieldwise.pipelines.init.guess.fields import Field, Left, chosen, log_fields, side_fields, time_fields
from fieldwise.pipelines.init.guess.ids import CONTEXTS, ITEMS, find_id, likely_ids
from fieldwise.pipelines.init.guess.labels import find_label, no_label, require_no_outcome
from fieldwise.pipelines.init.guess.times import find_time, misread_times, unread_times
from fieldwise.pipelines.init.keyed import Made, foremost, is_position, make, may_be_places
from fieldwise.pipelines.init.opening import open_as
from fieldwise.pipelines.init.places import require_places
from fieldwise.pipelines.init.sample import Sample, look
from fieldwise.pipelines.init.sides import Side, hidden, match, rename, title_of, with_key
from fieldwise.pipelines.init.writing import write

FEW = 100
"""Positives below which next to nothing can be learned."""
K = 10
"""Items of a list."""
_NAMES = 0.9
"""Of the values of context or item: a column of as many that follow from it is another name of it."""


def init(
    log: str, *, users: str | None = None, items: str | None = None, label: str | None = None,
    context: str | None = None, item: str | None = None, out: str = "config.yaml",
) -> dict[str, Any]:  # fmt: skip
    """Write a commented config for a log, and tables of its contexts and items where none are given.

    Args:
        log: absolute path or URL, as of ``source.path``.
        users, items: side tables whose keys the log holds.
        label: an expression, where the guess would be wrong.
        context, item: columns of the log that say who gets a list, and what may be in it; likewise.
        out: the file to write.

    Raises: ConfigError for a file that is there already, InputError where nothing useful can be guessed.
    """
    target = os.path.abspath(out)
    require_places(target, *(path for path in (log, users, items) if path is not None))
    sample = look(open_as(log))
    say(f"looked at {sample.words} of {', '.join(sample.opening.config.path)}")
    found = _Guess(sample, _side(users, "user_c"), _side(items, "item_c"), label, (context, item))
    draft = found.draft(log, target)
    written = write(draft, found.made, target)
    for line in draft.warnings:
        warn(line)
    fields = ", ".join(shown(field.name) for field in draft.fields)
    told = draft.label.expression if draft.label is not None else "every row; negatives are drawn"
    say(
        f"label: {shown(told, 80)}", f"time: {shown(draft.time.config.column) if draft.time else 'none'}",
        f"fields: {fields}", f"wrote {', '.join(written)}; every guess has its reason there",
        f"next: fieldwise doctor --config {out}; fieldwise features --config {out}; fieldwise train --config {out}",
    )  # fmt: skip
    return {
        "config": target, "written": written, "rows_looked_at": sample.rows, "rows": sample.total,
        "label": told, "time": draft.time.config.column if draft.time else None,
        "fields": [field.name for field in draft.fields], "left_out": {one.column: one.reason for one in draft.left},
        "context": found.context, "item": found.item, "warnings": draft.warnings,
    }  # fmt: skip


def _side(path: str | None, prefix: str) -> Sample | None:
    return None if path is None else look(open_as(path, prefix))


class _Guess:
    """All that is guessed of a log and its side tables."""

    def __init__(
        self, log: Sample, users: Sample | None, items: Sample | None, asked: str | None,
        ids: tuple[str | None, str | None],
    ) -> None:  # fmt: skip
        self.made: dict[str, Made] = {}
        self.names: dict[str, str] = {}
        """Columns of the log that are names of context or item, and of which."""
        self.log = log
        self.users, self.items = self._met(users, items)
        if not self.log.opening.named:
            self._call(asked)
        self.columns = columns_of(self.log.table, self.log.total, [*self.log.opening.names, *self.log.told])
        named = self.log.opening.named
        keys = [side.key for side in (self.users, self.items) if side is not None]
        others = {name: column for name, column in self.columns.items() if name not in keys}
        self.label = find_label(self.columns if asked else others, self.log.table, named, asked)
        self.time = find_time(others, named, self.label.columns if self.label else ())
        taken = [*keys, *(self.label.columns if self.label else ()), *([self.time.config.column] if self.time else [])]
        taken += [one for one in ids if one is not None]
        given = [self._given(f"--{what}", one) for what, one in zip(("context", "item"), ids, strict=True)]
        self.context = self.users.key if self.users else given[0] or find_id(self.columns, CONTEXTS, taken)
        taken += [self.context] if self.context else []
        self.item = self.items.key if self.items else given[1] or find_id(self.columns, ITEMS, taken)
        self.unread = unread_times(self.columns, [*taken, *([self.item] if self.item else [])])
        """Columns of times that are none to us."""
        if self.label is None and (self.context is None or self.item is None):
            raise no_label(self.columns)
        if self.label is None and not asked:
            own = [self.columns[one] for one in (self.context, self.item) if one in self.columns]
            require_no_outcome(self.columns, [*taken, *([self.item] if self.item else [])], own)

    def _given(self, option: str, name: str | None) -> str | None:
        """A column that the user has named. InputError where the log has none of that name."""
        if name is None or name in self.columns:
            return name
        found = some([shown(each) for each in self.columns])
        raise InputError(option, expected=f"a column {name!r} of the log", found=found, fix="Name one of these.")

    def _met(self, users: Sample | None, items: Sample | None) -> tuple[Side | None, Side | None]:
        """The side tables by their keys; a log without names is told them."""
        log = columns_of(self.log.table, self.log.total, self.log.opening.names)
        given = {"user": (users, CONTEXTS), "item": (items, ITEMS)}
        found = {
            what: (side, match(log, side, words, f"--{what}s"))
            for what, (side, words) in given.items()
            if side is not None
        }
        names = {} if self.log.opening.named else {one.log: what for what, (_, one) in found.items()}
        if names:
            self.log = rename(self.log, names)
        keyed = {what: with_key(side, one, names.get(one.log, one.log)) for what, (side, one) in found.items()}
        return keyed.get("user"), keyed.get("item")

    def _call(self, asked: str | None) -> None:
        """Names for what has none, as far as its values say what it is."""
        columns = columns_of(self.log.table, self.log.total, self.log.opening.names)
        known = {side.key for side in (self.users, self.items) if side is not None}
        columns = {name: column for name, column in columns.items() if name not in known}
        label = None if asked else find_label(columns, self.log.table, False, None)
        moments = find_time(columns, False, label.columns if label else ())
        names = {}
        if label is not None:
            names[label.columns[0]] = "rating" if ">=" in label.expression else "label"
        if moments is not None:
            names[moments.config.column] = "time"
        if names:
            self.log = rename(self.log, names)

    def draft(self, log: str, target: str) -> Draft:
        """The config, still without its text."""
        directory, config = os.path.split(target)
        stem = Path(target).stem
        opening, label = self.log.opening, self.label
        found = [*self._log_fields(), *self._side_fields()]
        ids = [name for name in (self.context, self.item) if name is not None]
        fields, left = chosen(found, ids)
        draft = Draft(_name(stem, log), self._heading(log), opening, label=label, time=self.time, left=left)
        draft.fields = [field for field in fields if not self._beyond_items(field, left)]
        draft.joins = [self._join(side, directory) for side in (self.users, self.items) if side is not None]
        draft.bad, draft.filter = self._unreadable()
        rest = {name: column for name, column in self.columns.items() if name not in self.unread}
        draft.split = split_of(label, self.time, rest, self.context)
        draft.warnings = sorted(drafts.grave(left), key=lambda line: ": LEAK" not in line) + self._more_warnings(draft)
        draft.warnings += [f"{shown(field.name)}: {field.caution}" for field in draft.fields if field.caution]
        self._tables(draft, directory, stem, config)
        if not draft.fields:
            why = "; ".join(f"{shown(one.column)}: {one.reason}" for one in left) or "no other column"
            fix = "Add columns of whom and what rows are, or correct --label."
            expected = "a column that says something of the label"
            raise InputError("fields", expected=expected, found=f"none: {why}", fix=fix)
        return draft

    def _heading(self, log: str) -> list[str]:
        lines = [f"Made by `fieldwise init` from {shown(redacted(log), 200)}: {self.log.words} were looked at."]
        lines.append("It runs as it is. Every line is a guess, with what speaks for it: change what you know better. "
                     "All keys: docs/config.md. Snapshots, models and lists go to work/ beside this file.")  # fmt: skip
        if self.log.rejects:
            told = ", ".join(f"{n:,} {reason}" for reason, n in self.log.rejects.most_common(3))
            lines.append(f"Lines that are no rows: {told}.")
        return lines

    def _log_fields(self) -> list[Field | Left]:
        """Of the log's own columns, and of its moments."""
        taken = [*(self.label.columns if self.label else ()), *self.log.told]
        taken += [self.time.config.column] if self.time is not None else []
        columns = {name: column for name, column in self.columns.items() if name not in taken}
        ids = [name for name in (self.context, self.item) if name is not None]
        found: list[Field | Left] = [
            Left(name, f"a time that is not read, such as {shown(self.columns[name].top[0])}: ISO 8601 is, "
                 "2026-01-31 18:00:00")
            for name in self.unread if name in columns
        ]  # fmt: skip
        columns = {name: column for name, column in columns.items() if name not in self.unread}
        found += list(log_fields(columns, None if self.label is None else self.label.positive, ids))
        self.names = {
            one.name: key for one in found if isinstance(one, Field) and (key := self._names(one)) is not None
        }
        kept = [
            Left(one.name, f"a value for each {shown(self.names[one.name])}: says no more than that does")
            if isinstance(one, Field) and one.name in self.names else one
            for one in found
        ]  # fmt: skip
        return [*kept, *time_fields(self.time, list(self.columns))]

    def _names(self, field: Field) -> str | None:
        """Which of context and item a field of the log only names once more."""
        if field.keys["kind"] not in ("vocabulary", "hash") or "max_values" in field.keys:
            return None
        column = self.columns[field.name]
        for key in (self.context, self.item):
            own = self.columns.get(key) if key is not None and key != field.name else None
            if own is not None and column.distinct >= _NAMES * own.distinct and follows(column, own):
                return key
        return None

    def _side_fields(self) -> list[Field | Left]:
        found: list[Field | Left] = []
        for side, what in ((self.users, "user"), (self.items, "item")):
            if side is not None:
                away = hidden(side, self._taken(side))
                columns = {name: column for name, column in side.columns.items() if name not in away}
                found += [Left(name, f"of the {what}s: the log or another table has it, too") for name in away]
                found += side_fields(columns, side.key, what)
        return found

    def _taken(self, side: Side) -> list[str]:
        """Columns that a side table must not add."""
        before = [] if side is self.users or self.users is None else list(self.users.columns)
        return [*self.columns, *before]

    def _join(self, side: Side, directory: str) -> tuple[dict[str, Any], str]:
        config = side.sample.opening.config
        block = {**source_block(config, directory), "on": side.key}
        away = hidden(side, self._taken(side))
        if away or config.format == "jsonl":
            block["select"] = [name for name in side.columns if name not in (*away, side.key)]
        return block, f"{side.reason}; {side.sample.words}"

    def _beyond_items(self, field: Field, left: list[Left]) -> bool:
        """Whether a field of the log says something of items that their table lacks: no list could have it."""
        if self.items is None or field.keys["kind"] == "time" or field.name == self.item or self.item is None:
            return False
        own = [name for name in field.columns if name in self.columns]
        lacks = [name for name in own if name not in self.items.columns and self._of_item(name)]
        if lacks:
            left.append(Left(lacks[0], "of the item, but not in its table: add it there to use it"))
        return bool(lacks)

    def _of_item(self, name: str) -> bool:
        if self.item is None or self.item not in self.columns or name == self.context:
            return False
        return name == self.item or follows(self.columns[name], self.columns[self.item])

    def _unreadable(self) -> tuple[float, str | None]:
        """Share of rows that would be set aside, and the filter that leaves out those without a label."""
        bad, rows = self.log.bad, self.log.rows
        without = np.zeros(rows, np.bool_)
        rule = None
        if self.label is not None:
            words = [word for name in self.label.columns if self.columns[name].missing and (word := quoted(name))]
            for name in self.label.columns:
                without |= ~self.columns[name].set
            rule = " and ".join(f"{word} is not null" for word in words) or None
            bad += float((np.isnan(self.label.positive) & ~without).mean())
        if self.time is not None:
            bad += float((self.time.bad & ~without).mean())
        return bad, rule

    def _more_warnings(self, draft: Draft) -> list[str]:
        lines = []
        if any(redacted(path) != path for path in self.log.opening.config.path):
            lines.append("source.path holds a secret: keep it in the environment and write ${NAME} in its place")
        if self.label is not None and "CHECK" in self.label.reason:
            lines.append(f"{self.label.expression}: {self.label.reason}")
        if self.time is not None and "CHECK" in self.time.reason:
            lines.append(f"{self.time.config.column}: {self.time.reason}")
        if self.time is None:
            lines += misread_times(self.columns, self.label.columns if self.label else ())
        positives = FEW if self.label is None else int(np.nansum(self.label.positive))
        if positives < FEW:
            lines.append(f"only {positives} positives were seen: few models learn from so few")
        if draft.bad > drafts.USUAL_BAD:
            lines.append(f"{draft.bad:.2%} of the rows cannot be read")
        return lines

    def _tables(self, draft: Draft, directory: str, stem: str, config: str) -> None:
        """Contexts and items, and the block of the catalog, where it is known who and what they are."""
        if self.context is None or self.item is None:
            needed = (("a context (user)", self.context), ("an item", self.item))
            lacks = " nor ".join(what for what, found in needed if found is None)
            taken = [*(self.label.columns if self.label else ()), *([self.time.config.column] if self.time else [])]
            taken += self.unread
            options = likely_ids(self.columns, {"--context": self.context, "--item": self.item}, taken)
            fix = (
                f"name the columns{options}, or give tables by --users and --items, in another init, which takes --out "
            )
            fix += f"for another config: {config} is not written over"
            draft.catalog_notes = [f"No catalog to rank: no column is called like {lacks}: {fix}."]
            draft.warnings.append(f"no catalog to rank: no column is called like {lacks}: {fix}")
            return
        read = [name for field in draft.fields for name in field.columns if name in self.columns]
        read = [name for name in dict.fromkeys(read) if self.time is None or name != self.time.config.column]
        of_item = [name for name in read if self._of_item(name) and name != self.item]
        of_item += [name for name, key in self.names.items() if key == self.item]  # no field, but people read it
        fixed = [name for name in read if is_position(name, words_of(name)) and name not in (self.context, *of_item)]
        of_context = [name for name in read if name not in (*of_item, *fixed, self.context, self.item)]
        contexts = self._table("contexts", self.users, self.context, of_context, directory, stem)
        items = self._table("items", self.items, self.item, [] if self.items else of_item, directory, stem)
        draft.catalog = {"contexts": contexts, "context_id": self.context, "items": items, "item_id": self.item, "k": K}
        title = None if self.items is None else title_of(self.items, [one.column for one in draft.left])
        draft.catalog |= {} if title is None else {"item_name": title}
        told = " and ".join(f"{shown(one)} by its {'table' if given else 'name'}"
                            for one, given in ((self.context, self.users), (self.item, self.items)))  # fmt: skip
        draft.catalog_notes = [f"The best items for every context, by `fieldwise score-catalog`: {told}."]
        draft.catalog_notes += [f"{what}: {made.reason}" for what, made in self.made.items()]
        if any(field.keys["kind"] == "time" for field in draft.fields) and self.time is not None:
            draft.catalog["time"] = show_moment(self.time.last, "UTC")[:19]
            draft.catalog_notes.append('time: the last moment of the log; for a daily job "{date}T19:00:00", say')
        if fixed:
            draft.catalog["fixed"] = foremost(self.columns, fixed)
            draft.catalog_notes.append(
                "fixed: where an item is shown, which no list knows before: as if it stood first"
            )
        else:
            draft.warnings += may_be_places(self.columns, of_context, self.columns[self.context])
        if self.label is None:
            draft.negatives = {"items": items, "context": self.context, "item": self.item}

    def _table(
        self, what: str, given: Side | None, key: str, names: list[str], directory: str, stem: str
    ) -> dict[str, Any]:
        """The source of one side: the given table where it has all, else one made of the log."""
        if given is not None and not names:
            return source_block(given.sample.opening.config, directory)
        made = make(self.log, key, names, what)
        self.made[what] = made
        return source_block(made.source(f"{stem}-{what}.{made.suffix}"), "") | {"path": f"{stem}-{what}.{made.suffix}"}


def _name(stem: str, log: str) -> str:
    """Of the pipeline: the config's, else the log's."""
    name = stem if stem != "config" else Path(log.rstrip("/*")).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_")
    return name or "log"
