"""The report as a browser prints it: no table lies over the one next to it."""

from __future__ import annotations

from pathlib import Path

from services.browser import Browser
from unit.evaluation.made_run import make_run
from unit.evaluation.report.page import html_of

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
