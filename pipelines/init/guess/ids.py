"""Whom and what the rows of a log are of, by the names of their columns."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from fieldwise.pipelines.init.guess.columns import QUANTITIES, Column, follows, words_of

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
_LEAST_IDS = 10
"""Values below which a column hardly tells who or what."""
_MOST_OF_ONE = 0.5
"""Share of rows with one value beyond which that stands for "unknown", and the column names nobody and nothing."""


def said_by(name: str, words: Sequence[str]) -> float:
    """How much a name says: 0 nothing, 1 all."""
    parts = parts_of(name, words)
    known = [words.index(part) for part in parts if part in words]
    return (1 - min(known) / (2 * len(words))) * (1.0 if len(parts) - ("id" in parts) == 1 else 0.9) if known else 0.0


def parts_of(name: str, words: Sequence[str]) -> list[str]:
    """The words of a name; of ``userid`` two, where one of them is known."""
    found: list[str] = []
    for part in words_of(name):
        apart = part.endswith("id") and part not in words and part[:-2] in words
        found += [part[:-2], "id"] if apart else [part]
    return found


def find_id(columns: Mapping[str, Column], words: Sequence[str], taken: Sequence[str]) -> str | None:
    """The column whose name says that it tells who, or what, and whose values come again."""
    found: list[tuple[float, str]] = []
    for name, column in columns.items():
        parts = parts_of(name, words)
        hint = (
            0.0 if "id" not in parts and any(part in (*_BY_ID, *_NOT_WHAT) for part in parts) else said_by(name, words)
        )
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
