"""The page of findings: what a reader must see is there, and nothing of it needs a network or can run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from capnet.contracts import make_classes
from capnet.data.checks.page import OPEN, page, verdict
from capnet.data.checks.rules import Check, Rule, not_checked

EVIL = '<img src=x onerror="alert(1)">.jpg'
FAILED = Check(
    "bad",
    "critical",
    False,
    25,
    100,
    [{"image_id": "a", "path": EVIL, "split": "test", "value": "why & how"}],
    "all is well",
    "it is bad",
    "run `x y`",
)
WARNED = Check(
    "few", "warning", False, 1, 9, [{"class": "sea lion", "split": "val", "value": 2}], "many", "few", "add some"
)
PASSED = Check("fine", "critical", True, 0, 100, [], "all is fine", "", "")
(SKIPPED,) = not_checked([Rule("later", "", "all is later", "", "", "warning")], "there is no `clock`")


def frame() -> pd.DataFrame:
    labels = [[0, 1], [0], [], [1], [2, 0]]
    return pd.DataFrame(
        {
            "labels": labels,
            "unknown": [[], [1], [], [], [0]],
            "split": ["train", "train", "train", "test", "test"],
            "group": ["a", "a", None, "b", "c"],
        }
    )


class Text(HTMLParser):
    """Visible text, tags and addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def test_a_reader_sees_what_was_found() -> None:
    result = Text(
        page([PASSED, WARNED, FAILED, SKIPPED], frame(), make_classes(["cat", "dog", "sea lion"]), ["pictures.html"])
    )
    text = result.text()
    assert result.open == []
    assert "Refused: 1 critical check failed. 1 check passed, 1 warning, 1 not checked." in text
    assert text.index("It is bad") < text.index("Few")  # critical first
    assert EVIL in text
    assert "why & how" in text
    assert "25 of 100 rows. To do: run x y ." in text
    assert "1 of 9 counts of a class in a split. To do: add some." in text
    assert "and 24 more" in text
    assert "sea lion val 2" in text
    assert "there is no clock" in text
    assert re.search(r"Against it . passed All is fine", text.replace("\u2713", "."))


def test_the_split_in_figures() -> None:
    text = Text(page([PASSED], frame(), make_classes(["cat", "dog", "bird"]), [])).text()
    assert "The split may be used. 1 check passed, 0 warnings, 0 not checked." in text
    # pictures, groups, labels a picture, without a label, unknown labels
    assert "train 3 1 1.00 1 1 val 0 - - - - test 2 2 1.00 0 1" in text
    assert "Class train test cat 2 0 dog 1 1 bird 0 1" in text  # an unknown label is no positive
    assert "What was found" not in text


def test_the_page_stands_alone_and_cannot_run_anything() -> None:
    html = page([FAILED], frame(), make_classes(["<script>alert(1)</script>", "b", "c"]), ["pictures.html"])
    result = Text(html)
    assert not {"script", "link", "img", "iframe"} & set(result.tags)
    assert all(address in ("validation.json", "data_docs/pictures.html") for address in result.addresses)
    assert "://" not in html
    assert "default-src 'none'" in html


def test_many_classes_are_folded_away() -> None:
    classes = make_classes([f"class {c}" for c in range(OPEN + 40)])
    html = page([PASSED], frame(), classes, [])
    assert "40 more classes" in Text(html).text()
    assert html.count('<tr><th scope="row">class ') == OPEN + 40


@pytest.mark.parametrize("empty", [True, False])
def test_a_table_without_rows_has_a_page(empty: bool) -> None:
    rows = frame().iloc[:0] if empty else frame().iloc[3:]
    assert "Known positives" in Text(page([PASSED], rows, make_classes(["cat", "dog", "bird"]), [])).text()


def test_the_verdict_counts() -> None:
    assert verdict([PASSED, PASSED, SKIPPED]) == [
        "The split may be used.",
        "2 checks passed, 0 warnings, 1 not checked.",
    ]
    assert verdict([FAILED, FAILED, WARNED]) == [
        "Refused: 2 critical checks failed.",
        "0 checks passed, 1 warning, 0 not checked.",
    ]
