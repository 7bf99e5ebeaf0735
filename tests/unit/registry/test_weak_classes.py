"""Which classes a model card calls weak, and for which reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from capnet.registry.candidate import read_candidate
from capnet.registry.cards import weak_classes


def test_each_weakness_has_its_reason(make_outputs: Callable[..., dict[str, Path]]) -> None:
    candidate = read_candidate(**make_outputs(critical=["cat"]))
    few = "9 positive test pictures: the figure is uncertain"
    own = "no threshold of its own: its held-out pictures alone do not show the objective"
    assert weak_classes(candidate) == [
        ("épée", None, ["not measured: no positive or no negative test picture", own]),
        ("traffic light", 0.25, [few]),
        ("cat", 0.375, [few]),
        ("Hund/Welpe", 0.5, [few]),
    ]
    rows = [
        dict(row) | {"positives": "40", "ap": "0.2" if row["class"] == "cat" else row["ap"]}
        for row in candidate.per_class
    ]
    assert ("cat", 0.2, ["below half of the mean of 50.0 %"]) in weak_classes(replace(candidate, per_class=rows))
    grouped = candidate.metrics | {"bootstrap": {"draws": 1000, "unit": "group", "units": 12}}
    many = [dict(row) | {"positives": "40", "ap_low": "" if row["class"] == "cat" else "0.1"} for row in rows]
    listed = {name: why for name, _, why in weak_classes(replace(candidate, metrics=grouped, per_class=many))}
    assert listed["cat"][-1] == "positive test pictures of fewer than 10 groups: the figure is uncertain"
    assert "Hund/Welpe" not in listed
    poor = [dict(row) | {"precision": "0.03", "recall": "0.4", "positives": "40"} for row in candidate.per_class]
    listed = {name: why for name, _, why in weak_classes(replace(candidate, per_class=poor))}
    assert listed["cat"] == [
        "critical, and most labels that it gives are wrong: precision 3.0 %",
        "critical, and most of its pictures are missed: recall 40.0 %",
    ]
    assert "traffic light" not in listed, "it is not critical"
    silent = [dict(row) | {"precision": "0.0", "recall": "0.0", "positives": "40"} for row in candidate.per_class]
    listed = {name: why for name, _, why in weak_classes(replace(candidate, per_class=silent))}
    assert listed["cat"] == ["critical, and most of its pictures are missed: recall 0.0 %"], "it gives no label"
    never = [dict(row) | {"train_count": "0"} for row in candidate.per_class if row["class"] == "épée"]
    marked = replace(candidate, per_class=never, thresholds=dict(candidate.thresholds) | {"objective": "recall>=0.9"})
    reasons = [
        "never learned: no positive training picture",
        "not measured: no positive or no negative test picture",
        "no threshold of its own: its held-out pictures alone do not show the objective",
        "recall>=0.9 is not reached",
    ]
    assert weak_classes(marked)[0][2] == reasons
    for positives, expected in ((0, reasons), (1, reasons[1:])):
        chosen = [dict(item) | {"positives": positives} for item in marked.thresholds["classes"]]
        refitted = replace(
            marked,
            config=dict(marked.config) | {"refit_rows": 12},
            thresholds=dict(marked.thresholds) | {"classes": chosen},
        )
        assert weak_classes(refitted)[0][2] == expected, "validation images are learned from, too"
