"""The pages of `capnet label` and `capnet review` by keyboard, on a screen as small as a phone's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from services.browser import Browser

from capnet.commands import label_page, review
from capnet.config import parse

STOPS = 60
CLASSES = ["fox", "owl", "deer", "hare", "boar", "lynx"]
COVERED = """(focused => !focused.closest("footer") && focused.getBoundingClientRect().bottom
    > document.querySelector("footer").getBoundingClientRect().top)(document.activeElement)"""


def label_html(folder: Path) -> str:
    labels = [(name, "0.10", False) for name in CLASSES]
    more = {"labels": labels, "source": "", "link": "", "split": "", "group": ""}
    items = [{"path": f"{number}.jpg"} | more for number in range(20)]
    return label_page.page(items, CLASSES, [], "july", "|", "outputs")


def review_html(folder: Path) -> str:
    asked = [(f"{number}.jpg", "fox", "", "no", "0.900", "train") for number in range(STOPS)]
    return review.page(asked, {}, parse({"data": {"root": str(folder)}}), folder)


@pytest.mark.parametrize("html", [label_html, review_html])
def test_what_has_the_focus_is_never_behind_the_bar_at_the_bottom(tmp_path: Path, html: Callable[[Path], str]) -> None:
    (tmp_path / "page.html").write_text(html(tmp_path))
    (tmp_path / "profile").mkdir()
    with Browser(tmp_path / "profile") as window:
        window.tell("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=False)
        window.open(f"file://{tmp_path}/page.html")
        window.wait("looked at")
        for stop in range(STOPS):
            window.press("Tab", 9)
            assert not window.ask(COVERED), f"stop {stop}"
        assert window.ask("scrollY") > 844, "the page was scrolled on the way"
