"""The evaluate stage on test sets of every kind: slices, groups, odd classes, and those that are refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from capnet.config import Evaluate
from capnet.errors import ContractError, DataError
from capnet.evaluation.results import slices
from capnet.steps.evaluate import write_results
from tests.unit.steps.made_case import Case, Scored, make_case, stored

pytestmark = pytest.mark.slow


def test_slices_are_measured_apart_and_only_where_there_are_several() -> None:
    case = make_case(sizes=(60, 40, 120), slices=("known", "unseen", None))
    results = case.evaluate()
    assert list(results["evaluation"]["slices"]) == ["known", "no slice", "unseen"]
    test = case.table[case.table["split"] == "test"].reset_index(drop=True)
    rows = (test["slice"] == "unseen").to_numpy()
    labels, scores = case.labels("test")[rows], stored(results, "zero_shot", "test")[rows]
    ap = [average_precision_score(labels[:, c], scores[:, c]) for c in range(6) if labels[:, c].any()]
    assert results["evaluation"]["slices"]["unseen"]["zero_shot"]["mAP"] == pytest.approx(np.mean(ap), abs=1e-9)
    info = results["evaluation"]["slice_info"]["unseen"]
    assert info["test_rows"] == info["units"] == rows.sum(), "no groups: each image is drawn alone"
    assert "mAP_low" in info["differences"]["capnet-zero_shot"]
    assert make_case(slices=("only",)).evaluate()["evaluation"]["slices"] == {}


def test_a_slice_that_is_named_no_slice_is_measured_apart_from_rows_without_one() -> None:
    rows = pd.DataFrame({"slice": ["no slice", None, "unseen", "", "no slice", "(no slice)"]})
    assert {name: np.flatnonzero(mask).tolist() for name, mask in slices(rows).items()} == {
        "no slice": [0, 4],
        "((no slice))": [1, 3],
        "unseen": [2],
        "(no slice)": [5],
    }
    assert set(slices(rows.iloc[[0, 1]])) == {"no slice", "(no slice)"}


def test_a_slice_without_positives_has_its_rows_counted_and_no_measures() -> None:
    case = make_case(slices=("a", "b"))
    blank = case.table["slice"] == "b"
    case.table["labels"] = [
        np.array([], dtype=int) if b else labels for b, labels in zip(blank, case.table["labels"], strict=True)
    ]
    results = case.evaluate()["evaluation"]
    assert list(results["slices"]) == ["a"]
    assert results["slice_info"]["b"]["left_out"] == case.classes.names


def test_groups_widen_the_intervals() -> None:
    case = make_case()
    alone = case.evaluate()["evaluation"]
    assert alone["bootstrap"] == {"draws": 100, "seed": 0, "unit": "picture", "units": 80}
    case.table["group"] = [f"patient {row // 40}" for row in range(len(case.table))]
    together = case.evaluate()["evaluation"]
    assert together["bootstrap"]["unit"] == "group"
    assert together["capnet"]["mAP"] == alone["capnet"]["mAP"]
    assert together["capnet"]["mAP_low"] != alone["capnet"]["mAP_low"]


def test_copies_of_a_picture_count_once() -> None:
    """Each test picture four times has no more to say than once."""
    once = make_case(sizes=(60, 40, 60))
    test = once.table[once.table["split"] == "test"]
    copies = [test.assign(image_id=test["image_id"] + f" copy {n}") for n in range(3)]
    table = pd.concat([once.table, *copies], ignore_index=True)
    table["sha256"] = table["image_id"].str[:6]
    scored = Scored(
        {name: np.concatenate([scores] * 4) for name, scores in once.test.scores.items()},
        np.concatenate([once.test.features] * 4),
    )
    often = Case(table, once.classes, once.val, scored, once.train_features)
    few, many = (case.evaluate(Evaluate(bootstrap=400))["evaluation"] for case in (once, often))
    assert many["bootstrap"] | {"units": 60, "unit": "picture"} == many["bootstrap"]
    assert many["capnet"]["mAP"] == pytest.approx(few["capnet"]["mAP"])
    width = [item["capnet"]["mAP_high"] - item["capnet"]["mAP_low"] for item in (few, many)]
    assert width[1] > 0.9 * width[0]
    ends = [item["decisions"]["all"]["recall_high"] - item["decisions"]["all"]["recall_low"] for item in (few, many)]
    assert ends[1] == pytest.approx(ends[0], rel=0.1)


def test_classes_without_test_positives_are_named_and_in_no_mean() -> None:
    case = make_case()
    test = case.table["split"] == "test"
    case.table["labels"] = [
        labels[labels != 2] if t else labels for t, labels in zip(test, case.table["labels"], strict=True)
    ]
    results = case.evaluate()
    assert results["evaluation"]["left_out"] == ["class 2"]
    row = results["per_class"].set_index("class").loc["class 2"]
    assert np.isnan(row["ap"])
    assert np.isnan(row["f1"])
    assert results["evaluation"]["capnet"]["mAP"] == pytest.approx(results["per_class"]["ap"].mean(), abs=1e-9)


def test_unknown_test_entries_have_no_effect() -> None:
    case = make_case(unknown=0.2)
    before = case.evaluate()
    for split, scored in (("test", case.test), ("val", case.val)):
        assert scored is not None
        for scores in scored.scores.values():
            scores[~case.known(split)] = 0.987
    case.table["labels"] = [
        np.union1d(labels, unknown) for labels, unknown in zip(case.table["labels"], case.table["unknown"], strict=True)
    ]
    after = case.evaluate()
    for name in ("capnet", "zero_shot", "linear_probe", "differences", "threshold"):
        assert json.dumps(before["evaluation"][name]) == json.dumps(after["evaluation"][name])


def test_bad_scores_name_every_picture() -> None:
    case = make_case()
    case.test.scores["capnet"][3, 2] = np.nan
    case.test.scores["zero_shot"][5, 0] = 1.5
    with pytest.raises(DataError) as error:
        case.evaluate()
    ids = case.table[case.table["split"] == "test"]["image_id"].tolist()
    assert [ids[row] in str(error.value) for row in (3, 5)] == [True, True]
    assert "nan" in str(error.value)
    assert len(error.value.problems) == 2


def test_scores_of_another_shape_are_refused() -> None:
    case = make_case()
    case.test.scores["capnet"] = case.test.scores["capnet"][:, :5]
    with pytest.raises(ContractError, match=r"\(80, 5\)"):
        case.evaluate()


@pytest.mark.parametrize(
    ("unknown", "what", "todo"),
    [
        (range(6), "none of the 80 test pictures has a known label", "give the test pictures their labels"),
        ((), "no class has a positive among the 80 test pictures", "that show a class"),
        (range(5), "no class has a positive among the 80 test pictures", "that show a class"),
    ],
)
def test_a_test_side_without_a_positive_is_refused(unknown: Iterable[int], what: str, todo: str) -> None:
    """Blank pictures are known to be so; only where every label is unknown are labels missing."""
    case = make_case()
    in_test = case.table["split"] == "test"
    for name, content in (("labels", ()), ("unknown", unknown)):
        case.table[name] = [
            np.array(list(content), dtype=int) if test else old
            for test, old in zip(in_test, case.table[name], strict=True)
        ]
    with pytest.raises(DataError, match=what) as caught:
        case.evaluate()
    assert todo in caught.value.problems[0].todo


def test_a_test_side_on_which_no_class_can_be_ranked_is_refused() -> None:
    """Class 0 is on every picture, and the others are unknown."""
    case = make_case()
    in_test = case.table["split"] == "test"
    for name, content in (("labels", [0]), ("unknown", range(1, 6))):
        case.table[name] = [
            np.array(list(content), dtype=int) if test else old
            for test, old in zip(in_test, case.table[name], strict=True)
        ]
    with pytest.raises(DataError, match="no class has a positive and a negative among the 80 test pictures") as caught:
        case.evaluate()
    assert "that are known not to show a class" in caught.value.problems[0].todo


def test_no_test_rows_are_refused() -> None:
    case = make_case(sizes=(60, 40, 0))
    with pytest.raises(DataError, match="there are no test rows"):
        case.evaluate()


def test_an_empty_bucket_is_left_out(tmp_path: Path) -> None:
    results = make_case(buckets=(1000, 1)).evaluate()
    assert not {"head", "tail"} & set(results["evaluation"]["capnet"])
    assert results["evaluation"]["capnet"]["medium"] == results["evaluation"]["capnet"]["mAP"]
    assert list(results["evaluation"]["calibration"]["buckets"]) == ["all", "medium"]
    write_results(tmp_path, results)  # refuses NaN


def test_three_classes(tmp_path: Path) -> None:
    write_results(tmp_path, make_case(3, (20, 6, 9)).evaluate())


def test_a_thousand_classes(tmp_path: Path) -> None:
    case = make_case(1000, (40, 30, 60), seed=3)
    results = case.evaluate(Evaluate.model_validate({"bootstrap": 100}))
    write_results(tmp_path, results)
    assert len(results["thresholds"]["classes"]) == 1000
