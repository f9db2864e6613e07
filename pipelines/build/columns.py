"""Every column that a config names is there: told from header lines and schemas, before anything heavy starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence, Set

from fieldwise.features import words
from fieldwise.features.columns.expression import Expression
from fieldwise.features.config import JoinConfig, SourceConfig
from fieldwise.features.errors import FieldwiseError, InputError
from fieldwise.features.fields.base import BaseField
from fieldwise.features.fields.time import TimeField
from fieldwise.features.files.listing import SourceFile, directory_columns, list_files
from fieldwise.features.source.headers import require_one_header
from fieldwise.features.source.raw import source_columns
from fieldwise.pipelines.config.catalog import CatalogConfig
from fieldwise.pipelines.config.schema import Config


def require_columns(config: Config, files: Sequence[SourceFile]) -> None:
    """InputError naming the key whose column is neither in the log's ``files`` nor in a side table, or that the
    catalog's sources lack where their files are there already."""
    path, own = known_columns(config.source, files)
    joined = {place: _joined(config, place, join) for place, join in enumerate(config.join)}
    if own is not None and None not in joined.values():  # rows of jsonl name their own
        known = set(own)
        for place, join in enumerate(config.join):
            _require(f"join.{place}.on", join.on, known, path)  # or a column of a table joined before
            known |= set(joined[place] or ())
        drawn = _drawn(config)
        for key, column in wanted(config):
            if column in drawn - known:
                raise _only_of_negatives(config, key, column)
            _require(key, column, known, f"{path}{' and the joined tables' if joined else ''}")
    if config.catalog is not None:
        _require_catalog(config, config.catalog, joined)


def wanted(config: Config) -> Iterator[tuple[str, str]]:
    """(key, column) of everything that is read from a row of the log."""
    for field in config.fields:
        yield from ((f"fields.{field.name}", column) for column in field.columns)
    for key in ("label", "weight", "filter"):
        text = getattr(config, key)
        yield from ((key, column) for column in (Expression(text, key).columns if text is not None else ()))
    if config.time is not None:
        yield "time", config.time.column
    if config.negatives is not None:
        yield "negatives.context", config.negatives.context
        yield "negatives.item", config.negatives.item
    yield from (("beside", column) for column in config.beside)
    if config.split.key is not None:
        yield "split.key", config.split.key


def _drawn(config: Config) -> set[str]:
    """Columns that negatives have from their items."""
    if config.negatives is None:
        return set()
    items = config.negatives.items
    return set(known_columns(items, list_files(items, config.base))[1] or ())


def _only_of_negatives(config: Config, key: str, column: str) -> InputError:
    assert config.negatives is not None
    items, item = ", ".join(config.negatives.items.path), config.negatives.item
    return InputError(
        key, expected=f"a column {column!r} of positives, too", found=f"it in negatives.items alone ({items})",
        fix=f"Join that table: `join: [{{path: {items}, on: {item}}}]`.",
    )  # fmt: skip


def known_columns(source: SourceConfig, files: Sequence[SourceFile]) -> tuple[str, list[str] | None]:
    """A file that tells the columns, and them with those that directories tell; None for jsonl, whose rows do.

    InputError where a row stands in place of a file's header."""
    require_one_header(source, files)
    path, names = source_columns(source, files)
    return path, None if names is None else list(dict.fromkeys([*names, *directory_columns(path)]))


def _joined(config: Config, place: int, join: JoinConfig) -> list[str] | None:
    """Columns that a side table adds; None where only reading it would tell."""
    path, names = known_columns(join, list_files(join, config.base))
    if names is None:
        return list(join.select) if join.select is not None else None
    known = set(names)
    if join.on not in known and join.format in ("csv", "tsv") and len(known) > 1:
        raise InputError(
            f"join.{place}.on", expected=f"a column {join.on!r} in {path}", found=f"columns {words.some(names)}",
            fix=f"The key has one name in both files: rename it in the table by position, `columns: [{join.on}, ...]` "
            f"with all {len(names)} names and `header: true`.",
        )  # fmt: skip
    for key, columns in (("on", [join.on]), ("select", join.select or [])):
        for column in columns:
            _require(f"join.{place}.{key}", column, known, path)
    return [name for name in join.select or names if name != join.on]


