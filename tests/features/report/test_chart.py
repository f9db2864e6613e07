"""Pictures: values at their places, text that stays text, nothing drawn of what has no place."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from fieldwise.features.report.chart import (
    Interval,
    Line,
    Picture,
    bars,
    chart,
    columns,
    fragment,
    heat,
    parallel,
    strip,
)


def drawn(picture: Picture) -> ElementTree.Element:
    markup = picture.__html__()
    return ElementTree.fromstring(markup[markup.index("<svg") : markup.index("</svg>") + 6])


def points(picture: Picture) -> list[list[tuple[float, float]]]:
    found = [each.attrib["points"].split() for each in drawn(picture).iter("polyline")]
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in line)] for line in found]


def texts(picture: Picture) -> list[str | None]:
    return [each.text for each in drawn(picture).iter("text")]


def test_places_and_ticks() -> None:
    picture = chart("A", "x", "y", [Line("one", [0, 5, 10], [1, 3, 2], dots=True), Line("two", [0, 10], [1, 1])])
    (first, second) = points(picture)
    assert first[0] == (52.0, 212.0), "the low ends of both axes"
    assert first[1] == ((52 + 370) / 2, 8.0)
    assert second[1] == (370.0, 212.0)
    assert texts(picture) == ["0", "2", "4", "6", "8", "10", "1", "1.5", "2", "2.5", "3", "x", "y"]
    assert len(list(drawn(picture).iter("circle"))) == 3
    assert '<span class="k0">one</span>, <span class="k1">two</span>' in picture.__html__()


def test_powers_of_ten() -> None:
    picture = chart("A", "x", "y", [Line("", [0.0, 0.001, 0.1], [0.5, 0.001, 0.1])], log=True, square=True)
    (line,) = points(picture)
    assert len(line) == 2, "zero has no power of ten"
    assert line == [(52.0, 212.0), (370.0, 8.0)]
    assert texts(picture)[:3] == ["0.001", "0.01", "0.1"]


def test_intervals_stand_at_their_points() -> None:
    lines = [Line("", [0, 1, 2], [1, 2, math.nan], ends=[(0.0, 4.0), None, (1.0, 2.0)])]
    picture = chart("A", "x", "y", lines, zero=True)
    ways = [each.attrib["d"] for each in drawn(picture).iter("path") if each.attrib["class"] == "line c0"]
    assert ways == ["M52.0 212.0V8.0"], "from 0 to 4 is the whole axis; a point without a place has no bar"


def test_an_axis_of_names() -> None:
    days = [f"day{n}" for n in range(8)]
    picture = chart("A", "day", "y", [Line("", range(8), range(8))], names=days)
    assert texts(picture)[:3] == ["day0", "day3", "day6"]
    assert texts(chart("A", "day", "y", [Line("", [0], [1])], names=["one"]))[0] == "one"


@pytest.mark.parametrize("values", [[3.0, 3.0], [0.0, 0.0], [1e-12, 2e-12], [-5.0, 1e9], [-2.0, -1.0]])
def test_any_range_has_ticks_that_hold_it(values: list[float]) -> None:
    (line,) = points(chart("A", "x", "y", [Line("", [0, 1], values)]))
    assert all(8 - 1e-6 <= y <= 212 + 1e-6 for _, y in line)


def test_nothing_to_draw() -> None:
    for picture in (
        chart("A", "x", "y", []), chart("A", "x", "y", [Line("", [1, 2], [math.nan, math.inf])]),
        heat("A", [], [], "{:.2f}".format), bars("A", [], [], "{:.2f}".format),
    ):  # fmt: skip
        assert not picture
        assert picture.__html__() == ""


def test_text_stays_text() -> None:
    evil = "<script>\x1b'\"&"
    told = lambda value: f"{evil}{value}"  # noqa: E731
    for picture in (
        chart(evil, evil, evil, [Line(evil, [1], [1]), Line(evil, [1], [2])]),
        chart(evil, evil, evil, [Line(evil, [0], [1])], names=[evil]),
        heat(evil, [evil, "b"], [[0.5, -0.25], [-0.25, 0]], told),
        bars(evil, [evil, "b"], [0.5, -0.25], told),
        columns(evil, [1, 2], odd=1),
        strip(evil, [Interval(1.0, 0.5, 2.0)], 2.0),
    ):
        for markup in (picture.__html__(), picture.alone(), fragment(evil, [evil], [[evil]], [picture])):
            assert "<script" not in markup
            assert "\x1b" not in markup
        assert drawn(picture).tag == "svg"
        assert ElementTree.fromstring(picture.alone()).tag == "{http://www.w3.org/2000/svg}svg"


def test_cells_are_as_deep_as_their_values() -> None:
    picture = heat("A", ["a", "b"], [[0.5, -0.25], [-0.25, 0]], "{:.2f}".format)
    cells = [each.attrib for each in drawn(picture).iter("rect")]
    assert [cell["class"] for cell in cells] == ["bar c0", "bar c1", "bar c1", "none"]
    assert [cell["fill-opacity"] for cell in cells] == ["1.000", "0.540", "0.540", "1.000"]
    assert "<title>a x b: -0.25</title>" in picture.__html__()


def test_bars_begin_at_a_common_zero() -> None:
    picture = bars("A", ["up", "down"], [1.0, -1.0], "{:+.1f}".format)
    up, down = ({key: float(each.attrib[key]) for key in ("x", "width")} for each in drawn(picture).iter("rect"))
    assert down["x"] + down["width"] == pytest.approx(up["x"])
    assert up["width"] == down["width"]
    assert texts(picture) == ["up", "+1.0", "down", "-1.0"]


def test_things_across_axes() -> None:
    axes = {"dim": [4.0, 16.0, 8.0], "optimizer": ["adam", "adagrad", "adam"], "valid": [0.5, 0.4, 0.6]}
    picture = parallel("Trials", axes, "valid", ["dim"])
    last = list(drawn(picture).iter("polyline"))[-1]
    assert last.attrib["class"] == "line c1", "the lowest is drawn last, in the other colour"
    assert last.attrib["points"] == "10.0,8.0 130.0,212.0 250.0,212.0", "dim 16, adagrad, the lowest loss"
    assert points(picture)[0][0][1] == pytest.approx(110.0), "8 is halfway from 4 to 16 by the logarithm"
    assert set(texts(picture)) == {"dim", "4", "16", "optimizer", "adagrad", "adam", "valid", "0.4", "0.6"}
    assert not parallel("none", {"valid": []}, "valid")
    assert points(parallel("one", {"valid": [0.3]}, "valid")) == [[(10.0, 110.0)]]


def test_a_file_of_its_own_names_its_lines() -> None:
    lines = [Line("<train>", [0, 1], [1, 2]), Line("valid", [0, 1], [2, 1])]
    root = ElementTree.fromstring(chart("A", "x", "y", lines).alone())
    assert [each.text for each in root.iter() if each.tag.endswith("tspan")] == ["<train>", "valid"]
