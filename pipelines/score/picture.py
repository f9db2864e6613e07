"""Explanations to look at: an HTML page, or one picture as an SVG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fieldwise.features import store
from fieldwise.features.errors import ConfigError
from fieldwise.features.report.chart import Picture, bars
from fieldwise.features.report.markup import render
from fieldwise.features.terminal import say

_KINDS = (".html", ".svg")


def require_picture(path: str | None, pictures: int = 1) -> None:
    """Refuse, before any work, what no picture of ours can be. Raises ConfigError."""
    if path is None:
        return
    if not path.endswith(_KINDS):
        fix = "Name an HTML page, or an SVG file of one picture."
        raise ConfigError("--plot", expected="a name that ends in .html or .svg", found=repr(path), fix=fix)
    if path.endswith(".svg") and pictures > 1:
        fix = "Ask for an .html page, or for --rows 1."
        raise ConfigError("--plot", expected="one row for an .svg file", found=f"{pictures:,}", fix=fix)


def term_words(row: Mapping[str, Any], term: Mapping[str, Any]) -> str:
    """``user=u1 x hour=14``"""
    return " x ".join(f"{name}={row['values'][name]}" for name in term["fields"])


def logit_words(row: Mapping[str, Any]) -> str:
    """``probability 0.26, logit -1.0``, and how the one comes of the other."""
    shift = f" {row['logit_shift']:+.4f} by calibration" if row["logit_shift"] else ""
    if row["calibration"]:
        shift += f", {row['calibrated_logit']:+.4f} by {row['calibration']} calibration"
    return f"probability {row['probability']:.5f}, logit {row['logit']:+.4f}{shift}, bias {row['bias']:+.4f}"


def picture_of(row: Mapping[str, Any], top: int) -> Picture:
    """The largest shares of a row's logit, and the sum of those that are not shown."""
    terms = row["terms"][:top]
    names, values = [term_words(row, term) for term in terms], [term["logit"] for term in terms]
    if rest := row["terms"][top:]:
        names.append(f"{len(rest):,} more")
        values.append(sum(term["logit"] for term in rest))
    return bars(f"Logit {row['logit']:+.4f}", [*names, "bias"], [*values, row["bias"]], "{:+.4f}".format)


def page_of(rows: Sequence[Mapping[str, Any]], title: str, top: int) -> str:
    """Each row with its picture and its values."""
    told = [
        {
            "heading": f"Row {at + 1}" if len(rows) > 1 else "Shares of the logit",
            "sum": logit_words(row),
            "picture": picture_of(row, top),
            "values": [(name, str(value)) for name, value in row["values"].items()],
        }
        for at, row in enumerate(rows)
    ]
    return render(Path(__file__).with_name("explain.html"), title=title, rows=told)


def write_picture(path: str, page: str, picture: Picture) -> None:
    """The one that the name asks for."""
    store.write_atomic(path, (page if path.endswith(".html") else picture.alone()).encode())
    say(f"  picture: {path}")
