"""Which split every row is in: given splits first, then test, train and validation; a group is never in two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from capnet.config import Split
from capnet.contracts import SPLITS, sampling_units
from capnet.data.splits.long_tail import LongTailedDraw, exponential_curve, long_tailed_draw, reference_curve
from capnet.data.splits.reference import FREE, NOTHING, TEST, Reference, grouped_with, kept, leaving_test
from capnet.data.splits.stratify import stratified_holdout
from capnet.errors import ConfigError, DataError, Problem, counted

LEFT = "left"  # out of train and test, at most a validation row
ABSENT = 0.05  # share of the reference's test images that may be deleted without a warning
GIVE_TEST = "write 'test' into the column split of labels.csv, or name test images, as in ingest.coco.test"


@dataclass(frozen=True)
class Assignment:
    """Row positions per split in the order in which they are written, and where each split came from."""

    train: list[int]
    val: list[int]
    test: list[int]
    validation_source: str  # given, train, pool or none
    test_source: str  # given, published or share
    followed: int = 0  # rows without a split that went where the rest of their group was given
    held_out_of_given: int = 0  # rows given as train that became validation rows
    test_kept: int = 0  # test rows that were test rows in split.reference, with their groups
    draw: LongTailedDraw | None = None
    warnings: list[str] = field(default_factory=list)


def assign_splits(
    frame: pd.DataFrame,
    labels: csr_array | np.ndarray,
    settings: Split,
    published: tuple[Sequence[str], Sequence[str]] = ((), ()),
    reference: Reference = NOTHING,
) -> Assignment:
    """Give the rows of ``frame`` (manifest columns, ascending image_id) their splits.

    Given splits stay: a row given as val or test is there, and nothing joins a given test split but rows of its own
    groups that have no split. A row given as train may be left out by the Pareto draw or a published list, or become a
    validation row where rows without a split do not suffice; it is never a test row. With no test rows given,
    ``test_share`` of the rows without a split is held out before train is drawn, so test keeps the natural
    distribution. Where a reference knows images or groups, they stay in or out of test, and new rows fill up the share
    of all.

    Args:
        frame: manifest columns, ascending image_id.
        labels: known positives, sparse or dense bool [row, class].
        settings: the section ``split``.
        published: image ids of the published train and test list; empty where there is none.
        reference: images and groups of an earlier split; where test rows are given or published they are all of test,
            and a warning counts the test images of the reference that leave it.

    Raises:
        DataError: train or test would be empty, or a list contradicts given splits.
        ConfigError: the pool that validation rows are to come from cannot exist.
    """
    groups = sampling_units(frame)
    given_split = frame["given_split"].astype(object).fillna(FREE).to_numpy(dtype=object)
    position = {image: row for row, image in enumerate(frame["image_id"])}
    listed_train, listed_test = ([position[image] for image in ids] for ids in published)
    split = given_split.copy()
    if settings.method == "published":
        _refuse_contradictions(frame, given_split, listed_train, listed_test)
        split[split == "train"] = LEFT
        split[listed_train], split[listed_test] = "train", "test"
        split[(split == FREE) & grouped_with(groups, np.isin(split, SPLITS))] = LEFT
        followed = 0
    else:
        followed = _follow_groups(split, groups)
    test_source = "given" if (split == "test").any() else "share"
    test_source = "published" if listed_test else test_source
    test_kept, warnings = 0, leaving_test(frame, split, groups, test_source, reference)
    if test_source == "share":
        test_kept = _take_test(split, frame, labels, groups, settings, reference, warnings)
    in_list = set(listed_test)
    test = [*listed_test, *(row for row in np.flatnonzero(split == "test").tolist() if row not in in_list)]

    draw = None
    train = np.flatnonzero((split == FREE) | (split == "train"))
    if settings.method in ("pareto", "exponential"):
        draw = long_tailed_draw(labels[train], _reference_counts(labels.shape[1], settings), settings.seed)
        train = train[draw.rows]
    elif settings.method == "published":
        train = np.array(listed_train, dtype=np.int64)
    if not len(train):
        raise _no_train(split, given_split, test_source, followed, settings)

    val, source = np.flatnonzero(split == "val"), "given"
    if not len(val):
        source = settings.validation.source
        if source == "train":
            val = _from_train(train, given_split, labels, groups, settings)
        elif source == "pool":
            val = _from_pool(train, split, labels, groups, settings)
    if not len(val) and source != "none":
        too_large = _too_large(groups[train], settings.validation.share, "split.validation.share")
        why = f" ({too_large})" if too_large and source == "train" else ""
        what = f"no validation rows: split.validation.source = {source} gave none{why}"
        warnings.append(f"{what}, so the last epoch is kept")
        source = "none"
    held_out = np.isin(train, val)
    if held_out.all():
        counts = f"{len(train)} of {len(frame)} rows"
        where = f"split.validation.share = {settings.validation.share} holds out every training row: {counts}"
        raise DataError("no rows for train", where, "lower split.validation.share, or give more rows")
    return Assignment(
        train=train[~held_out].tolist(),
        val=val.tolist(),
        test=test,
        validation_source=source,
        test_source=test_source,
        followed=followed,
        held_out_of_given=int((given_split[train[held_out]] == "train").sum()),
        test_kept=test_kept,
        draw=draw,
        warnings=warnings,
    )


def _take_test(
    split: np.ndarray,
    frame: pd.DataFrame,
    labels: csr_array | np.ndarray,
    groups: np.ndarray,
    settings: Split,
    reference: Reference,
    warnings: list[str],
) -> int:
    """Mark ``test_share`` of the rows without a split as test rows, those of the reference first. Returns how many are
    the reference's, and adds to ``warnings``.
    """
    old, new = kept(frame, groups, split == FREE, reference)
    test_kept, size = int(old.sum()), round(settings.test_share * int((split == FREE).sum()))
    split[_test_share(new, test_kept, size - test_kept, labels, groups, settings)] = "test"
    split[old] = "test"
    listed = {image for image, name in reference.images.items() if name == TEST}
    absent = len(listed.difference(frame["image_id"]))
    if absent > ABSENT * len(listed) and new.any():
        warnings.append(
            f"{absent} of {len(listed)} test images of split.reference are not in the data any more, and"
            f" {counted(int(new.sum()), 'new image')} may go to test or to train. If folders or files were renamed,"
            " write their earlier paths without the ending into the column image_id"
        )
    return test_kept


def _reference_counts(n_classes: int, settings: Split) -> np.ndarray:
    """What the draw aims at, falling, int64 [class in visiting order]; the method is exponential or pareto."""
    if settings.method == "exponential":
        return exponential_curve(n_classes, settings.exponential.max, settings.exponential.ratio)
    return reference_curve(n_classes, settings.pareto.max, settings.pareto.min, settings.pareto.shape)


def _follow_groups(split: np.ndarray, groups: np.ndarray) -> int:
    """Put rows without a split where the rest of their group was given (test before val before train); returns how
    many moved.
    """
    moved = 0
    for name in reversed(SPLITS):
        follow = (split == FREE) & grouped_with(groups, split == name)
        split[follow] = name
        moved += int(follow.sum())
    return moved


def _test_share(
    new: np.ndarray, kept_rows: int, size: int, labels: csr_array | np.ndarray, groups: np.ndarray, settings: Split
) -> np.ndarray:
    """Positions of the ``new`` rows, bool [row], that become test rows, at most ``size``; with rows that are kept in
    test there may be none.
    """
    free = np.flatnonzero(new)
    size = min(max(0, size), len(free))
    if not kept_rows and settings.test_share and len(free):
        size = max(1, size)
    chosen = free[stratified_holdout(labels[free], size, settings.seed, groups[free])]
    if len(chosen) or kept_rows:
        return chosen
    if size and len(np.unique(groups[free])) == 1:
        todo = f"give images that do not belong together groups of their own, or {GIVE_TEST}"
        what = "no rows for test: all rows without a given split are one group"
        raise DataError(what, f"column group, {len(free)} rows", todo)
    if size and (reason := _too_large(groups[free], settings.test_share, "split.test_share")):
        todo = f"{reason}, or give images that do not belong together groups of their own, or {GIVE_TEST}"
        raise DataError("no rows for test: every group is too large for it", f"column group, {len(free)} rows", todo)
    where = f"split.test_share = {settings.test_share}; {len(free)} of {len(new)} rows have no given split"
    todo = f"set split.test_share above 0 and leave the split of some rows empty, or {GIVE_TEST}"
    raise DataError("no rows for test", where, todo)


def _no_train(
    split: np.ndarray, given_split: np.ndarray, test_source: str, followed: int, settings: Split
) -> DataError:
    """What took every row from train: the draw, the given split or ``split.test_share``."""
    where, todo = f"split.method = {settings.method}, {len(split)} rows", "give more rows, or lower split.test_share"
    left = int(((split == FREE) | (split == "train")).sum())
    if settings.method in ("pareto", "exponential") and left:
        where = f"split.method = {settings.method}: none of the {left} rows that are left for it has a label"
        todo = "give these rows labels, or set split.method: natural"
    elif test_source == "given":
        counts = {name: int((given_split == name).sum()) for name in ("test", "val")}
        where = f"column split: {counts['test']} of {len(split)} rows are given as test, {counts['val']} as val"
        todo = "give some of them the split 'train', or leave the column empty there"
        if followed:
            where += f"; {followed} others are in their groups (column group), and a group stays together"
            todo = (
                "give all rows of some groups the split 'train', or leave the column empty in all of them, or give"
                " images that do not belong together groups of their own"
            )
    return DataError("no rows for train", where, todo)


def _too_large(groups: np.ndarray, share: float, setting: str) -> str:
    """What to do where no group fits into a ``share`` of the rows; "" where one does, where there is only one, or none
    at all.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    if len(sizes) < 2 or sizes.max() < 2 or not share or sizes.min() <= round(share * len(groups)):
        return ""
    return (
        f"the smallest group has {sizes.min()} of {len(groups)} rows: raise {setting} from {share} to"
        f" {math.ceil(100 * sizes.min() / len(groups)) / 100}"
    )


