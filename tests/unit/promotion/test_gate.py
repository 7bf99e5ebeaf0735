"""Which rows a candidate and a champion are compared on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from capnet.contracts import (
    read_classes,
    read_json,
    read_predictions,
    read_split,
    write_json,
    write_predictions,
    write_split,
)
from capnet.errors import ConfigError, ContractError
from capnet.promotion.gate import gate_verdict
from capnet.promotion.policy import Policy, read_policy
from capnet.promotion.scores import GateScores, gate_scores, read_gate, write_gate
from capnet.yaml_text import read_yaml

Make = Callable[..., dict[str, Path]]
POLICY = Policy(draws=200)
FINE = {"bucket": "head", "critical": False}
WRONG = [f"coverage: {value}" for value in ("1.1", "-0.1", "true", "99", "'0.9'")]


def _scores(paths: dict[str, Path]) -> GateScores:
    return gate_scores(paths["split"], paths["evaluation"], read_classes(paths["split"] / "classes.json"), "")


def test_the_files_hold_test_rows_and_what_was_seen_without_names_of_groups(make_outputs: Make, tmp_path: Path) -> None:
    paths = make_outputs(critical=("cat",))
    table = read_split(paths["split"] / "split.parquet").assign(
        group=lambda frame: [f"patient {n // 2}" for n in range(len(frame))]
    )
    write_split(paths["split"] / "split.parquet", table)
    write_gate(tmp_path / "gate", _scores(paths))
    scores = read_gate(tmp_path / "gate")
    predictions = read_predictions(paths["evaluation"] / "predictions.parquet")
    test = table[table["split"] == "test"]
    assert scores.test["sha256"].tolist() == test["sha256"].tolist()
    np.testing.assert_array_equal(
        np.stack(scores.test["scores"]), np.stack(predictions[predictions["split"] == "test"]["scores"])
    )
    assert [list(row) for row in scores.test["labels"]] == [list(row) for row in test["labels"]]
    assert scores.seen["sha256"].tolist() == table[table["split"] != "test"]["sha256"].tolist()
    assert scores.test["group"].nunique() == test["group"].nunique()
    assert not any(b"patient" in path.read_bytes() for path in (tmp_path / "gate").iterdir())
    assert [item["critical"] for item in scores.classes["classes"]] == [False, True, False, False]


def test_a_test_row_without_scores_is_refused(make_outputs: Make) -> None:
    paths = make_outputs()
    path = paths["evaluation"] / "predictions.parquet"
    write_predictions(path, read_predictions(path).query("image_id != 'p31'"))
    with pytest.raises(ContractError, match="399 predictions for 400 test rows; without: p31"):
        _scores(paths)


def test_without_a_champion_only_the_minimum_counts(make_outputs: Make) -> None:
    scores = _scores(make_outputs())
    assert gate_verdict(scores, None, POLICY).colour == "green"
    verdict = gate_verdict(
        scores, None, POLICY.model_copy(update={"minimum": POLICY.minimum.model_copy(update={"mAP": 0.99})})
    )
    assert (verdict.colour, [rule.name for rule in verdict.broken]) == ("red", ["minimum mAP"])


@pytest.mark.parametrize("shown", [False, True])
def test_the_first_champion_s_critical_classes_that_no_test_picture_shows_or_all_do_are_named(
    make_outputs: Make, shown: bool
) -> None:
    scores = _scores(make_outputs())
    items = [{**item, "critical": item["name"] in ("épée", "cat")} for item in scores.classes["classes"]]
    number = scores.names.index("épée")
    labels = [sorted({*map(int, row)} - {number} | ({number} if shown else set())) for row in scores.test["labels"]]
    unknown = [[label for label in row if label != number] for row in scores.test["unknown"]]
    scores = replace(scores, test=scores.test.assign(unknown=unknown))
    scores = replace(scores, classes={**scores.classes, "classes": items}, test=scores.test.assign(labels=labels))
    note = "critical classes without a positive or without a negative test picture: épée"
    verdict = gate_verdict(scores, None, POLICY)
    assert (verdict.colour, verdict.notes[:-1]) == ("green", (note,))
    compared = gate_verdict(scores, scores, POLICY)
    assert note not in compared.notes, "a rule says it"
    notes = {rule.name: rule.note for rule in compared.rules}
    assert notes["critical class épée"] == "positive or negative test pictures are missing"


@pytest.mark.parametrize(("positives", "grouped"), [(9, False), (10, False), (9, True)])
def test_the_first_champion_s_critical_classes_that_are_too_rare_to_decide_about_are_named(
    make_outputs: Make, positives: int, grouped: bool
) -> None:
    scores = _scores(make_outputs())
    items = [{**item, "critical": item["name"] == "cat"} for item in scores.classes["classes"]]
    number = scores.names.index("cat")
    shown = [n // 2 if grouped else n for n in range(400)]  # of two pictures of a group
    labels = [
        sorted({*map(int, row)} - {number} | ({number} if n < positives else set()))
        for n, row in zip(shown, scores.test["labels"], strict=True)
    ]
    groups = [hashlib.sha256(str(n).encode()).hexdigest()[:16] if grouped else "" for n in shown]
    test = scores.test.assign(labels=labels, group=groups)
    scores = replace(scores, classes={**scores.classes, "classes": items}, test=test)
    what = "groups" if grouped else "pictures"
    note = f"critical classes with fewer than 10 positive test {what}, too few to decide about later versions: cat (9)"
    verdict = gate_verdict(scores, None, POLICY)
    assert (verdict.colour, verdict.notes[:-1]) == ("green", (note,) if positives == 9 else ())


def test_rows_that_the_champion_has_seen_are_left_out_with_their_groups(make_outputs: Make) -> None:
    scores = _scores(make_outputs())
    hashes = [hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(400)]
    candidate = replace(scores, test=scores.test.assign(group=["g"] * 5 + hashes[5:]))
    seen = pd.DataFrame({"sha256": [scores.test["sha256"][9], "elsewhere"], "group": ["", "g"]})
    verdict = gate_verdict(candidate, replace(candidate, seen=seen), POLICY)
    assert (verdict.rows, verdict.colour) == (394, "green")
    assert verdict.notes[0].startswith("6 of 400 test pictures are left out")
    without_groups = gate_verdict(scores, replace(scores, seen=seen.assign(group="")), POLICY)
    assert without_groups.rows == 399, "rows without a group are no group"


def test_other_test_rows_need_a_person_unless_the_champion_scores_them(make_outputs: Make) -> None:
    scores = _scores(make_outputs())
    champion = replace(scores, test=scores.test.iloc[3:].reset_index(drop=True))
    verdict = gate_verdict(scores, champion, POLICY)
    assert (verdict.colour, verdict.rows, {rule.outcome for rule in verdict.rules}) == ("inconclusive", 397, {"pass"})
    left_out = "the champion has no scores for 3 of 400 test pictures, which are left out"
    assert verdict.notes == (f"{left_out}: `capnet promote --data FOLDER` lets it score them",)
    asked: list[str] = []

    def rescore(rows: pd.DataFrame) -> np.ndarray:
        asked.extend(rows["sha256"])
        return np.stack(scores.test["scores"].iloc[:3])

    verdict = gate_verdict(scores, champion, POLICY, rescore)
    assert asked == scores.test["sha256"].iloc[:3].tolist()
    compared = {rule.name: rule.difference for rule in verdict.rules if "coverage" not in rule.name}
    assert (verdict.colour, verdict.rows) == ("green", 400)
    assert compared == {name + of: 0.0 for of in ("", " on the champion's test pictures") for name in ("mAP", "tail")}


def test_scores_are_matched_by_content_and_not_by_order(make_outputs: Make) -> None:
    scores = _scores(make_outputs())
    champion = replace(scores, test=scores.test.sample(frac=1, random_state=1).reset_index(drop=True))
    rules = {rule.name: rule for rule in gate_verdict(scores, champion, POLICY).rules}
    assert [rules[name].difference for name in ("mAP", "tail")] == [0.0, 0.0]
    assert [rules[name].value for name in ("coverage", "coverage of the tail")] == [1.0, 1.0]


def test_no_rows_left_are_not_comparable(make_outputs: Make) -> None:
    scores = _scores(make_outputs())
    verdict = gate_verdict(scores, replace(scores, seen=scores.test[["sha256", "group"]]), POLICY)
    assert (verdict.colour, verdict.notes[-1]) == ("inconclusive", "not comparable: no test picture is left")


def test_damaged_files_are_named(make_outputs: Make, tmp_path: Path) -> None:
    write_gate(tmp_path / "gate", _scores(make_outputs()))
    (tmp_path / "gate" / "test.parquet").write_bytes(b"PAR1")
    with pytest.raises(ContractError, match="scores for the gate cannot be read"):
        read_gate(tmp_path / "gate")


@pytest.mark.parametrize(
    ("column", "values", "fault"),
    [
        ("unknown", None, "columns are missing: unknown"),
        ("sha256", pa.nulls(400, pa.string()), "column sha256 has 400 empty cells"),
        ("sha256", pa.array(range(400)), "column sha256 holds int64, not string"),
        ("group", pa.array([None, *["a"] * 399]), "column group has 1 empty cells"),
        ("labels", pa.array(["cat"] * 400), "column labels holds string"),
        ("labels", pa.array([[9]] * 400, pa.list_(pa.int16())), "class indices from 9 to 9"),
        ("labels", pa.array([[None, 1]] * 400, pa.list_(pa.int16())), "labels has an empty class index"),
        ("scores", pa.array([["a"] * 4] * 400), "column scores holds list"),
        ("scores", pa.array([[0.5] * 3] * 400, pa.list_(pa.float32())), "scores are not those of 4 classes"),
    ],
)
def test_rows_that_no_registration_writes_are_refused(
    make_outputs: Make, tmp_path: Path, column: str, values: pa.Array | None, fault: str
) -> None:
    write_gate(tmp_path, _scores(make_outputs()))
    table = pq.read_table(tmp_path / "test.parquet").drop_columns([column])
    pq.write_table(table if values is None else table.append_column(column, values), tmp_path / "test.parquet")
    with pytest.raises(ContractError, match=f"scores for the gate cannot be read: .*{fault}"):
        read_gate(tmp_path)


@pytest.mark.parametrize(
    "classes",
    [
        [],
        None,
        "cat",
        [{"name": "cat", "bucket": "head"}],
        [{"name": 3, "bucket": "head", "critical": False}],
        [{"name": "cat", "bucket": "head", "critical": "no"}],
        [{"name": "cat", "bucket": "head", "critical": False}] * 4,
        [{"name": f"{n}", "bucket": "head", "critical": False, "threshold": n, "objective": "f1"} for n in range(4)],
        [
            {"name": f"{n}", "bucket": "head", "critical": False, "threshold": n / 2, "objective": "f1"}
            for n in range(4)
        ],
        [{"name": f"{n}", "bucket": "head", "critical": False, "threshold": 0.5} for n in range(4)],
        *(
            [
                {"name": f"{n}", "bucket": "head", "critical": False, "threshold": 0.5, "objective": objective}
                for n in range(4)
            ]
            for objective in ("recall>=abc", "precision>=nan", "recall>=", "")
        ),
        *(
            [{"name": f"{n}", "bucket": "head", "critical": False, "train_count": count} for n in range(4)]
            for count in ("3", 2.5, True, None)
        ),
    ],
)
def test_a_list_of_classes_that_no_registration_writes_is_refused(
    make_outputs: Make, tmp_path: Path, classes: object
) -> None:
    write_gate(tmp_path, _scores(make_outputs()))
    write_json(tmp_path / "gate.json", read_json(tmp_path / "gate.json") | {"classes": classes})
    with pytest.raises(ContractError, match="scores for the gate cannot be read"):
        read_gate(tmp_path)


def test_the_files_of_an_older_capnet_are_read(make_outputs: Make, tmp_path: Path) -> None:
    scores = _scores(make_outputs())
    write_gate(tmp_path, scores)
    table = pq.read_table(tmp_path / "test.parquet").replace_schema_metadata(None)
    pq.write_table(table.select(sorted(table.column_names)), tmp_path / "test.parquet", compression="zstd")
    assert read_gate(tmp_path).test["sha256"].tolist() == scores.test["sha256"].tolist()


def test_the_policy_of_the_repository_is_the_usual_one(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository / "mlflow" / "promotion.yaml"
    assert read_policy(path) == Policy()
    assert read_yaml(path.read_text()) == Policy().model_dump(), "messages say that every key stands there"
    monkeypatch.chdir(tmp_path)
    assert read_policy(Path("mlflow/promotion.yaml")) == Policy()
    with pytest.raises(ConfigError, match="no promotion policy"):
        read_policy(Path("other.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "may_fall: {mAP: 0}",
        "may_fall: {tial: 0.1}",
        "minimum: {mAP: 50}",
        "draws: 1",
        "draws: 1000000000000",
        "{",
        "- 1",
        "may_fall: {mAP: true}",
        "[]",
        *WRONG,
    ],
)
def test_a_wrong_policy_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError):
        read_policy(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("coverage: true", "coverage = True: a number is wanted, not true or false"),
        ("may_fall: {tail: true}", "may_fall: tail = True: a number is wanted, not true or false"),
        ("may_fall: 3", "may_fall = 3: keys with values are wanted"),
        ("[coverage]", "the whole = ['coverage']: keys with values are wanted"),
        ("draws: 1", "draws = 1: Input should be greater than or equal to 200"),
    ],
)
def test_a_wrong_policy_is_named_without_words_of_the_library(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_policy(tmp_path / "p.yaml")
    assert [problem.what for problem in caught.value.problems] == [what]
