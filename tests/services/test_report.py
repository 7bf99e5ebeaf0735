"""The report and the page of findings in a browser: printed, nothing lies over what is next to it and nothing is folded
away; tables are sorted as their columns are read.
"""

from __future__ import annotations

from pathlib import Path

from services.browser import Browser
from unit.evaluation.made_run import make_run
from unit.evaluation.report.page import html_of

from capnet.contracts import read_classes, read_split
from capnet.data.checks.page import OPEN, page

A4 = 717  # pixels between Chromium's own margins
OVER = """[...document.querySelectorAll(".columns > *")].flatMap(part =>
  [...part.querySelectorAll("table, svg")].map(element => [element.outerHTML.slice(0, 40),
    Math.round(element.getBoundingClientRect().right - part.getBoundingClientRect().right)])
).filter(([_, beyond]) => beyond > 1)"""


def test_no_table_of_a_printed_report_lies_over_the_next(tmp_path: Path) -> None:
    for classes, pictures in ((40, 300), (6, 40)):
        name = f"{classes}.html"
        (tmp_path / name).write_text(html_of(make_run(tmp_path / str(classes), classes, pictures)))
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as window:
        window.tell("Emulation.setEmulatedMedia", media="print")
        window.tell("Emulation.setDeviceMetricsOverride", width=A4, height=1000, deviceScaleFactor=1, mobile=False)
        for classes in (40, 6):
            window.open(f"file://{tmp_path}/{classes}.html")
            window.wait("What test-time ensembling gives", "Run settings")
            assert window.ask(OVER) == []


def test_printed_findings_have_every_class_and_its_bar(tmp_path: Path) -> None:
    names = ["a_name_without_any_space_that_is_far_longer_than_its_column_of_the_page", *map(str, range(OPEN + 20))]
    made = make_run(tmp_path / "run", len(names), 60, names=names)
    html = page([], read_split(made.split / "split.parquet"), read_classes(made.split / "classes.json"), [])
    (tmp_path / "validation.html").write_text(html)
    (tmp_path / "profile").mkdir()
    bars = """[...document.querySelectorAll(".bars tbody tr")].map(row => [row.checkVisibility(),
        getComputedStyle(row.querySelector("div")).printColorAdjust, row.cells[1].offsetWidth])"""
    with Browser(tmp_path / "profile") as window:
        window.tell("Emulation.setEmulatedMedia", media="print")
        window.tell("Emulation.setDeviceMetricsOverride", width=A4, height=1000, deviceScaleFactor=1, mobile=False)
        window.open(f"file://{tmp_path}/validation.html")
        window.wait("Known positives of every class")
        rows = window.ask(bars)
    assert len(rows) == len(names)
    assert {(shown, colours) for shown, colours, _ in rows} == {(True, "exact")}
    assert len({width for *_, width in rows}) == 1, "bars of both tables have one scale"


def test_findings_on_a_phone_break_no_short_name(tmp_path: Path) -> None:
    made = make_run(tmp_path / "run", 3, 60, names=["person", "elephant", "giraffe"])
    html = page([], read_split(made.split / "split.parquet"), read_classes(made.split / "classes.json"), [])
    (tmp_path / "validation.html").write_text(html)
    (tmp_path / "profile").mkdir()
    tall = """[...document.querySelectorAll("tbody th")].map(cell => [cell.textContent, cell.firstChild]).filter(
        ([_, text]) => { const range = document.createRange(); range.selectNode(text);
                         return range.getClientRects().length > 1; }).map(([name]) => name)"""
    with Browser(tmp_path / "profile") as window:
        window.tell("Emulation.setDeviceMetricsOverride", width=320, height=844, deviceScaleFactor=1, mobile=False)
        window.open(f"file://{tmp_path}/validation.html")
        window.wait("Known positives of every class")
        assert window.ask("document.querySelectorAll('tbody th').length") > 3
        assert window.ask(tall) == []


def test_tables_are_sorted_by_name_as_text_and_by_figure_as_number(tmp_path: Path) -> None:
    names = ["fish 10", "fish 2", "3D printer", "3D glasses", "Infinity", "-", "apple", "12 cans"]
    made = make_run(tmp_path / "run", len(names), 60, names=names, empty=(6,))
    (tmp_path / "report.html").write_text(html_of(made))
    (tmp_path / "profile").mkdir()
    column = """(number => [...document.querySelectorAll("#classes tbody tr")]
        .map(row => row.cells[number].textContent.trim()))(%d)"""
    sorts = """[...document.querySelectorAll("#classes thead th")].map(head => head.ariaSort)"""
    with Browser(tmp_path / "profile") as window:
        window.open(f"file://{tmp_path}/report.html")
        window.wait("8 classes as a table")
        window.ask("""document.documentElement.style.scrollBehavior = "auto" """)
        window.click("#classes thead button", "^Class")
        by_name = ["-", "3D glasses", "3D printer", "12 cans", "apple", "fish 2", "fish 10", "Infinity"]
        assert window.ask(column % 0) == by_name
        assert window.ask(sorts)[0] == "ascending"
        window.click("#classes thead button", "^Class")
        assert window.ask(column % 0) == by_name[::-1]
        assert window.ask(sorts)[0] == "descending"
        for order in ("descending", "ascending"):
            window.click("#classes thead button", "^AP")
            assert window.ask(sorts)[2] == order
            shown = window.ask(column % 2)
            assert shown[-1] == "-", "what was not measured is last"
            figures = [float(text) for text in shown[:-1]]
            assert figures == sorted(figures, reverse=order == "descending")
        window.click("#thresholds thead button", "^Mark")
        marks = window.ask(
            """[...document.querySelectorAll("#thresholds tbody tr")].map(row => row.cells[2].innerText)"""
        )
        assert marks == sorted(marks, key=lambda mark: not mark), "marked classes are first"
        assert marks[0]
