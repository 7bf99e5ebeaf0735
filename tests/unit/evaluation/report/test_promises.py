"""What the report says about a recall or a precision that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unit.evaluation.made_run import make_run
from unit.evaluation.report.page import Page, html_of

from capnet.contracts import read_json, write_json
from capnet.evaluation.report.promises import promises

MEASURED = {
    "all": {"recall": 0.853, "recall_low": 0.788, "recall_high": 0.918, "precision": 0.6},
    "critical": {"precision": 0.97, "precision_low": 0.95, "precision_high": 0.99, "recall": 0.1},
    "not_critical": {"recall": 0.7, "recall_low": 0.6, "recall_high": 0.79},
}


def sentences_of(objective: str, critical: str = "", **more: Any) -> list[str]:
    """The sentences on MEASURED for these objectives."""
    thresholds = {"objective": objective} | ({"critical_objective": critical} if critical else {}) | more
    return promises({"decisions": MEASURED, "threshold": thresholds})


def test_a_recall_is_kept_missed_or_neither() -> None:
    assert sentences_of("recall>=0.9") == [
        "Asked for: recall of at least 90.0 %. On the test pictures: 85.3 % (78.8 to 91.8), which shows neither that it"
        " is kept nor that it is missed; precision 60.0 %."
    ]
    assert sentences_of("recall>=0.788")[0].endswith("85.3 % (78.8 to 91.8), which keeps it; precision 60.0 %.")
    assert sentences_of("recall>=0.95")[0].endswith("85.3 % (78.8 to 91.8), less than that; precision 60.0 %.")


def test_what_was_asked_for_is_not_rounded() -> None:
    for share, asked in (("0.9995", "99.95"), ("0.9975", "99.75"), ("0.998", "99.8"), ("1", "100.0"), ("0.57", "57.0")):
        assert sentences_of(f"recall>={share}")[0].startswith(f"Asked for: recall of at least {asked} %.")


def test_what_was_reached_is_not_rounded_onto_what_was_asked_for() -> None:
    for low, value, high, sentence in (
        (0.94961, 0.97, 0.99, "97.0 % (94.96 to 99.0), which shows neither that it is kept nor that it is missed."),
        (0.91, 0.93, 0.949999, "93.0 % (91.0 to 94.9999), less than that."),
        (0.95, 0.9502, 0.951, "95.02 % (95.0 to 95.1), which keeps it."),
    ):
        rates = {"recall": value, "recall_low": low, "recall_high": high}
        (text,) = promises({"decisions": {"all": rates}, "threshold": {"objective": "recall>=0.95"}})
        assert text == f"Asked for: recall of at least 95.0 %. On the test pictures: {sentence}"


def test_critical_classes_with_an_objective_of_their_own_are_apart() -> None:
    assert sentences_of("recall>=0.8", "precision>=0.95") == [
        "Asked for: precision of critical classes of at least 95.0 %. On the test pictures: 97.0 % (95.0 to 99.0),"
        " which keeps it; recall 10.0 %.",
        "Asked for: recall of other classes of at least 80.0 %. On the test pictures: 70.0 % (60.0 to 79.0), less than"
        " that.",
    ]
    assert len(sentences_of("f1", "precision>=0.95")) == 1


def test_no_label_at_all_is_no_promise_that_was_kept() -> None:
    rates = {"all": {"true": 7, "predicted": 0, "recall": 0.0}}
    (sentence,) = promises({"decisions": rates, "threshold": {"objective": "precision>=0.9"}})
    assert sentence == "Asked for: precision of at least 90.0 %. No label was given on the test pictures."


def test_nothing_is_claimed_without_promise_or_interval() -> None:
    assert sentences_of("f1") == []
    assert sentences_of("recall>=0.9", source="none") == []
    alone = {"all": {"recall": 0.853}}
    (sentence,) = promises({"decisions": alone, "threshold": {"objective": "recall>=0.9"}})
    assert sentence.endswith("On the test pictures: 85.3 %."), "all of one group"
    assert promises({"threshold": {"objective": "recall>=0.9"}}) == [], "an evaluation without test labels"


def test_the_page_has_promise_and_table(tmp_path: Path) -> None:
    run = make_run(tmp_path, classes=8, pictures=60)
    path = run.evaluation / "evaluation.json"
    rates = {"true": 84, "predicted": 1120} | MEASURED["all"] | {"precision_low": 0.5, "precision_high": 0.7}
    few = {"true": 0, "predicted": 3, "precision": 0}
    content = {"decisions": {"all": rates, "critical": few, "tail": few}}
    write_json(path, read_json(path) | content | {"threshold": {"objective": "recall>=0.9"}})
    page = Page(html_of(run))
    assert page.problems == []
    assert "Asked for: recall of at least 90.0 %. On the test pictures: 85.3 % (78.8 to 91.8)" in page.text
    rows = page.rows("thresholds")
    assert rows["All classes"] == ["All classes", "84", "1120", "85.378.8 to 91.8", "60.050.0 to 70.0"]
    assert list(rows)[:3] == ["All classes", "Tail", "Critical classes"], "as in all other tables"
    assert rows["Tail"] == ["Tail", "0", "3", "-", "0.0"]
