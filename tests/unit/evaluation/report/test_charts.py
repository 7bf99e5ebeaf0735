"""Charts: coordinates are where the numbers say, axes are round, nothing is drawn for what is missing."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from capnet.evaluation.report.cells import bar_cell, difference_cell, pair_cell
from capnet.evaluation.report.charts import (
    MANY,
    Axis,
    Series,
    chart,
    nice_axis,
    number,
    overview,
    percent_x,
    share_axis,
)
from capnet.evaluation.report.words import difference, reading

NAN = math.nan


def parse(svg: str) -> ElementTree.Element:
    """Well-formed XML, or the test fails."""
    return ElementTree.fromstring(svg)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([0.37, 0.06], {"from_zero": True}),
        ([1.0], {"whole": True}),
        (list(range(1, 31)), {"whole": True}),
        ([1, 2, 3], {"whole": True}),
        ([0.0, 0.0], {"from_zero": True}),
        ([-3.0, 12.0], {}),
        ([1e-9, 3e-9], {"from_zero": True}),
        ([5e8, 2e9], {}),
        ([], {}),
        ([NAN, math.inf], {}),
        ([0.3, 0.6, 0.9], {}),
    ],
)
def test_axes_hold_their_values_on_few_round_ticks(values: list[float], options: dict[str, bool]) -> None:
    axis = nice_axis(values, "x", **options)
    result = [value for value in values if math.isfinite(value)]
    assert axis.low < axis.high
    assert all(axis.low <= value <= axis.high for value in result)
    assert 2 <= len(axis.ticks) <= 8
    assert axis.ticks[0] == axis.low
    assert axis.ticks[-1] == axis.high
    steps = np.diff(axis.ticks)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    if options.get("whole"):
        assert all(tick == round(tick) for tick in axis.ticks)
    if options.get("from_zero"):
        assert axis.low == 0


def test_numbers_are_short_and_have_no_negative_zero() -> None:
    assert [number(value) for value in (1.0, 1.25, -0.04, -0.06, 100.04)] == ["1", "1.2", "0", "-0.1", "100"]
    assert [percent_x(value) for value in (0.0, -0.0, 1.0, 0.12345, 0.5)] == ["0%", "0%", "100%", "12.35%", "50%"]


def test_points_lie_where_their_numbers_say() -> None:
    svg = chart(
        share_axis("x"), share_axis("y"), [Series([0.0, 0.5, 1.0, NAN], [0.0, 0.25, 1.0, 0.5], "ink")], "a line"
    )
    line = next(
        element for element in parse(svg).iter() if "line" in (element.get("class") or "").split() and element.get("d")
    )
    points = [tuple(map(float, pair.split())) for pair in (line.get("d") or "")[1:].split("L")]
    grid = [float(element.get("y1") or "nan") for element in parse(svg).iter("line") if element.get("class") == "grid"]
    bottom, top = max(grid), min(grid)
    assert len(points) == 3, "a missing point is not drawn"
    assert points[0][1] == bottom
    assert points[2][1] == top
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.06)
    assert points[1][1] == pytest.approx(bottom + (top - bottom) / 4, abs=0.06)


@pytest.mark.parametrize(("values", "is_above"), [([0.9, 0.95], False), ([0.9, 0.1], True), ([0.9, NAN], True)])
def test_a_note_stays_clear_of_the_lines_it_stands_between(values: list[float], is_above: bool) -> None:
    lines = [Series([0.0, 0.5], values, "ink")]
    svg = parse(chart(share_axis("x"), share_axis("y"), lines, "a line", vertical=0.5, note="kept"))
    note = next(element for element in svg.iter("text") if element.text == "kept")
    line = next(element for element in svg.iter("line") if element.get("class") == "kept")
    middle = (float(line.get("y1") or "nan") + float(line.get("y2") or "nan")) / 2
    assert (float(note.get("y") or "nan") < middle) is is_above


def test_values_outside_an_axis_stay_inside_the_frame() -> None:
    axis = Axis(0.0, 1.0, (0.0, 1.0), "x")
    assert (axis.share(-5), axis.share(0.25), axis.share(9)) == (0.0, 0.25, 1.0)


def test_marks_have_tooltips_unless_there_are_too_many() -> None:
    few = chart(share_axis("x"), share_axis("y"), [Series([0.5], [0.5], "head", "circle", ["<b>&"])], "few")
    assert [element.text for element in parse(few).iter("title")] == ["<b>&"]
    many = [0.5] * (MANY + 1)
    for kind in ("circle", "square", "triangle"):
        svg = chart(share_axis("x"), share_axis("y"), [Series(many, many, "head", kind, ["t"] * len(many))], "many")
        assert not list(parse(svg).iter("title"))
        assert svg.count("z") >= len(many)


def test_nothing_is_drawn_for_what_is_missing() -> None:
    assert bar_cell(NAN, 0.1, 0.2) == ""
    assert difference_cell(NAN, 0.1, 0.2, 1.0, "none") == ""
    assert pair_cell(0.1, NAN) == ""
    assert "whisker" not in bar_cell(0.5, NAN, NAN)
    assert "unsure" in bar_cell(0.5, NAN, NAN)
    assert "unsure" not in bar_cell(0.5, 0.4, 0.6)


def test_a_bar_with_its_interval_and_the_other_mark() -> None:
    cell = parse(bar_cell(0.5, 0.4, 0.6, 0.25))
    assert [element.get("width") for element in cell.iter("rect")] == ["50%"]
    assert [(element.get("x1"), element.get("x2")) for element in cell.iter("line")] == [("40%", "60%"), ("25%", "25%")]


@pytest.mark.parametrize(
    ("value", "low", "high", "kind"),
    [(0.1, 0.05, 0.2, "better"), (-0.1, -0.2, -0.05, "worse"), (0.1, -0.1, 0.3, "same"), (0.1, NAN, NAN, "none")],
)
def test_a_difference_is_drawn_on_its_side_of_zero(value: float, low: float, high: float, kind: str) -> None:
    assert reading(value, low, high)[0] == kind
    cell = parse(difference_cell(value, low, high, 0.3, kind))
    assert (kind if kind != "none" else "same") in (cell.get("class") or "").split()
    x = float((next(cell.iter("circle")).get("cx") or "").rstrip("%"))
    assert (x > 50) == (value > 0)


def test_a_difference_that_hangs_on_one_picture_is_drawn_as_it_is_read() -> None:
    item = difference({"mAP": 0.1, "mAP_low": 0.05, "mAP_high": 0.2, "mAP_without_one": -0.01}, "mAP")
    cell = parse(difference_cell(item["value"], item["low"], item["high"], 0.3, item["kind"]))
    assert "same" in (cell.get("class") or "").split()


def test_overview_has_a_bar_a_count_and_a_whisker_per_class() -> None:
    names = ("class", "bucket", "train_count", "ap", "ap_low", "ap_high", "positives")
    rows = [
        ("a<b>", "head", 120, 0.9, 0.8, 0.95, 40),
        ("c", "tail", 3, 0.2, NAN, NAN, 4),
        ("d", "tail", 0, NAN, NAN, NAN, 0),
        ("e", "tail", 1, 0.3, NAN, NAN, 40),
        ("f", "tail", 1, 0.3, NAN, NAN, 1),
    ]
    svg = overview([dict(zip(names, row, strict=True)) for row in rows])
    root = parse(svg)
    drawn = [element for element in root.iter("path") if (element.get("class") or "").startswith("bar ")]
    assert [element.get("class") for element in drawn] == ["bar head", *["bar tail unsure"] * 3]
    heights = [float(y1) - float(y2) for y1, y2 in re.findall(r'd="M\d+ ([\d.]+)V([\d.]+)h8', svg)]
    np.testing.assert_allclose(np.divide(heights, heights[0]), [1, 0.2 / 0.9, 0.3 / 0.9, 0.3 / 0.9], atol=0.002)
    titles = [element.text for element in root.iter("title")]
    assert titles == [
        "a<b>: AP 90.0 (80.0 to 95.0); 120 training pictures",
        "c: AP 20.0, only 4 test pictures; 3 training pictures",
        "e: AP 30.0, 40 test pictures but no interval; 1 training picture",
        "f: AP 30.0, only 1 test picture; 1 training picture",
    ]
    whisker = next(element for element in root.iter("path") if element.get("class") == "whisker")
    assert (whisker.get("d") or "").count("M") == 1
    counts = next(element for element in root.iter("path") if element.get("class") == "count")
    assert (counts.get("d") or "").count("M") == 5
    assert parse(overview([])) is not None
