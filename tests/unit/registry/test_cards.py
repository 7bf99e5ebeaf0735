"""Model card and data card: figures against the tables they come from, and class names that try to be Markdown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from faults.bounded import bounded
from markdown_it import MarkdownIt

from capnet.contracts import Classes, read_split, write_split
from capnet.evaluation.report.choices import threshold_notes
from capnet.model.backbones.entry import UNKNOWN
from capnet.promotion.policy import Policy
from capnet.registry.candidate import read_candidate
from capnet.registry.cards import DATA_CARD, card_texts, description, model_card, weak_classes
from capnet.registry.data_card import data_card, data_licence

Make = Callable[..., dict[str, Path]]
HOSTILE = ["a|b\x1b[2J\u202e", "<img src=x onerror=alert(1)>", "[here](javascript:alert(1))", "`code`\n\n# title"]


class Tables(HTMLParser):
    """Text of every cell of every table, and all tags that occur."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(MarkdownIt("commonmark").enable("table").render(markdown))  # this preset lets HTML through

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.tables[-1][-1][-1] += data

    def headed(self, *head: str) -> list[list[str]]:
        """Rows of the table with this head."""
        return next(table[1:] for table in self.tables if table[0][: len(head)] == list(head))


def test_the_model_card_says_what_was_measured_and_where_it_is_weak(make_outputs: Make) -> None:
    candidate = read_candidate(**make_outputs(critical=["cat"]))
    rates = {"recall": 0.8, "recall_low": 0.444, "recall_high": 0.975}
    rates |= {"precision": 0.667, "precision_low": 0.3, "precision_high": 0.925}
    rows = [dict(row) | {name: str(value) for name, value in rates.items()} for row in candidate.per_class]
    candidate = replace(candidate, per_class=rows)
    candidate.metrics["decisions"] = {"critical": rates, "not_critical": rates}
    candidate.metrics["threshold"] = {"objective": "f1", "critical_objective": "recall>=0.95"}
    tables = Tables(model_card(candidate, "referenced", Policy()))
    assert tables.headed("", "mAP")[0] == [
        "CapNet",
        "50.0 (45.0 to 55.0)",
        "60.0 (55.0 to 65.0)",
        "50.0 (45.0 to 55.0)",
        "40.0 (35.0 to 45.0)",
    ]
    assert tables.headed("slice", "mAP")[0][:2] == ["unseen artwork", "40.0 (35.0 to 45.0)"]
    candidate.metrics["slices"], candidate.metrics["slice_info"] = {}, {"night": {"test_rows": 12}}
    assert Tables(model_card(candidate, "referenced", Policy())).headed("slice", "mAP")[0][:2] == ["night", ""]
    every = tables.headed("class", "bucket")
    assert [(row[0], row[2], row[4]) for row in every] == [
        ("traffic light", "120", "25.0"),
        ("cat (critical)", "30", "37.5"),
        ("Hund/Welpe", "13", "50.0"),
        ("épée", "7", "-"),
    ]
    assert tables.headed("class", "test", "recall %") == [["cat", "9", "80.0 (44.4 to 97.5)", "66.7 (30.0 to 92.5)"]]
    text = model_card(candidate, "packed", Policy())
    assert (
        "Asked for: recall of critical classes of at least 95.0 %. On the test pictures: 80.0 % (44.4 to 97.5)" in text
    )
    assert "Licence of the backbone: none: the weights are random numbers." in text
    assert "Backbone weights: in the artifact" in text
    together = (
        "1 of 4 classes borrows the pooled threshold: the objective is for several together, not for each of them."
    )
    assert together in text
    assert ["train.loss.name", "db_focal"] in tables.headed("setting", "value")


def test_the_model_card_says_what_thresholds_do_not_reach(make_outputs: Make) -> None:
    candidate = read_candidate(**make_outputs())
    note = f"2 of 4 classes are hardly ever recognised on held-out pictures: cat, {HOSTILE[1]}."
    candidate.metrics["threshold"] = {"objective": "f1", "notes": [note]}
    text = model_card(candidate, "referenced", Policy())
    assert "2 of 4 classes are hardly ever recognised on held-out pictures: cat," in text
    assert "img" not in Tables(text).tags