def _require_catalog(config: Config, catalog: CatalogConfig, joined: Mapping[int, list[str] | None]) -> None:
    """Ids, names, filter and categories are columns of their sources; columns of fields are in contexts or items."""
    contexts, items = (_side(config, source, joined) for source in (catalog.contexts, catalog.items))
    rule = () if catalog.filter is None else Expression(catalog.filter, "catalog.filter").columns
    cap, least = ([] if rule is None else [rule.column] for rule in (catalog.cap, catalog.at_least))
    sides = [("context_id", [catalog.context_id], contexts, catalog.contexts),
             ("item_id", [catalog.item_id], items, catalog.items),
             ("item_name", [] if catalog.item_name is None else [catalog.item_name], items, catalog.items),
             ("filter", rule, items, catalog.items),
             ("cap.column", cap, items, catalog.items),
             ("at_least.column", least, items, catalog.items)]  # fmt: skip
    for name, pairs in (("exclude", catalog.exclude), ("candidates", catalog.candidates)):
        if pairs is not None:
            ids = [pairs.context or catalog.context_id, pairs.item or catalog.item_id]
            sides.append((name, ids, _side(config, pairs, {}), pairs))
    for key, columns, known, source in sides:
        for column in columns:
            if known is not None:
                _require(f"catalog.{key}", column, known, ", ".join(source.path))
    if contexts is None or items is None:
        return
    known = {*contexts, *items, *catalog.fixed}
    untimed = [field for field in config.fields if catalog.time is None or not isinstance(field, TimeField)]
    absent = [(field, column) for field in untimed for column in field.columns if column not in known]
    if absent:
        raise on_no_side(absent)


def on_no_side(absent: Sequence[tuple[BaseField, str]]) -> InputError:
    """The error of fields with the columns that neither contexts nor items have."""
    fields, columns = (list(dict.fromkeys(names)) for names in zip(*((f.name, c) for f, c in absent), strict=True))
    timed = {column for field, column in absent if isinstance(field, TimeField)}
    others = [column for column in columns if column not in timed] or columns
    hint = "" if not timed else ", or set catalog.time" if len(columns) == 1 else ", and the moment by catalog.time"
    it, value = ("it", "a value") if len(columns) == 1 else ("them", "values")
    given = ", ".join(f"`{column}: ...`" for column in others)
    return InputError(
        f"catalog: field{'s'[: len(fields) > 1]} {', '.join(map(repr, fields))}",
        expected=f"column{'s'[: len(columns) > 1]} {', '.join(map(repr, columns))} in contexts or items",
        found=f"{it} in neither",
        fix=f"Add {it} to a source, or give {it} {value} under catalog.fixed ({given}, null for missing){hint}.",
    )


def _side(config: Config, source: SourceConfig, joined: Mapping[int, list[str] | None]) -> set[str] | None:
    """Columns of a source of the catalog and of the side tables whose key it has; None where that is not known yet."""
    if any("{date}" in path for path in source.path):
        return None
    try:
        own = known_columns(source, list_files(source, config.base))[1]
    except (FieldwiseError, OSError):  # a catalog may be made later than the log: score-catalog will see
        return None
    added = [names for place, names in joined.items() if own is not None and config.join[place].on in own]
    if own is None or None in added:
        return None
    return {*own, *(name for names in added for name in names or ())}


def _require(key: str, column: str, known: Set[str], where: str) -> None:
    if column not in known:
        names = sorted(known)
        found = f"columns {words.some(names)}" if any(names) else "no line that names any"
        fix = _instead(column, names) if any(names) else "Name a file that holds some."
        if key == "label" and fix == _ANOTHER:
            fix += ' A log without one, of positives alone, takes `label: "true"` and `negatives`.'
        raise InputError(key, expected=f"a column {column!r} in {where}", found=found, fix=fix)


_ANOTHER = "Name a column of these."
_VALUE = re.compile(r"[-+.\d]*\d|\d{1,4}[-/.]\d\d?[-/.]\d{1,4}\D.*")
"""Numbers and moments, which name no columns."""


def _instead(column: str, names: Sequence[str]) -> str:
    """What to write where a column is not among those of a file: how its first line is read, or another name."""
    apart = re.search(r"[,;|\t]", names[0]) if len(names) == 1 else None
    if any("\ufffd" in name for name in names):
        return "The file is not UTF-8: name its encoding below source, `encoding: cp1252`, say."
    if apart:
        write = f"`separator: {json.dumps(apart[0])}`."
        if names[0].startswith("sep="):
            return f"Remove that line, which a spreadsheet wrote (`tail -n +2`), and write {write}"
        return f"Name what stands between them: {write}"
    if f"'{column}'" in names:
        return 'Name the quotes around them: `quote: "\'"`.'
    values = sum(_VALUE.fullmatch(name) is not None for name in names)
    row = "The first line seems to be a row: name all columns of the file in its order, `columns: [...]`."
    return words.nearest(column, names, row if 3 * values > len(names) else _ANOTHER)
