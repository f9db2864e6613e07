"""First lines of csv and tsv files: the names they hold, and whether they may be skipped.

Nothing tells a row from names but the other files and `columns`: under ``header: true`` a part without a header line
would silently lose its first row.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from fieldwise.features.config import SourceConfig
from fieldwise.features.errors import InputError
from fieldwise.features.files.compression import opened, require_text
from fieldwise.features.files.listing import SourceFile
from fieldwise.features.source.records import Dialect, first_record
from fieldwise.features.terminal import printable
from fieldwise.features.words import some

_SHOWN = 200
"""Characters of a first line that people see."""


def has_header(config: SourceConfig) -> bool:
    """Whether the first line of each file is no row."""
    return config.format in ("csv", "tsv") and (config.columns is None if config.header is None else config.header)


def quote_byte(config: SourceConfig) -> int:
    """The quote's byte, -1 for none."""
    return ord(config.byte_quote) if config.format in ("csv", "tsv") and config.byte_quote is not None else -1


def dialect_of(config: SourceConfig) -> Dialect:
    """What tells where records end."""
    return Dialect(ord(config.byte_separator), quote_byte(config) if config.multiline else -1)


def require_one_header(config: SourceConfig, files: Sequence[SourceFile]) -> None:
    """InputError where a file's first line, which would be skipped as names, is not the first line of the others.

    Files that name their own columns may have them in another order, and others besides: there a line that shares no
    name with the other files' is taken for a row. Empty files have no say.
    """
    if not has_header(config) or len(files) < 2:
        return
    with ThreadPoolExecutor() as pool:  # stores answer slowly
        found = pool.map(lambda file: first_values(config, file.path), files)
        named = [(file.path, values) for file, values in zip(files, found, strict=True) if values]
    for path, values in named[1:]:
        before, now = (_plain(names) for names in (named[0][1], values))
        if before != now if config.columns is not None else not set(before) & set(now) - {""}:
            raise InputError(
                f"{path} line 1", expected=f"the names that {named[0][0]} begins with: {_shown(named[0][1])}",
                found=_shown(values),
                fix="The first line of every file is skipped as names: write the header line into the file that lacks "
                "it (`split` gives one to the first part only), or, if none has one, name the `columns` and set "
                "`header: false`.",
            )  # fmt: skip


def first_values(config: SourceConfig, path: str) -> list[str] | None:
    """Values of a file's header, or of its first row; None where there are none to be read."""
    header = has_header(config)
    try:
        with opened(path) as stream:
            require_text(path, stream.peek(), config.encoding)
            record = first_record(stream, dialect_of(config), blank=header)
        text = record.decode(config.encoding, "replace")
        if config.byte_quote is None:
            return text.split(config.byte_separator)
        return next(csv.reader([text], delimiter=config.byte_separator, quotechar=config.byte_quote), [])
    except InputError:
        raise
    except EOFError:
        return [] if config.columns is None else None
    except (ValueError, csv.Error) as error:
        if not header:
            return None
        lone = b"\r" in record if isinstance(error, csv.Error) else False
        found = "a CR in the middle of it" if lone else str(error)
        fix = "Convert line ends to LF, or mend the line." if lone else "Mend it, or name the `columns`."
        raise InputError(path, expected="a header line", found=found, fix=fix) from error


def require_columns(config: SourceConfig, first: list[str], path: str) -> None:
    """`columns` name the columns by position: the first line must not say otherwise.

    Raises InputError for a header that is none by the config, or has another number of names or another order.
    """
    columns = config.columns or []
    ours, theirs = _plain(columns), _plain(first)
    reordered = ours != theirs and sorted(ours) == sorted(theirs)
    found = _shown(first)
    if reordered:
        raise InputError(
            path, expected=f"the order of `columns`: {some(columns)}", found=f"a first line with {found}",
            fix="Remove `columns`: a header line names the columns itself.",
        )  # fmt: skip
    if not has_header(config):
        named = set(theirs)
        if 2 * sum(name in named for name in ours) > len(ours):
            raise InputError(
                path, expected="a row in the first line, as `columns` is given and `header: true` is not",
                found=f"names: {found}",
                fix="Set `header: true` to skip that line, or remove `columns` to take the names from it.",
            )  # fmt: skip
    elif len(first) != len(columns):
        raise InputError(
            path, expected=f"a header of {len(columns)} names, as many as `columns` has",
            found=f"{len(first)}: {found}",
            fix="Name all columns of the file, in its order, or remove `columns` to take the names from the header.",
        )  # fmt: skip


def _plain(names: Sequence[str]) -> list[str]:
    return [name.strip().casefold() for name in names]


def _shown(names: Sequence[str]) -> str:
    words = printable(" ".join(", ".join(names).split()))
    return words if len(words) <= _SHOWN else f"{words[:_SHOWN]} ..."
