"""What the report says about the paper's premise: the graph against training counts, where the graph is the text's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.evaluation.made_run import MadeRun, make_run
from unit.evaluation.report.page import Page, html_of

from capnet import contracts
from capnet.evaluation.correlation import Premise, check_premise
from capnet.evaluation.report.graph import premise_sentence


def test_premise_table_holds_the_correlations_with_the_test_labels(run: MadeRun, page: Page) -> None:
    everything = np.ones_like(run.train_labels)
    premise = check_premise(
        run.adjacency, (run.train_labels, everything), (run.labels, ~run.unknown), np.array(run.buckets)
    )
    rows = page.rows("graph")
    for name, title in (("all", "All classes"), ("head", "Head"), ("medium", "Medium"), ("tail", "Tail")):
        item = premise[name]
        assert rows[title][1] == f"{item.counts:.2f}"
        assert rows[title][3] == f"{item.graph:.2f}"
        assert rows[title][5:] == [str(item.classes), str(item.left_out)]
    assert premise_sentence(premise, "text") in page.text


@pytest.mark.parametrize(
    ("low", "high", "classes", "expected"),
    [
        (0.02, 0.2, 9, "the label graph (text encoder) is the better guide for the tail"),
        (-0.2, -0.02, 9, "the paper's premise does not hold on these data"),
        (-0.1, 0.3, 9, "neither is shown to be the better guide for the tail"),
        (float("nan"), float("nan"), 3, "3 classes can be compared, 5 are needed"),
    ],
)
def test_premise_in_one_sentence(low: float, high: float, classes: int, expected: str) -> None:
    sentence = premise_sentence({"tail": Premise(classes, 0, 0.4, 0.3, 0.1, low, high)}, "text")
    assert expected in sentence
    assert sentence.count(". ") == 0


def test_a_small_difference_is_not_rounded_to_none() -> None:
    sentence = premise_sentence({"tail": Premise(9, 0, 0.404, 0.4, 0.004, 0.0004, 0.0076)}, "text")
    assert sentence.endswith("difference +0.004 with 95 % interval +0.0004 to +0.01.")


def test_a_graph_of_another_source_is_no_check_of_the_premise(tmp_path: Path) -> None:
    made = make_run(tmp_path, 12, 60)
    path = made.model / "graph.safetensors"
    graph = contracts.read_graph(path, contracts.read_classes(made.model / "classes.json"))
    contracts.write_graph(path, replace(graph, metadata=graph.metadata | {"source": "cooccurrence"}))
    text = Page(html_of(made)).text
    assert "is better taken from the text encoder than counted on few training pictures" in text
    assert "The label graph of this run is from the training co-occurrence instead" in text
    counts_win = {"tail": Premise(9, 0, 0.3, 0.4, -0.1, -0.2, -0.02)}
    assert "premise" in premise_sentence(counts_win, "text")
    assert "premise" not in premise_sentence(counts_win, "cooccurrence")


def test_without_a_tail_nothing_is_said_about_the_premise() -> None:
    counts_win = Premise(9, 0, 0.3, 0.4, -0.1, -0.2, -0.02)
    sentence = premise_sentence({"all": counts_win, "head": counts_win}, "text")
    assert "the training counts are the better guide over all classes (there is no tail): mean Spearman" in sentence
    assert "premise" not in sentence
