"""Pictures: values at their places, text that stays text, nothing drawn of what has no place."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from fieldwise.features.report.chart import Line, chart, heat


def drawn(markup: str) -> ElementTree.Element:
    """The picture as XML: attributes without quotes get them."""
    svg = markup[markup.index("<svg") : markup.index("</svg>") + 6]
    return ElementTree.fromstring(re.sub(r"=([\w#.-]+)(?=[ />])", r"='\1'", svg))


def points(markup: str) -> list[list[tuple[float, float]]]:
    found = [each.attrib["points"].split() for each in drawn(markup).iter("polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line)] for line in found]


def test_places_and_ticks() -> None:
    markup = chart("A", "x", "y", [Line("one", [0, 5, 10], [1, 3, 2], dots=True), Line("two", [0, 10], [1, 1])])
    (first, second) = points(markup)
    assert first[0] == (52.0, 212.0), "the low ends of both axes"
    assert first[1] == ((52 + 370) / 2, 8.0)
    assert second[1] == (370.0, 212.0)
    ticks = [each.text for each in drawn(markup).iter("text")]
    assert ticks == ["0", "2", "4", "6", "8", "10", "1", "1.5", "2", "2.5", "3", "x", "y"]
    assert len(list(drawn(markup).iter("circle"))) == 3
    assert "<span class=k0>one</span>, <span class=k1>two</span>" in markup


def test_powers_of_ten() -> None:
    markup = chart("A", "x", "y", [Line("", [0.0, 0.001, 0.1], [0.5, 0.001, 0.1])], log=True, square=True)
    (line,) = points(markup)
    assert len(line) == 2, "zero has no power of ten"
    assert line == [(52.0, 212.0), (370.0, 8.0)]
    assert [each.text for each in drawn(markup).iter("text")][:3] == ["0.001", "0.01", "0.1"]


@pytest.mark.parametrize("values", [[3.0, 3.0], [0.0, 0.0], [1e-12, 2e-12], [-5.0, 1e9], [-2.0, -1.0]])
def test_any_range_has_ticks_that_hold_it(values: list[float]) -> None:
    (line,) = points(chart("A", "x", "y", [Line("", [0, 1], values)]))
    assert all(8 - 1e-6 <= y <= 212 + 1e-6 for _, y in line)


def test_nothing_to_draw() -> None:
    assert chart("A", "x", "y", []) == ""
    assert chart("A", "x", "y", [Line("", [1, 2], [math.nan, math.inf])]) == ""
    assert heat("A", [], [], "{:.2f}".format) == ""


def test_text_stays_text() -> None:
    evil = "<script>\x1b'&"
    for markup in (
        chart(evil, evil, evil, [Line(evil, [1], [1]), Line(evil, [1], [2])]),
        heat(evil, [evil, "b"], [[0.5, -0.25], [-0.25, 0]], lambda value: f"{evil}{value}"),
    ):
        assert "<script" not in markup
        assert "\x1b" not in markup
        drawn(markup)


def test_cells_are_as_deep_as_their_values() -> None:
    markup = heat("A", ["a", "b"], [[0.5, -0.25], [-0.25, 0]], "{:.2f}".format)
    cells = [each.attrib for each in drawn(markup).iter("rect")]
    assert [cell["class"] for cell in cells] == ["plus", "minus", "minus", "none"]
    assert [cell["fill-opacity"] for cell in cells] == ["1.000", "0.540", "0.540", "1.000"]
    assert "<title>a x b: -0.25</title>" in markup