def test_the_data_card_counts_as_pandas_does(make_outputs: Make, tmp_path: Path) -> None:
    paths = make_outputs()
    frame = read_split(paths["split"] / "split.parquet")
    frame["unknown"] = [[3] if number % 2 else [] for number in range(len(frame))]
    frame["group"], frame["slice"] = (
        [f"site {number // 10}" for number in range(len(frame))],
        ["night" if number % 3 else "day" for number in range(len(frame))],
    )
    write_split(paths["split"] / "split.parquet", frame)
    check = {
        "name": "near_duplicates",
        "severity": "warning",
        "success": False,
        "says": "copies | on two sides",
        "observed": 3,
        "rows": 430,
    }
    skipped = {"name": "pictures_decode", "success": True, "why": "validate.images is off: no file was opened"}
    (paths["validation"] / "validation.json").write_text(
        json.dumps({"schema": 1, "checks": [check, check | {"success": True}, skipped]})
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ATTRIBUTION.md").write_text("# Attribution\n\n<b>CC BY-SA 4.0</b>, by OpenMoji\n")
    licence = data_licence("", tmp_path / "data")
    text = card_texts(
        read_candidate(**paths), "packed", "0123.dir", "s3://bucket/files/md5/01/23.dir", licence, Policy()
    )[DATA_CARD]
    tables = Tables(text)
    splits = {row[0]: row[1:] for row in tables.headed("split")}
    for split, part in frame.groupby("split"):
        labels = part["labels"].map(len).sum()
        share = part["unknown"].map(len).sum() / (4 * len(part))
        assert splits[str(split)] == [
            str(len(part)),
            str(labels),
            f"{labels / len(part):.2f}",
            f"{100 * share:.1f}",
            str(part["group"].nunique()),
        ]
    exploded = frame.explode("labels").groupby(["labels", "split"]).size()
    assert [row[2:5] for row in tables.headed("class", "bucket")] == [
        [str(exploded.get((n, split_name), 0)) for split_name in ("train", "val", "test")] for n in range(4)
    ]
    assert tables.headed("slice") == [
        [name, str(count)] for name, count in sorted(frame["slice"].value_counts().items())
    ]
    assert tables.headed("check") == [["near_duplicates", "warning", "copies | on two sides", "3 of 430"]]
    assert "| finding | how many |" in text, "some checks count classes and figures, not rows"
    assert "2 checks, 1 with findings. Not made: `pictures_decode`." in text, "a check that was left out saw nothing"
    assert "s3://bucket/files/md5/01/23.dir" in text
    assert "b" not in tables.tags, "a licence file is quoted, not rendered"
    assert "CC BY-SA 4.0</b>, by OpenMoji" in text
    assert (
        "Licence of the pictures: CC0 1.0."
        in card_texts(read_candidate(**paths), "packed", "", "", "CC0 1.0", Policy())[DATA_CARD]
    )


def test_what_nobody_said_is_said_to_be_unknown(
    make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = card_texts(read_candidate(**make_outputs()), "packed", "", "", "", Policy())[DATA_CARD]
    assert f"Licence of the pictures: {UNKNOWN}" in text
    assert "not under DVC" in text


def test_cards_of_a_model_without_chosen_thresholds_say_so(make_outputs: Make) -> None:
    candidate = read_candidate(**make_outputs())
    classes = [dict(item, threshold=0.5, borrowed=True, reached=False) for item in candidate.thresholds["classes"]]
    none = {"source": "none", "classes": classes, "objective": "recall>=0.9"}
    noted = {"threshold": {"notes": threshold_notes(none)}}
    candidate = replace(candidate, thresholds={**candidate.thresholds, **none}, metrics={**candidate.metrics, **noted})
    for text in (model_card(candidate, "packed", Policy()), description(candidate)):
        assert "0.5" in text
        assert [word for word in ("no pictures", "with labels") if f"{word} to choose" in text] == ["no pictures"]
        assert "pooled" not in text
        assert "chosen on ?" not in text
    reasons = [reason for _, _, reasons in weak_classes(candidate) for reason in reasons]
    assert not any("threshold" in reason or "not reached" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("bootstrap", "words"),
    [
        (
            {"draws": 1000, "unit": "group", "units": 12},
            "95 % intervals from 1,000 bootstrap draws of 12 groups, where a picture without a group counts as one",
        ),
        ({"draws": 1000, "unit": "picture", "units": 12}, "95 % intervals from 1,000 bootstrap draws of 12 pictures"),
        ({"draws": 1000, "unit": "group", "units": 1}, "no intervals, because all test pictures are of one group"),
    ],
)
def test_the_model_card_says_what_its_intervals_are_over(make_outputs: Make, bootstrap: dict, words: str) -> None:
    candidate = read_candidate(**make_outputs())
    measured = replace(candidate, metrics=candidate.metrics | {"bootstrap": bootstrap})
    assert f"In %, with {words}." in model_card(measured, "packed", Policy())


def test_the_versions_page_names_intervals_only_where_there_are_some(make_outputs: Make) -> None:
    candidate = read_candidate(**make_outputs())
    assert "\n| In % (95 % interval) | &emsp; mAP |" in description(candidate)
    one_group = candidate.metrics | {"bootstrap": {"draws": 1000, "unit": "group", "units": 1}}
    assert "\n| In % | &emsp; mAP |" in description(replace(candidate, metrics=one_group))


def test_the_data_card_claims_no_long_tail_of_balanced_data(make_outputs: Make) -> None:
    paths = make_outputs()
    frame = read_split(paths["split"] / "split.parquet")
    frame["labels"] = [[number % 4] for number in range(len(frame))]
    write_split(paths["split"] / "split.parquet", frame)
    text = data_card(read_candidate(**paths), "", "", "")
    assert "most of the labels" not in text
    assert "the most common class to the rarest that has labels is 1 to 1" in text
    names = [str(number) for number in range(1235)]
    frame = frame.iloc[[0] * 1235].assign(split="train", image_id=names, path=names)
    frame["labels"] = [[0, 1], *([0] for _ in range(1234))]
    write_split(paths["split"] / "split.parquet", frame)
    assert "that has labels is 1,235 to 1" in data_card(read_candidate(**paths), "", "", "")


def test_class_names_do_not_become_markup(make_outputs: Make) -> None:
    candidate = read_candidate(**make_outputs())
    names = dict(zip(candidate.classes.names, HOSTILE, strict=True))
    classes = Classes(tuple(replace(item, name=names[item.name]) for item in candidate.classes.items))
    thresholds = dict(candidate.thresholds) | {
        "classes": [item | {"name": names[item["name"]]} for item in candidate.thresholds["classes"]]
    }
    rows = [dict(row) | {"class": names[row["class"]]} for row in candidate.per_class]
    hostile = replace(candidate, classes=classes, per_class=rows, thresholds=thresholds)
    for text, columns in ((model_card(hostile, "packed", Policy()), 6), (data_card(hostile, "", "", ""), 6)):
        tables = Tables(text)
        assert not tables.tags & {"img", "script"}
        table = tables.headed("class", "bucket")
        assert [row[0] for row in table] == [
            "a|b\\x1b[2J\\u202e",
            "<img src=x onerror=alert(1)>",
            "[here](javascript:alert(1))",
            "'code' # title",
        ]
        assert {len(row) for row in table} == {columns}
    assert "javascript" not in "".join(
        part
        for part in MarkdownIt("commonmark").render(model_card(hostile, "packed", Policy())).split('"')
        if part.startswith("java")
    )


def test_a_thousand_classes_stay_readable(make_outputs: Make) -> None:
    candidate = read_candidate(**make_outputs(n_classes=1000))
    for text in card_texts(candidate, "packed", "", "", "", Policy()).values():
        assert len(text) < 80_000
        tables = text.count("| class |")
        assert text.count("And 700 more in per_class.csv") == tables, "none is cut in silence"
    assert np.all([len(line) < 2000 for line in text.splitlines()])


def test_no_sentence_is_a_row_of_the_table_above_it(make_outputs: Make) -> None:
    """Markdown ends a table at an empty line only."""
    paths = make_outputs()
    frame = read_split(paths["split"] / "split.parquet")
    frame["slice"] = ["night" if number % 3 else "day" for number in range(len(frame))]
    write_split(paths["split"] / "split.parquet", frame)
    candidate = read_candidate(**paths)
    blended = candidate.config | {"blend": {"weights": {"tuned": 0.7, "zero_shot": 0.3}, "chosen_on": "val"}}
    checks = [{"name": "near_duplicates", "success": False, "says": "copies"}]
    for slices in (candidate.metrics["slices"], {}):
        metrics = candidate.metrics | {"slices": slices, "slice_info": {name: {} for name in slices}}
        made = replace(candidate, config=blended, checks=checks, metrics=metrics)
        for text in card_texts(made, "packed", "", "", "Free.", Policy()).values():
            for line, following in pairwise(text.splitlines()):
                assert not line.startswith("|") or following[:1] in ("", "|"), following
        assert "What is served averages logits" in model_card(made, "packed", Policy())


def test_a_data_licence_comes_from_the_setting_or_from_the_folder(tmp_path: Path) -> None:
    assert data_licence("", tmp_path / "missing") == ""
    (tmp_path / "licence.txt").write_text("CC BY 4.0\n")
    (tmp_path / "labels.csv").write_text("path,labels\n")
    assert data_licence("", tmp_path) == "CC BY 4.0"
    assert data_licence(" CC0 ", tmp_path) == "CC0"
    (tmp_path / "secret").write_text("password")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "COPYING").symlink_to("../secret")
    assert data_licence("", folder) == "", "cards are published"
    (folder / "COPYING.txt").write_bytes(b"one\r\n\ttwo\x1b[2J")
    os.truncate(folder / "COPYING.txt", 4 * 10**9)
    assert bounded(lambda: data_licence("", folder)).kind == "done"
    assert data_licence("", folder).startswith("one\n    two\\x1b[2J\\x00")
