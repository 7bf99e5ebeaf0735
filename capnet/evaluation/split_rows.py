"""The rows of a split with their labels and scores, checked; held-out scores are brought into their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from capnet.contracts import Classes, known_labels, read_predictions
from capnet.errors import ContractError, DataError, Problem
from capnet.evaluation.metrics import Bools, Floats, measurable


@dataclass(frozen=True)
class SplitRows:
    """The rows of one split; labels and known bool [image, class], scores float32 [image, class] by
    variant.
    """

    name: str
    rows: pd.DataFrame
    labels: Bools
    known: Bools
    scores: dict[str, Floats]


def make_split(table: pd.DataFrame, name: str, classes: Classes, scores: Mapping[str, Floats]) -> SplitRows:
    """One split with its labels.

    Args:
        table: rows of split.parquet.
        name: train, val or test.
        classes: the columns of labels and scores.
        scores: float32 [image, class] by variant, in the order of the rows of this split.

    Returns:
        The rows of the split; an unknown label is no label.

    Raises:
        ContractError: Scores have another shape.
        DataError: A score is no number between 0 and 1.
    """
    rows = table[table["split"] == name].reset_index(drop=True)
    split = SplitRows(name, rows, *known_labels(rows, len(classes)), dict(scores))
    check_scores(split)
    return split


def check_scores(split: SplitRows) -> None:
    """Every variant must have one score in [0, 1] for each row and class.

    Raises:
        ContractError: scores have another shape.
        DataError: a score is no number between 0 and 1; names every image that has one.
    """
    problems = []
    for variant, scores in split.scores.items():
        if scores.shape != split.labels.shape:
            raise ContractError(
                f"{variant} has scores of shape {scores.shape}, {split.labels.shape} expected",
                f"{split.name} rows",
                "run `capnet train` again",
            )
        broken = ~((scores >= 0) & (scores <= 1))  # true for NaN
        for row in np.flatnonzero(broken.any(axis=1)):
            what = f"the score {scores[row][broken[row]][0]} of variant {variant} is not between 0 and 1"
            todo = (
                "check that the training loss stayed finite (history.csv) and that the image is readable, then"
                " train again"
            )
            problems.append(
                Problem(what, f"{split.name} image {split.rows['image_id'][row]} ({split.rows['path'][row]})", todo)
            )
    if problems:
        raise DataError(problems=problems)


def aligned(scored: pd.DataFrame, rows: pd.DataFrame, what: str, of: str, path: Path, todo: str) -> list[Any]:
    """The scores of rows, in their order.

    Args:
        scored: a table with image_id and scores.
        rows: the rows, with image_id.
        what: name of the scores in an error.
        of: name of the rows in an error.
        path: of the scores, for an error.
        todo: what helps, for an error.

    Returns:
        Scores [class] of each row.

    Raises:
        ContractError: the scores are of other rows.
    """
    by_id = dict(zip(scored["image_id"], scored["scores"], strict=True))
    missing = [name for name in rows["image_id"] if name not in by_id]
    if missing or len(scored) != len(rows):
        words = f"{len(scored)} {what} for {len(rows)} {of} rows; without: {', '.join(missing[:5]) or 'none'}"
        raise ContractError(words, str(path), todo)
    return [by_id[name] for name in rows["image_id"]]


def served_test_scores(path: Path, rows: pd.DataFrame) -> list[Any]:
    """``aligned`` scores of the test ``rows`` by the variant capnet, from predictions.parquet at ``path``."""
    scored = served_predictions(path, "test")
    return aligned(scored, rows, "predictions", "test", path, "run `capnet evaluate` again after `capnet split`")


def served_predictions(path: Path, split: str) -> pd.DataFrame:
    """The rows of predictions.parquet at ``path`` that are of a ``split`` and of the variant that is served, capnet."""
    table = read_predictions(path)
    return table[(table["variant"] == "capnet") & (table["split"] == split)]


def held_out_rows(splits: Sequence[SplitRows], out_of_fold: pd.DataFrame) -> SplitRows:
    """The rows of those ``splits`` that ``out_of_fold`` has scores of, in their order, with these as variant capnet.

    Raises:
        ContractError: the scores are of other rows.
    """
    parts = [split for split in splits if (out_of_fold["split"] == split.name).any()] or list(splits)
    words = " and ".join({"train": "training", "val": "validation"}[split.name] for split in parts)
    todo = "run `capnet train` again after `capnet split`"
    together = concatenated(parts)
    by_row = aligned(out_of_fold, together.rows, "out-of-fold scores", words, Path("out_of_fold.parquet"), todo)
    held_out = replace(together, scores={"capnet": np.stack(by_row).astype(np.float32)})
    check_scores(held_out)
    return held_out


def concatenated(splits: Sequence[SplitRows]) -> SplitRows:
    """The rows of several splits one after the other, with their labels and without scores."""
    rows = pd.concat([split.rows for split in splits], ignore_index=True)
    labels, known = (np.concatenate([getattr(split, name) for split in splits]) for name in ("labels", "known"))
    return SplitRows("+".join(split.name for split in splits), rows, labels, known, {})


def require_positives(test: SplitRows) -> None:
    """Without a class that can be ranked there is nothing to measure.

    Raises:
        DataError: there are no test rows, none has a known label, or all labels of each class that are known are alike.
    """
    if test.rows.empty:
        raise DataError(
            "there are no test rows", "split.parquet", "give test rows (column split), or set split.test_share above 0"
        )
    if not test.known.any():
        what = f"none of the {len(test.rows)} test pictures has a known label, so no measure exists"
        raise DataError(
            what, "split.parquet", "give the test pictures their labels, or draw another test set (split.seed)"
        )
    if not measurable(test.labels, test.known).any():
        both = "a positive and a negative" if test.labels.any() else "a positive"
        what = f"no class has {both} among the {len(test.rows)} test pictures, so no measure exists"
        which = "that are known not to show a class" if test.labels.any() else "that show a class"
        todo = (
            f"give pictures {which} the split 'test' too (column split), or draw another test set (split.seed)"
            " if this one was drawn"
        )
        raise DataError(what, "split.parquet", todo)
