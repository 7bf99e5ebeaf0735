"""Drift: what moved is told from what chance moves, and the reference says only whole numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from capnet.config import Drift
from capnet.contracts import make_classes, write_json
from capnet.data.checks.drift import BETWEEN, drift_counts, drift_table, read_reference
from capnet.errors import ContractError

CLASSES = make_classes([f"c{c}" for c in range(12)])


def sample(
    rng: np.random.Generator, rows: int, split: str = "train", factor: float = 1.0, swap: bool = False
) -> pd.DataFrame:
    """Long-tailed labels in two scenes (even and odd classes go together); ``swap`` mixes the scenes up."""
    share = 0.6 / np.arange(1, 13)
    labels = []
    for _ in range(rows):
        scene = rng.integers(2)
        chance = share * factor * np.where(np.arange(12) // (1 if not swap else 6) % 2 == scene, 1.6, 0.2)
        labels.append(np.flatnonzero(rng.random(12) < chance).tolist())
    return pd.DataFrame({"labels": labels, "unknown": [[]] * rows, "split": split})


def without(frame: pd.DataFrame, c: int) -> list[list[int]]:
    return [[label for label in row if label != c] for row in frame["labels"]]


def rare(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with a single picture of the last class."""
    return frame.assign(labels=[[11] if i == 0 else row for i, row in enumerate(without(frame, 11))])


def moved(before: pd.DataFrame, after: pd.DataFrame, limits: Drift | None = None) -> set[tuple[str, str]]:
    table = drift_table(drift_counts(before, CLASSES), drift_counts(after, CLASSES), limits or Drift())
    return {(row["figure"], row["split"]) for _, row in table.iterrows() if row["excess"] > 0}


def test_classes_in_another_order_move_nothing() -> None:
    frame = sample(np.random.default_rng(4), 400)
    turned = frame.assign(labels=[sorted(11 - label for label in row) for row in frame["labels"]])
    before = drift_counts(frame, CLASSES)
    table = drift_table(before, drift_counts(turned, make_classes(CLASSES.names[::-1])), Drift())
    same = drift_table(before, before, Drift())
    assert table["excess"].to_numpy() == pytest.approx(same["excess"].to_numpy())
    assert table["value"].str.startswith("0.0 % of the pairs of labels moved").sum() == 1


