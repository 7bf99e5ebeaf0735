"""The split stage: manifest -> split.parquet, classes.json with training counts, split.json with what was decided."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from capnet.config import Params, Split
from capnet.contracts import (
    SCHEMA,
    SPLITS,
    Classes,
    read_classes,
    read_manifest,
    write_classes,
    write_json,
    write_split,
)
from capnet.errors import ConfigError, DataError, Problem, counted, some

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from capnet.data.splits.assign import Assignment

log = logging.getLogger(__name__)
NAMED = 30  # classes in a message, at most; split.json has all without positives


def split(params: Params, inputs: dict[str, Path], outputs: dict[str, Path]) -> dict[str, float]:
    """Give every image its split and every class its training count; the manifest's row order does not matter.

    Args:
        params: all settings.
        inputs: ``manifest``.
        outputs: ``split``, the folder to write.

    Returns:
        Number of rows per split.

    Raises:
        DataError: a class is short of ``split.require_positives`` in train or in a split that this stage drew, or the
            training counts are not those of ``split.benchmark``.
        ConfigError: ``split.reference`` is no such file.
    """
    import pandas as pd

    from capnet.data.annotations.label_lists import class_counts, known_positives
    from capnet.data.splits.assign import assign_splits
    from capnet.data.splits.published import check_benchmark
    from capnet.data.splits.reference import read_split_reference

    settings = params.split
    classes = read_classes(inputs["manifest"] / "classes.json")
    frame = read_manifest(inputs["manifest"] / "manifest.parquet").sort_values("image_id", ignore_index=True)
    labels = known_positives(frame, len(classes))
    published = _published(inputs["manifest"], frame["image_id"], settings)
    assignment = assign_splits(frame, labels, settings, published, read_split_reference(settings.reference))
    rows = {"train": assignment.train, "val": assignment.val, "test": assignment.test}
    counts = {name: labels[rows[name]].sum(axis=0) for name in SPLITS}
    check_benchmark(settings.benchmark, classes, counts["train"], {name: len(rows[name]) for name in SPLITS})
    warnings = [*assignment.warnings, *_beyond_list(len(assignment.test), len(published[1]))]
    warnings += [*check_positives(classes, counts, labels.sum(axis=0), assignment, settings)]
    for name in ("val", "test"):
        unknown = class_counts(frame["unknown"].iloc[rows[name]], len(classes))
        warnings += without_negatives(name, classes, counts[name], len(rows[name]) - counts[name] - unknown)
    for warning in warnings:
        log.warning("%s", warning)

    table = pd.concat([frame.iloc[rows[name]].assign(split=name) for name in SPLITS], ignore_index=True)
    write_split(outputs["split"] / "split.parquet", table)
    write_classes(outputs["split"] / "classes.json", classes.with_counts(counts["train"].tolist(), settings.buckets))
    write_json(outputs["split"] / "split.json", _decisions(classes, counts, assignment, settings, len(frame), warnings))
    return {f"{name}_rows": float(len(rows[name])) for name in SPLITS}


def _published(folder: Path, known: pd.Series, settings: Split) -> tuple[list[str], list[str]]:
    """The published id lists that ingest kept, train and test; raises ConfigError where there is none, DataError for
    unknown ids, ContractError where a list is damaged.
    """
    from capnet.data.splits.id_lists import LISTS, read_kept_list

    if settings.method != "published":
        return [], []
    train, test = (read_kept_list(folder, name) for name in LISTS)
    if not train:
        todo = "name a text file in data.root: training image ids, one a line"
        raise ConfigError("split.method published needs a list", "ingest.train_list is empty", todo)
    ids = set(known)
    problems = [
        Problem(f"image id {image!r} is listed and has no row", f"{name}_list.txt", "run `capnet ingest` again")
        for name, listed in zip(LISTS, (train, test), strict=True)
        for image in listed
        if image not in ids
    ]
    if problems:
        raise DataError(problems=problems)
    return train, test


def _beyond_list(test: int, listed: int) -> list[str]:
    """A warning of test rows that a published list of test images does not name."""
    if not listed or test == listed:
        return []
    what = f"{test - listed} of {counted(test, 'test image')} are given as test and not in ingest.test_list"
    return [f"{what}: the figures are not those of the list. Take them out of the annotations, or list them"]


def check_positives(
    classes: Classes, counts: dict[str, np.ndarray], total: np.ndarray, assignment: Assignment, settings: Split
) -> list[str]:
    """Look for classes that are short of known positives.

    A given or published val or test split cannot be drawn better, so there it is only a warning; classes without any
    positive are always named.

    Args:
        classes: of the data.
        counts: known positives by split, int [class].
        total: those of all rows, int [class].
        assignment: where each split came from.
        settings: the section ``split``; ``require_positives`` is what classes need.

    Returns:
        Warnings, in words.

    Raises:
        DataError: a drawn split has classes short of positives; one problem a split counts them all and names NAMED.
    """
    warnings, problems = [], []
    drawn = {"train": True, "val": assignment.validation_source != "given", "test": assignment.test_source == "share"}
    for name in SPLITS:
        required = int(getattr(settings.require_positives, name))
        short = [c for c in range(len(classes)) if counts[name][c] < required]
        if short and drawn[name]:
            listed = some([f"{classes.names[c]}: {counts[name][c]} ({total[c]} in all rows)" for c in short], NAMED)
            verb = "has" if len(short) == 1 else "have"
            what = f"{len(short)} of {len(classes)} classes {verb} fewer than {required} known positives in {name}"
            enough = bool(max(total[c] for c in short) >= required)
            in_val = bool(counts["val"][short].any())
            problems.append(Problem(what, listed, _what_helps(name, assignment, settings, enough, in_val)))
        elif short:
            listed = some([f"{classes.names[c]}: {counts[name][c]}" for c in short], NAMED)
            warnings.append(f"fewer than {required} known positives in the given {name} rows: {listed}")
        empty = _without_positives(classes, counts[name])
        if empty and (name == "test" or (name == "val" and len(assignment.val))):
            warnings.append(f"no known positive in {name}, so left out of its means: {some(empty, NAMED)}")
    if problems:
        raise DataError(problems=problems)
    return warnings


def without_negatives(name: str, classes: Classes, positives: np.ndarray, negatives: np.ndarray) -> list[str]:
    """A warning of the classes of split ``name`` that have known positives and no known negative, int [class] each."""
    alike = [classes.names[c] for c in range(len(classes)) if positives[c] and not negatives[c]]
    what = f"no known negative in {name}, so without average precision: {some(alike, NAMED)}"
    return [what] if alike else []


def _what_helps(name: str, assignment: Assignment, settings: Split, enough: bool, in_val: bool) -> str:
    """What would help; ``enough``: in all rows some of these classes have the positives that the split lacks;
    ``in_val``: some of these are validation rows.
    """
    fewer = (
        f"set split.require_positives.{name} lower, or take the class out of the annotations (labels and unknown), and"
        " out of classes.csv where there is one"
    )
    if name == "train":
        draw = {"pareto": "raise split.pareto.min, or ", "exponential": "lower split.exponential.ratio, or "}.get(
            settings.method, ""
        )
        held = "lower split.validation.share, or " if in_val and assignment.validation_source == "train" else ""
        in_test = enough and not in_val and settings.method == "natural"
        others = "their other images are test rows: " if in_test else ""
        return f"{others}{draw + held if enough else ''}add images of these classes; or {fewer}"
    more = "split.test_share" if name == "test" else "split.validation.share"
    source = ""
    if name == "val" and assignment.validation_source == "none":
        source = " and choose split.validation.source train or pool"
    return f"raise {more}{source}; or add images of these classes; or {fewer}"


def _without_positives(classes: Classes, counts: np.ndarray) -> list[str]:
    return [name for name, count in zip(classes.names, counts, strict=True) if not count]


def _decisions(
    classes: Classes,
    counts: dict[str, np.ndarray],
    assignment: Assignment,
    settings: Split,
    n_rows: int,
    warnings: list[str],
) -> dict[str, Any]:
    """What split.json says: where rows came from, how many, and what to mind."""
    rows = {"train": len(assignment.train), "val": len(assignment.val), "test": len(assignment.test)}
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "method": settings.method,
        "validation_source": assignment.validation_source,
        # labels beyond the long-tailed list, which a published result would not have had
        "extra_labels": settings.method != "natural" and assignment.validation_source in ("given", "pool"),
        "test_source": assignment.test_source,
        "test_rows_kept": assignment.test_kept,
        "rows": {**rows, "left_over": n_rows - sum(rows.values())},
        "labels": {name: int(counts[name].sum()) for name in SPLITS},
        "without_positives": {name: _without_positives(classes, counts[name]) for name in SPLITS if rows[name]},
        "followed_their_group": assignment.followed,
        "validation_rows_given_as_train": assignment.held_out_of_given,
        "warnings": warnings,
    }
    if assignment.draw is not None:
        order = [classes.names[c] for c in assignment.draw.class_order]
        content[settings.method] = {
            "class_order": order,
            "reference": assignment.draw.reference,
            "steps": assignment.draw.steps,
        }
    return content