def _from_train(
    train: np.ndarray, given_split: np.ndarray, labels: csr_array | np.ndarray, groups: np.ndarray, settings: Split
) -> np.ndarray:
    """Positions of training rows to hold out; rows given as train only where the others are too few, or in groups too
    large.
    """
    size = round(settings.validation.share * len(train))
    free = train[~grouped_with(groups, given_split == "train")[train]]  # a group with a row given as train stays whole
    for rows in map(np.sort, [free, train] if len(free) >= size else [train]):
        held_out = rows[stratified_holdout(labels[rows], min(size, len(rows)), settings.seed, groups[rows])]
        if len(held_out):
            return held_out
    return train[:0]


def _from_pool(
    train: np.ndarray, split: np.ndarray, labels: csr_array | np.ndarray, groups: np.ndarray, settings: Split
) -> np.ndarray:
    """Positions of rows that neither train nor test took, at most ``cap`` of the training rows, no group shared with
    either.
    """
    if settings.method == "natural":
        todo = "set split.validation.source to train or none, or split.method to pareto"
        what = "split.validation.source = pool, but split.method natural leaves no rows over"
        raise ConfigError(what, "params.yaml", todo)
    taken = split == "test"
    taken[train] = True
    rows = np.flatnonzero(~grouped_with(groups, taken))
    size = min(len(rows), int(min(settings.validation.share, settings.validation.cap) * len(train)))
    return rows[stratified_holdout(labels[rows], size, settings.seed, groups[rows])]


def _refuse_contradictions(
    frame: pd.DataFrame, given_split: np.ndarray, train: Sequence[int], test: Sequence[int]
) -> None:
    problems = []
    for name, rows in (("train", train), ("test", test)):
        for row in rows:
            if given_split[row] not in (FREE, name):
                what = f"image {frame['image_id'].iloc[row]!r} is listed for {name} but given as {given_split[row]}"
                todo = "correct the list, or the split column of the data"
                problems.append(Problem(what, f"ingest.{name}_list", todo))
    for row in sorted(set(train) & set(test)):
        what = f"image {frame['image_id'].iloc[row]!r} is listed for train and for test"
        problems.append(Problem(what, "ingest.train_list, ingest.test_list", "remove it from one of the lists"))
    if problems:
        raise DataError(problems=problems)
