"""Notes on thresholds that reach too little."""

from __future__ import annotations

from typing import Any

import pytest

from capnet.evaluation.report.choices import threshold_notes


def content(objective: str, *classes: dict[str, Any]) -> dict[str, Any]:
    usual = {"threshold": 0.5, "borrowed": False, "reached": True, "positives": 20, "precision": 0.9, "recall": 0.9}
    entries = [{"name": f"class {number}", **usual, **item} for number, item in enumerate(classes)]
    return {"objective": objective, "source": "val", "classes": entries}


def test_classes_that_do_not_reach_a_precision_are_counted_and_those_hardly_ever_recognised_named() -> None:
    missed = {"reached": False, "recall": 0.4}
    (note,) = threshold_notes(content("precision>=0.8", missed, {"reached": False, "recall": 0.0}, {}))
    shown = "2 of 3 classes are not shown to reach precision>=0.8 by held-out pictures: class 0, class 1."
    assert note.startswith(shown)
    assert "Hardly ever recognised: class 1; evaluate.threshold.objective: f1" in note
    assert "Hardly" not in threshold_notes(content("precision>=0.8", missed, {}))[0]


def test_a_critical_class_below_its_recall_is_named_although_the_pool_reaches_it() -> None:
    low = {"objective": "recall>=0.9", "recall": 0.8, "positives": 25, "borrowed": True}
    (note,) = threshold_notes(content("f1", low, {}, {"objective": "recall>=0.9", "recall": 0.95}))
    assert note.startswith("Critical class class 0: recall 80.0 % of 25 held-out positives, below recall>=0.9")
    assert note.endswith("which classes that share a threshold reach together.")


def test_a_critical_class_with_a_threshold_of_its_own_shares_none() -> None:
    """Of 26 groups one has 15 of 40 positives, and counts as one: missed whole, they are 4 % of the promise."""
    low = {"objective": "recall>=0.9", "recall": 0.625, "positives": 40, "borrowed": False}
    (note,) = threshold_notes(content("f1", low, {}))
    assert note.endswith("62.5 % of 40 held-out positives, below recall>=0.9, which its groups reach on average.")


def test_classes_are_counted_among_those_with_their_objective() -> None:
    missed = {"objective": "precision>=0.9", "reached": False, "recall": 0.0}
    reached = {"objective": "precision>=0.9"}
    (note,) = threshold_notes(content("f1", missed, reached, {}, {}, {}))
    shown = "1 of 2 critical classes is not shown to reach precision>=0.9 by held-out pictures: class 0."
    assert note.startswith(shown)
    assert note.endswith(
        "Hardly ever recognised: class 0; evaluate.threshold.critical_objective: f1 gives more labels."
    )
    (note,) = threshold_notes(content("f1", {"recall": 0.0}, {}, reached))
    assert note.startswith(
        "1 of 2 classes that are not critical is hardly ever recognised on held-out pictures: class 0."
    )
    assert "More labelled pictures may help; evaluate.threshold.objective: recall>=0.9" in note


def test_classes_that_reach_a_precision_because_they_are_hardly_ever_given_are_named() -> None:
    """A borrowed threshold may reach its precision by the labels of other classes alone."""
    silent = {"borrowed": True, "precision": 0.0, "recall": 0.0}
    (note,) = threshold_notes(content("precision>=0.9", silent, silent, {}, {"objective": "recall>=0.9"}))
    assert note.startswith(
        "2 of 3 classes that are not critical are hardly ever recognised on held-out pictures: class 0, class 1."
    )
    assert "More labelled pictures may help; evaluate.threshold.objective: f1 gives more labels" in note


@pytest.mark.parametrize("objective", ["f1", "recall>=0.9", "precision>=0.8"])
def test_one_note_says_that_none_were_chosen(objective: str) -> None:
    (note,) = threshold_notes(content(objective, {"reached": False, "recall": None}) | {"source": "none"})
    assert note.startswith(
        "There were no held-out pictures with labels to choose thresholds on, so every class has 0.5"
    )


def test_f1_is_no_advice_for_more_labels_than_a_recall_gives() -> None:
    (note,) = threshold_notes(content("recall>=0.9", {"reached": False, "recall": 0.0}, {}))
    assert note.endswith("Hardly ever recognised: class 0.")


@pytest.mark.parametrize("objective", ["f1", "recall>=0.9", "precision>=0.8"])
def test_nothing_is_noted_where_all_is_reached(objective: str) -> None:
    assert threshold_notes(content(objective, {}, {"recall": None})) == []
    assert threshold_notes(content("f1", {"reached": False, "recall": 0.3})) == [], "F1 has nothing to reach"


def test_classes_that_f1_hardly_ever_recognises_are_named() -> None:
    (note,) = threshold_notes(content("f1", {"recall": 0.0}, {"recall": 0.01}, {"recall": 0.02}, {"recall": None}))
    assert note.startswith("2 of 4 classes are hardly ever recognised on held-out pictures: class 0, class 1.")


def test_classes_that_f1_gives_wrongly_are_named() -> None:
    (note,) = threshold_notes(content("f1", {"precision": 0.027}, {"precision": 0.1}, {"precision": None}))
    assert note.startswith("Labels of 1 of 3 classes are nearly always wrong on held-out pictures: ")
    assert note.endswith("class 0 (2.7 % right). evaluate.threshold.objective: precision>=0.5 gives fewer labels.")
    (note,) = threshold_notes(content("f1", {"precision": 0.0, "recall": 0.0}))
    assert "hardly ever recognised" in note, "not given is not given wrongly"
    assert "ever given" not in note, "that nothing is recognised does not say that nothing is given"
    assert threshold_notes(content("recall>=0.9", {"precision": 0.027})) == []


def test_labels_of_a_class_that_no_held_out_picture_shows_are_unchecked_and_not_wrong() -> None:
    unseen = {"positives": 0, "recall": None}
    (note,) = threshold_notes(content("f1", {**unseen, "precision": 0.0}, {**unseen, "precision": None}, {}))
    assert note.startswith("No held-out picture shows 1 of 3 classes: class 0. Whether labels of these are right")
    assert "precision>=0.5" not in note, "fewer labels would not help"