def test_counts_equal_a_direct_count() -> None:
    frame = sample(np.random.default_rng(0), 200)
    frame.at[3, "unknown"] = [0]
    frame.at[3, "labels"] = [0, 2, 5]
    frame.at[4, "labels"] = [1, 99]  # another check's matter; below 0 is refused where the table is read
    frame.loc[150:, "split"] = "test"
    result = drift_counts(frame, CLASSES)
    for split, rows in (("train", range(150)), ("test", range(150, 200))):
        sets = [
            {label for label in frame["labels"][row] if 0 <= label < 12} - set(frame["unknown"][row]) for row in rows
        ]
        assert result["sides"][split]["rows"] == len(sets)
        assert result["sides"][split]["labels"] == sum(map(len, sets))
        assert result["sides"][split]["squares"] == sum(len(row) ** 2 for row in sets)
        assert list(result["sides"][split]["positives"].values()) == [sum(c in row for row in sets) for c in range(12)]
        pairs = {f"c{a}{BETWEEN}c{b}": sum({a, b} <= row for row in sets) for a in range(12) for b in range(a + 1, 12)}
        assert result["sides"][split]["pairs"] == {name: count for name, count in pairs.items() if count}
        assert result["sides"][split]["all_pairs"] == sum(pairs.values())
        assert result["sides"][split]["pair_squares"] == sum((len(row) * (len(row) - 1) // 2) ** 2 for row in sets)
    assert json.loads(json.dumps(result)) == result


def test_the_same_data_has_not_moved_at_all() -> None:
    frame = sample(np.random.default_rng(0), 300)
    assert (
        moved(frame, frame.sample(frac=1, random_state=1), Drift(imbalance=0, cardinality=0, cooccurrence=0)) == set()
    )


@pytest.mark.slow  # draws many data sets
@pytest.mark.parametrize("rows", [60, 400, 4000])
def test_chance_alone_is_no_drift(rows: int) -> None:
    """Two samples of one distribution, ten times over, at every size: no figure is reported."""
    rng = np.random.default_rng(rows)
    result = [moved(sample(rng, rows * 2), sample(rng, rows)) for _ in range(10)]
    assert set().union(*result) == set()


@pytest.mark.parametrize("rows", [1000, 4000])
def test_each_change_is_named(rows: int) -> None:
    rng = np.random.default_rng(rows)
    before = sample(rng, rows)
    assert moved(before, sample(rng, rows, factor=1.5)) == {("label cardinality", "train")}
    assert ("co-occurrence", "train") in moved(before, sample(rng, rows, swap=True))
    assert ("imbalance ratio", "train") in moved(
        before.assign(labels=[row if i % 9 else [*row, 11] for i, row in enumerate(without(before, 11))]), rare(before)
    )


def test_the_limits_are_obeyed() -> None:
    rng = np.random.default_rng(1)
    before, after = sample(rng, 4000), sample(rng, 4000, factor=1.2)
    assert moved(before, after, Drift(cardinality=0.1)) == {("label cardinality", "train")}
    assert moved(before, after, Drift(cardinality=0.3)) == set()


def test_classes_and_sides_that_come_and_go_are_named() -> None:
    frame = sample(np.random.default_rng(0), 100)
    both = pd.concat([frame, frame.assign(split="val")], ignore_index=True)
    table = drift_table(
        drift_counts(both, make_classes(["old", *CLASSES.names[1:]])), drift_counts(frame, CLASSES), Drift()
    )
    figures = {row["figure"]: row["value"] for _, row in table.iterrows() if row["excess"] > 0}
    assert figures["classes"] == "gone: old; new: c0"
    assert figures["rows"] == "100, now 0"


def test_the_pair_that_moved_most_is_named() -> None:
    before = pd.DataFrame({"labels": [[0, 1]] * 50 + [[2, 3]] * 50, "unknown": [[]] * 100, "split": "train"})
    after = pd.DataFrame({"labels": [[0, 1]] * 50 + [[2, 4]] * 50, "unknown": [[]] * 100, "split": "train"})
    table = drift_table(drift_counts(before, CLASSES), drift_counts(after, CLASSES), Drift()).set_index("figure")
    assert table.loc["co-occurrence", "value"].startswith("50.0 % of the pairs of labels moved")
    assert "c2 + c3 50.0 %, now 0.0 %" in table.loc["co-occurrence", "value"]


def test_pictures_without_labels_have_figures() -> None:
    blank = pd.DataFrame({"labels": [[]] * 40, "unknown": [[]] * 40, "split": "train"})
    assert moved(blank, blank) == set()
    assert moved(blank, sample(np.random.default_rng(0), 40)) == {
        ("imbalance ratio", "train"),
        ("label cardinality", "train"),
        ("co-occurrence", "train"),
    }


def test_a_thousand_classes_make_a_short_file() -> None:
    rng = np.random.default_rng(0)
    classes = make_classes([f"class {c}" for c in range(1000)])
    frame = pd.DataFrame(
        {
            "labels": [rng.choice(1000, 5, replace=False).tolist() for _ in range(5000)],
            "unknown": [[]] * 5000,
            "split": "train",
        }
    )
    result = drift_counts(frame, classes)
    assert len(result["sides"]["train"]["pairs"]) == 1000
    other = pd.DataFrame(
        {
            "labels": [rng.choice(1000, 5, replace=False).tolist() for _ in range(5000)],
            "unknown": [[]] * 5000,
            "split": "train",
        }
    )
    table = drift_table(result, drift_counts(other, classes), Drift())
    assert (table["excess"] <= 0).all()


def test_reading_a_reference(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    assert read_reference(path) is None
    content = drift_counts(sample(np.random.default_rng(0), 50), CLASSES)
    write_json(path, content)
    assert read_reference(path) == content
    for broken in (
        {},
        {**content, "schema": 9},
        {"schema": 1},
        {**content, "sides": {"train": {"rows": 3}}},
        {**content, "sides": []},
    ):
        write_json(path, broken)
        with pytest.raises(ContractError, match=r"reference|schema"):
            read_reference(path)
    path.write_text("{")
    with pytest.raises(ContractError):
        read_reference(path)
