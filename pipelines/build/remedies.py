"""What to write where rows cannot be read: a sentence for each reason, in the words of the config."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from fieldwise.features.columns.expression import Expression, among, quoted
from fieldwise.features.columns.text import numbers
from fieldwise.features.config import FeatureConfig
from fieldwise.features.fields.number import DRESSED, WITH_COMMA
from fieldwise.features.source.misread import remedies as of_moments
from fieldwise.features.source.quarantine import Quarantined
from fieldwise.features.terminal import printable
from fieldwise.features.words import YES, spellings

_OF_LINES = {
    "undecodable": "If the file is not UTF-8, name its encoding: `encoding: latin-1` (or cp1252).",
    "column_count": "If values hold the separator, quote them; name another `separator` if it is not the file's.",
    "bad_quote": "If quotes mean nothing in the file, write `format: tsv` with its `separator`.",
    "unclosed_quote": "If quotes mean nothing in the file, write `format: tsv` with its `separator`.",
    "bad_json": "jsonl is one JSON object a line.",
    "nested": "Read lists by `max_values` on their field; write objects as plain columns.",
}


MANY = 0.05
"""Share of the rows from which on the config is to blame, not the data."""


def remedies(found: Sequence[Quarantined], config: FeatureConfig, rows: int) -> list[str]:
    """Sentences, each once.

    Args:
        rows: all, those that can be read among them.
    """
    many = [part for part in found if part.rows >= MANY * rows or part.reason == "undecodable"]
    every = [*of_moments(found, config.time, config.fields), *_of_labels(many, config, rows), *_of_rows(many)]
    return list(dict.fromkeys(every))


def _of_labels(found: Iterable[Quarantined], config: FeatureConfig, rows: int) -> Iterator[str]:
    """A label is 0 or 1: how texts and ratings become that."""
    for part in found:
        columns = Expression(config.label, "label").columns
        word = quoted(columns[0]) if len(columns) == 1 and part.reason == "bad_label" else None
        values = [sample.value for sample in part.samples if sample.value]
        if word is None or config.label.strip() not in (word, columns[0]):
            continue
        if not values:
            yield f"Leave rows without a label out: `filter: {word} is not null`."
        elif numbers(pa.array(values))[1].any():
            seen = list(dict.fromkeys(printable(value)[:40] for value in values))
            positives = [value for value in seen if value.lower() in YES]
            equal = among(word, spellings(positives, seen) if positives else ["VALUE"])
            what = "" if "VALUE" not in equal else f", VALUE being that of positives (here are {', '.join(seen[:4])})"
            yield f"A label is 0 or 1: compare texts, `label: '{equal.replace(chr(39), 2 * chr(39))}'`{what}."
        else:
            most = max(values, key=float)
            if float(most) < 1 and part.rows < rows:  # the others are 0 or 1
                most = "1"
            yield f"A label is 0 or 1: compare numbers, such as `label: {word} >= {printable(most)[:40]}`."


def _of_rows(found: Iterable[Quarantined]) -> Iterator[str]:
    for part in found:
        if part.reason in _OF_LINES:
            yield _OF_LINES[part.reason]
        elif part.reason == "bad_number" and part.field not in ("label", "weight", "filter"):
            if all(WITH_COMMA.fullmatch(sample.value) for sample in part.samples):
                yield f'Numbers with a comma: write `decimal: ","` at fields.{printable(part.field)}.'
                continue
            yield (
                "Numbers are digits and a point: take commas between thousands, signs and units out of them."
                if all(DRESSED.fullmatch(sample.value) for sample in part.samples)
                else f"For values that are no numbers write `kind: vocabulary` at fields.{printable(part.field)}."
            )
        elif part.reason == "bad_flag":
            yield f"Flags are 0 and 1: for other values write `kind: vocabulary` at fields.{printable(part.field)}."
