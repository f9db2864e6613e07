"""Which column is the label, which the time, which the context and which the item: by names first, then by values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fieldwise.features.columns.expression import Expression, among, quoted
from fieldwise.features.columns.moment import DAY, TimeConfig, show_moment
from fieldwise.features.errors import InputError
from fieldwise.features.words import YES, YES_AND_NO, some, spellings
from fieldwise.pipelines.init.columns import FEW_BAD, QUANTITIES, Column, follows, shown, words_of
from fieldwise.pipelines.init.yaml_text import flow

LABELS = (
    "click", "clicked", "clicks", "label", "target", "attributed", "converted", "conversion", "purchased", "purchase",
    "bought", "installed", "install", "liked", "like", "played", "watched", "opened", "booked", "ordered", "subscribed",
    "response", "responded", "outcome", "y",
)  # fmt: skip
RATINGS = ("rating", "ratings", "stars", "score", "grade")
EVENTS = ("event", "action", "type", "behavior", "behaviour", "interaction", "activity")
WANTED = ("click", "clicked", "purchase", "buy", "bought", "order", "transaction", "convert", "conversion", "cart",
          "addtocart", "install", "like", "favorite", "fav", "pay", "play", "watch", "book", "subscribe")  # fmt: skip
"""Values of events that count as positives."""
TIMES = ("timestamp", "time", "ts", "datetime", "date", "when", "hour", "day", "at", "created", "moment")
CONTEXTS = ("user", "users", "uid", "customer", "visitor", "member", "client", "account", "reader", "viewer",
            "listener", "buyer", "shopper", "person", "subscriber", "player", "gamer", "guest", "patient", "student",
            "learner", "pupil", "consumer", "purchaser", "passenger", "traveler", "traveller", "rider", "patron",
            "donor", "follower", "reviewer", "applicant", "recipient", "employee", "contact", "profile", "device",
            "session", "cookie", "household", "ip")  # fmt: skip
ITEMS = ("item", "items", "product", "sku", "movie", "film", "article", "book", "song", "track", "video", "ad",
         "advert", "creative", "campaign", "offer", "listing", "content", "document", "doc", "news", "post", "game",
         "asin", "isbn", "recipe", "course", "job", "hotel", "restaurant", "app", "show", "episode", "podcast",
         "series", "program", "programme", "clip", "story", "dish", "meal", "drink", "wine", "album", "playlist",
         "artist", "lesson", "exercise", "question", "quiz", "paper", "magazine", "comic", "anime", "photo", "image",
         "picture", "coupon", "deal", "banner", "venue", "attraction", "destination", "trip", "tour", "property",
         "apartment", "vacancy", "medicine", "drug", "vehicle", "goods", "page", "webpage", "station", "channel",
         "title", "url")  # fmt: skip
_BY_ID = ("contact", "profile", "device", "page", "station", "channel", "property", "program", "programme")
"""Words that without an id beside them usually are of something else: a kind of device, the number of a page."""
_NOT_WHAT = {*QUANTITIES, "name", "type", "kind", "category", "status", "language"} - {"num", "number"}
"""Words beside those of whom or what by which a column is a property of them."""
_ATTRIBUTES = ("device", "platform", "os", "browser", "channel", "source", "medium", "gender", "sex", "language",
               "lang", "country", "region", "currency", "plan", "tier", "segment", "group", "variant", "autoplay",
               "shuffle", "mobile", "app", "member", "premium", "weekend", "method", "type")  # fmt: skip
"""Names of columns of few values that are no outcome."""
_DATE = re.compile(
    r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}\b|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*[ .,-]+\d",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"\b\d{1,2}[:.h]\d\d\b")
_SHARES = ("percent", "percentage", "pct", "prozent", "progress", "completion", "completed")
"""Names of columns that say how much of an item was had."""
_PERCENT = re.compile(r"[+-]?\d+(?:[.,]\d+)?\s?%")
_MOST_SPELLINGS = 12
"""Of yes and no together."""
_LEAST_IDS = 10
"""Values below which a column hardly tells who or what."""
_MOST_OF_ONE = 0.5
"""Share of rows with one value beyond which that stands for "unknown", and the column names nobody and nothing."""
MOST_STEPS = 101
"""Values of a rating."""


@dataclass(frozen=True)
class Label:
    """What counts as a positive."""

    expression: str
    columns: tuple[str, ...]
    reason: str
    positive: npt.NDArray[np.float64]
    """[rows] 1, 0, or NaN for rows without a label."""

    @property
    def rate(self) -> float:
        return float(np.nanmean(self.positive))

    @property
    def missing(self) -> float:
        return float(np.isnan(self.positive).mean())


@dataclass(frozen=True)
class Moments:
    """When rows happened."""

    config: TimeConfig
    reason: str
    found: npt.NDArray[np.int64]
    """[rows] microseconds."""
    bad: npt.NDArray[np.bool_]

    @property
    def first(self) -> int:
        return int(self.found[~self.bad].min())

    @property
    def last(self) -> int:
        return int(self.found[~self.bad].max())

    @property
    def days(self) -> float:
        return (self.last - self.first) / DAY


def find_label(columns: Mapping[str, Column], table: pa.Table, named: bool, asked: str | None) -> Label | None:
    """The label; None where every row may be a positive.

    Args:
        table: the sample that ``columns`` are of.
        named: whether the source names its columns.
        asked: what the user says it is.
    """
    if asked is not None and asked.strip() == "true":
        return None
    if asked is not None:
        expression = Expression(asked, "--label")
        for name in expression.columns:
            if name not in columns:
                found = some([shown(name) for name in columns])
                fix = "Name one of these, in backticks where the name is no word."
                raise InputError("--label", expected=f"a column {name!r} of the log", found=found, fix=fix)
        return _label(asked, table, "as --label says", needed=True)
    for told, reason in _told(columns, named):
        label = _label(told, table, reason)
        if label is not None:
            return label
    if named:
        _require_none_called_so(columns)
    return None


def _require_none_called_so(columns: Mapping[str, Column]) -> None:
    """InputError for a column that is called like a label, whose values do not say which are positives."""
    for name, column in columns.items():
        word, called = quoted(name), [part for part in words_of(name) if part not in ("is", "was", "has", "did")]
        if word is None or len(called) != 1 or called[0] not in LABELS or column.is_list or not column.distinct:
            continue
        values = column.some(8)
        if column.distinct == 1 and values[0].lower() in {*YES, "1", "1.0", "true"}:
            continue
        if column.distinct == 1:
            positive = "rating >= 4"
        elif column.numeric:
            positive = f"{word} >= 1" if column.numbers.min() == 0 else f"{word} == {column.numbers.max():g}"
        else:
            told = [value for value in values if value.lower() in YES]
            positive = among(word, spellings(told, values) if told else values[:1])
        raise InputError(
            "label", expected=f"two values in {shown(name)!r}, such as 0 and 1 or yes and no",
            found=f"{column.distinct:,}: {shown(', '.join(values), 60)}" + " in all rows" * (column.distinct == 1),
            fix=f"Say what a positive is: --label {shlex.quote(positive)}; of a log of positives alone, --label true.",
        )  # fmt: skip


def require_no_outcome(columns: Mapping[str, Column], taken: Sequence[str], own: Sequence[Column]) -> None:
    """InputError where no column was found to be the label, and one may be it all the same: of two values, or
    shares in percent.

    Args:
        taken: columns that are of something else.
        own: context and item, whose properties are no outcomes.
    """
    for name, column in columns.items():
        word = quoted(name)
        if word is None or name in taken or column.is_list or not column.distinct:
            continue
        signed = column.distinct > 2 and all(_PERCENT.fullmatch(text) for text in column.some())
        share = column.distinct > 2 and column.numeric and column.numbers.min() >= 0 and column.numbers.max() <= 100
        percent = signed or (share and any(part in _SHARES for part in words_of(name)))
        if not percent and (column.distinct != 2 or any(part in _ATTRIBUTES for part in words_of(name))):
            continue
        if any(follows(column, one) for one in own):
            continue
        rarer = str(column.values[int(column.counts.argmin())].as_py())
        high = 80 if signed or column.numbers.max() > 1 else 0.8
        positive = f"{word} >= {high}" if percent else _binary(word, column) or among(word, [rarer])
        option = f"--label {shlex.quote(positive)}"
        raise InputError(
            "label", expected="a column that says which rows are positives, by a name and values that are known here",
            found=f"{shown(name)!r}, which may be it: {shown(', '.join(column.some(8)), 60)}",
            fix=f"Say what a positive is, {'write it without the sign, then' if signed else 'such as'} {option}; "
            "of a log of positives alone, --label true.",
        )  # fmt: skip


def no_label(columns: Mapping[str, Column]) -> InputError:
    two = {word: column for name, column in columns.items() if column.distinct == 2 and (word := quoted(name))}
    able = [said for word, column in two.items() if (said := _binary(word, column))]
    example = [*able, *(among(word, column.some(1)[:1]) for word, column in two.items()), 'event == "click"'][0]
    return InputError(
        "label", expected="a column of 0 and 1, of ratings or of events that says which rows are positives",
        found=f"none among {some([shown(name) for name in columns])}",
        fix=f"Say what a positive is: --label 'rating >= 4', or --label '{example}'; for a log of positives "
        "alone, --label true and --context COLUMN --item COLUMN.",
    )  # fmt: skip


def _told(columns: Mapping[str, Column], named: bool) -> list[tuple[str, str]]:
    """(expression, reason) of what may be a label, the likeliest first."""
    found: list[tuple[float, str, str]] = []
    for place, (name, column) in enumerate(columns.items()):
        word = quoted(name)
        if word is None or column.is_list or not column.distinct:
            continue
        names = words_of(name)
        hint = max((2.0 - LABELS.index(w) / 100 for w in names if w in LABELS), default=0.0)
        hint += 1.0 * (len(names) == 1 and hint > 0)
        binary = _binary(word, column)
        if binary:
            weight = 10 * hint if named else 10.0 * (place == 0)
            weight += column.missing < FEW_BAD
            why = "its name" if hint and named else "the first column" if not place else "the only one of its kind"
            found.append((weight + 1, binary, f"{why}, and two values"))
        elif _rating(names, column, named):
            cut = _cut(column)
            reason = f"ratings {column.range}: the upper ones count as positives"
            found.append((9 - place / 100, f"{word} >= {cut:g}", reason))
        elif any(w in EVENTS for w in names) and 2 <= column.distinct <= 50:
            wanted = sorted(filter(_wanted, column.values.to_pylist()), key=lambda v: WANTED.index(_wanted(v) or ""))
            if 0 < len(wanted) < column.distinct:
                reason = f"events {shown(', '.join(column.values.to_pylist()[:8]), 60)}"
                found.append((9.5 - place / 100, among(word, wanted), reason))
    sure = [one for one in found if one[0] > 5]
    others = [expression for weight, expression, _ in found if weight <= 5]
    if len(others) == 1 and (not sure or (not named and max(sure)[0] < 10)):  # what has no name is hardly a rating
        sure = [(10.0, others[0], "the only column of two values: CHECK that it is what you want to predict")]
    return [(expression, reason) for _, expression, reason in sorted(sure, key=lambda one: -one[0])]


def _binary(word: str, column: Column) -> str | None:
    """An expression for a column of two values, in whatever case; None where neither says yes."""
    if column.numeric and set(column.numbers) in ({0.0, 1.0}, {-1.0, 1.0}):
        return word if column.numbers.min() == 0 else f"{word} == 1"
    values: list[str] = column.values.to_pylist() if column.distinct <= _MOST_SPELLINGS else []
    seen = {value.lower() for value in values}
    if seen == {"true", "false"}:
        return word
    for yes, no in YES_AND_NO:
        if seen == {yes, no}:
            return among(word, spellings([value for value in values if value.lower() == yes], values))
    return None


def _rating(names: Sequence[str], column: Column, named: bool) -> bool:
    """Whether a column holds grades of a short scale."""
    if not column.numeric or not 3 <= column.distinct <= MOST_STEPS or column.total < 10 * column.distinct:
        return False
    if named:
        return any(name in RATINGS for name in names)
    return column.whole and column.distinct <= 11 and column.numbers.min() >= 0 and column.numbers.max() <= 10


def _cut(column: Column) -> float:
    """From which grade on a row is a positive: four fifths of the scale, or the next grade that leaves negatives."""
    steps = np.sort(column.numbers)
    above = steps[steps >= 0.8 * steps[-1]]
    return float(above[0] if above[0] > steps[0] else steps[1])


def _wanted(value: str) -> str | None:
    """The word of an event that makes it a positive."""
    return next((word for word in words_of(value) if word in WANTED), None)


def _label(expression: str, table: pa.Table, reason: str, *, needed: bool = False) -> Label | None:
    """An expression on the sample, as features will evaluate it; None where it does not leave both classes."""
    parsed = Expression(expression, "--label" if needed else "label")
    values, bad = parsed.evaluate(table)
    positive = values.cast(pa.float64()).to_numpy(zero_copy_only=False).copy()
    positive[bad | ~np.isin(positive, (0.0, 1.0))] = np.nan
    both = {0.0, 1.0} <= set(np.unique(positive[~np.isnan(positive)]).tolist())
    if needed and not both:
        fix = 'Write one that is true for positives alone, such as `rating >= 4` or `event == "click"`.'
        found = f"{shown(expression, 80)}, which has not both in the rows that were looked at"
        raise InputError("--label", expected="positives and negatives", found=found, fix=fix)
    return Label(expression, parsed.columns, reason, positive) if both else None


def find_time(columns: Mapping[str, Column], named: bool, taken: Sequence[str]) -> Moments | None:
    """The column of moments: few rows lack one, and its name says so, or it has no name."""
    best: tuple[float, Moments] | None = None
    for name, column in columns.items():
        hint = _hint(name, TIMES)
        typed = pa.types.is_timestamp(column.kind) or pa.types.is_date(column.kind)
        loose = column.numeric and not hint and (named or not _epochs(column))
        if name in taken or column.distinct < 1 or column.missing > FEW_BAD or loose or not column.formats:
            continue
        found = _moments(column)
        spread = min(1.0, len(np.unique(found.found)) / 1000)
        weight = 3 * hint + 2 * typed + spread + (not column.numeric)
        if best is None or weight > best[0]:
            best = weight, found
    return None if best is None else best[1]


def unread_times(columns: Mapping[str, Column], taken: Sequence[str]) -> list[str]:
    """Columns of moments that read in no format that is known here."""
    found = []
    for name, column in columns.items():
        if name in taken or column.is_list or column.numeric or column.distinct < 2 or column.formats:
            continue
        texts = column.some(200)
        dated = sum(bool(_DATE.search(text) or _CLOCK.search(text)) for text in texts)
        moments = sum(bool(_DATE.search(text) and _CLOCK.search(text)) for text in texts)
        if moments >= 0.9 * len(texts) or (_hint(name, TIMES) >= 0.5 and dated >= 0.9 * len(texts)):
            found.append(name)
    return found


def misread_times(columns: Mapping[str, Column], taken: Sequence[str]) -> list[str]:
    """What to say of columns that are called like a time, whose values read as none."""
    return [
        f"{shown(name)}: CHECK: called like a time, but values such as {shown(column.top[0])!r} read in no format that "
        "is known here: write them as ISO 8601, 2026-01-31 18:00:00, and run init on that log: without a time the "
        "newest rows cannot test, and there is no hour"
        for name, column in columns.items()
        if _hint(name, TIMES) >= 0.5 and name not in taken and column.distinct > 1 and not column.is_list
        and not column.numeric and not column.formats and any(map(str.isdigit, column.top[0]))
    ]  # fmt: skip


def _hint(name: str, words: Sequence[str]) -> float:
    """How much a name says: 0 nothing, 1 all."""
    parts = _parts(name, words)
    known = [words.index(part) for part in parts if part in words]
    return (1 - min(known) / (2 * len(words))) * (1.0 if len(parts) - ("id" in parts) == 1 else 0.9) if known else 0.0


def _parts(name: str, words: Sequence[str]) -> list[str]:
    """The words of a name; of ``userid`` two, where one of them is known."""
    found: list[str] = []
    for part in words_of(name):
        apart = part.endswith("id") and part not in words and part[:-2] in words
        found += [part[:-2], "id"] if apart else [part]
    return found


def _epochs(column: Column) -> bool:
    """Whether numbers without a name may be seconds or milliseconds since 1970: of at least a hundred moments."""
    return column.whole and column.distinct >= 100 and bool(column.numbers.min() > 5e8)


def _moments(column: Column) -> Moments:
    """By the likeliest format; of two that only swap day and month, the one under which more rows follow each other in
    time, else the one of the shorter span."""
    chosen, others = column.formats[0], column.formats[1:]
    swapped = next((other for other in others if {chosen[:2], other[:2]} == {"%d", "%m"}), None)
    first, *second = sorted((_read(column, each) for each in (chosen, swapped) if each is not None), key=_disorder)
    low, high = (show_moment(moment, "UTC")[:19] for moment in (first.first, first.last))
    words = f"{low} to {high}, read as {first.config.format}"
    for other in second:
        block = flow({"column": column.name, "format": other.config.format})
        words += f"; CHECK: no day is above 12, so {other.config.format} reads them, too, but {_but(first, other)}. "
        words += f"If that is right, write `time: {block}`"
    alike = [other for other in others if other != swapped and other[:1] == "%" and chosen[:1] == "%"]
    words += f"; {' and '.join(alike[:2])} would read them, too: CHECK" if alike and not second else ""
    return replace(first, reason=words)


def _read(column: Column, format: str) -> Moments:
    config = TimeConfig(column=column.name, format=format)
    return Moments(config, "", *column.moments(config))


def _disorder(moments: Moments) -> tuple[float, float]:
    """Share of the rows that are before the row above them, to a tenth; days in all."""
    steps = np.diff(moments.found[~moments.bad])
    return round(float((steps < 0).mean()) if len(steps) else 0.0, 1), moments.days


def _but(first: Moments, other: Moments) -> str:
    """What speaks against the other format."""
    (disorder, days), (others, longer) = _disorder(first), _disorder(other)
    if disorder < others:
        return "then more rows are earlier than the one above them"
    return f"then the log spans {longer:.0f} days, not {days:.0f}" if days < longer else "the day first is more usual"


def find_id(columns: Mapping[str, Column], words: Sequence[str], taken: Sequence[str]) -> str | None:
    """The column whose name says that it tells who, or what, and whose values come again."""
    found: list[tuple[float, str]] = []
    for name, column in columns.items():
        parts = _parts(name, words)
        hint = 0.0 if "id" not in parts and any(part in (*_BY_ID, *_NOT_WHAT) for part in parts) else _hint(name, words)
        plain = not column.is_list and (not column.numeric or column.whole) and column.separator is None
        plain = plain and not column.flag and column.top[1] <= _MOST_OF_ONE
        if hint and plain and name not in taken and column.distinct > 1 and column.distinct <= 0.9 * column.rows:
            is_id = "id" in parts or len(parts) == 1
            found.append((hint + 0.2 * is_id - column.missing, name))
    return max(found, key=lambda one: one[0])[1] if found else None


def likely_ids(columns: Mapping[str, Column], known: Mapping[str, str | None], taken: Sequence[str]) -> str:
    """Options that are still to be given, with the columns that come into question: those of most values of which none
    only says again what another says, the one that more columns follow from as the item.

    Args:
        known: option to column; None for those to be given.
        taken: other columns that are of something.
    """
    able = [
        column for name, column in columns.items()
        if name not in (*taken, *known.values()) and not column.is_list and column.separator is None
        and not column.decimal_comma and (not column.numeric or column.whole)
        and column.distinct >= _LEAST_IDS and column.repeats >= 2
    ]  # fmt: skip
    able.sort(key=lambda column: -column.distinct)
    options = [option for option, column in known.items() if column is None]
    apart: list[Column] = []
    for column in able:
        if len(apart) < len(options) and not any(follows(column, other) or follows(other, column) for other in apart):
            apart.append(column)
    if len(apart) < len(options):
        return f" by {' and '.join(options)}"
    apart.sort(key=lambda column: sum(follows(other, column) for other in columns.values() if other is not column))
    pairs = zip(options, apart, strict=True)
    return f", such as {' '.join(f'{option} {shlex.quote(column.name)}' for option, column in pairs)}"
