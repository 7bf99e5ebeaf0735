"""Sides by brute force: given sides stay, groups stay together, validation never comes from test."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest

from capnet.config import Pareto, Split, Validation
from capnet.contracts import sampling_units, unit_codes
from capnet.data.splits.assign import Assignment, assign_splits
from capnet.errors import ConfigError, DataError


def table(
    n_rows: int, seed: int, *, groups: int = 0, given_splits: tuple[str, ...] = (), given_share: float = 0.0
) -> tuple[pd.DataFrame, np.ndarray]:
    """A pool with long-tailed labels, 30 % blanks; ``given`` sides are handed to whole groups."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n_rows, 9)) < 0.5 / np.arange(1, 10)
    labels[rng.random(n_rows) < 0.3] = False
    names = [f"g{n}" if groups and rng.random() < 0.8 else None for n in rng.integers(0, max(groups, 1), n_rows)]
    of_group = {
        name: rng.choice(given_splits) if given_splits and rng.random() < given_share else None
        for name in sorted({name for name in names if name})
    }
    assignment = [
        of_group[name] if name else (rng.choice(given_splits) if given_splits and rng.random() < given_share else None)
        for name in names
    ]
    for row in range(n_rows):  # some rows of a given group come without a side
        if names[row] and rng.random() < 0.3:
            assignment[row] = None
    ids = [f"p{n:05d}" for n in range(n_rows)]
    return pd.DataFrame(
        {"image_id": ids, "group": pd.Series(names, dtype=object), "given_split": pd.Series(assignment, dtype=object)}
    ), labels


def check(frame: pd.DataFrame, assignment: Assignment) -> dict[str, set[int]]:
    """What must hold for every split."""
    rows = {"train": set(assignment.train), "val": set(assignment.val), "test": set(assignment.test)}
    assert sum(len(split) for split in rows.values()) == len(assignment.train) + len(assignment.val) + len(
        assignment.test
    )
    for first, second in itertools.combinations(rows.values(), 2):
        assert not first & second
    split_of = {row: name for name, split in rows.items() for row in split}
    groups: dict[str, set[str]] = {}
    for row, (group, given_splits) in enumerate(zip(frame["group"], frame["given_split"], strict=True)):
        if isinstance(group, str) and row in split_of:
            groups.setdefault(group, set()).add(split_of[row])
        if given_splits in ("val", "test"):
            assert split_of[row] == given_splits
        if given_splits == "train":
            assert split_of.get(row) != "test"
    assert all(len(on) == 1 for on in groups.values())
    return rows


CASES = [
    (method, source, groups, given_splits)
    for method in ("natural", "pareto")
    for source in ("train", "pool", "none")
    for groups in (0, 60)
    for given_splits in ((), ("train",), ("train", "test"), ("val", "test"), ("train", "val", "test"))
    if not (method == "natural" and source == "pool")
]


@pytest.mark.parametrize(("method", "source", "groups", "given_splits"), CASES)
def test_every_combination_keeps_the_promises(
    method: str, source: str, groups: int, given_splits: tuple[str, ...]
) -> None:
    for seed, share in itertools.product(range(3), (0.3, 0.6)):
        frame, labels = table(600, seed, groups=groups, given_splits=given_splits, given_share=share)
        settings = Split(
            method=method,
            pareto=Pareto(max=80, min=2),
            validation=Validation(source=source, share=0.25, cap=0.2),
            seed=seed,
        )
        assignment = assign_splits(frame, labels, settings)
        rows = check(frame, assignment)
        assert assign_splits(frame, labels, settings) == assignment
        given_rows = {name: set(np.flatnonzero((frame["given_split"] == name).to_numpy())) for name in ("val", "test")}
        if method == "natural":
            assert sum(map(len, rows.values())) == len(frame)
        if given_rows["test"]:
            assert assignment.test_source == "given"
            followers = rows["test"] - given_rows["test"]
            assert all(
                frame["group"].iloc[row] in set(frame["group"].iloc[sorted(given_rows["test"])]) for row in followers
            )
        else:
            assert assignment.test_source == "share"
        if given_rows["val"]:
            assert assignment.validation_source == "given"
        elif source == "pool":
            assert len(rows["val"]) <= int(0.2 * len(rows["train"]))
            assert len(rows["val"]) > 0
        elif source == "train":
            pool = len(rows["train"]) + len(rows["val"])
            assert 0.1 * pool < len(rows["val"]) <= 0.25 * pool + 1
        else:
            assert assignment.validation_source == "none"
            assert not rows["val"]


def test_the_pareto_list_is_drawn_without_the_test_rows_and_keeps_its_order() -> None:
    frame, labels = table(800, 5)
    settings = Split(method="pareto", pareto=Pareto(max=60, min=2), validation=Validation(source="none"))
    assignment = assign_splits(frame, labels, settings)
    assert len(assignment.test) == round(0.2 * 800)
    pool = np.setdiff1d(np.arange(800), assignment.test)
    assert assignment.draw is not None
    assert assignment.train == pool[assignment.draw.rows].tolist()
    with_val = assign_splits(frame, labels, settings.model_copy(update={"validation": Validation(source="train")}))
    kept = set(with_val.train)
    assert with_val.train == [row for row in assignment.train if row in kept]
    assert set(with_val.val) == set(assignment.train) - kept


def test_rows_given_as_train_are_held_out_only_where_others_do_not_suffice() -> None:
    frame, labels = table(400, 1)
    frame["given_split"] = ["test"] * 100 + ["train"] * 200 + [None] * 100
    assignment = assign_splits(frame, labels, Split(validation=Validation(share=0.2)))
    assert assignment.held_out_of_given == 0
    assert set(assignment.val) <= set(range(300, 400))
    frame["given_split"] = ["test"] * 100 + ["train"] * 300
    assignment = assign_splits(frame, labels, Split(validation=Validation(share=0.2)))
    assert assignment.held_out_of_given == len(assignment.val) == 60


def test_published_lists_keep_their_order_and_given_rows_stay() -> None:
    frame, labels = table(50, 2)
    frame["given_split"] = ["val"] * 5 + ["test"] + ["train"] * 4 + [None] * 40
    ids = frame["image_id"].tolist()
    train, test = [ids[row] for row in (30, 12, 44, 7)], [ids[row] for row in (20, 11)]
    assignment = assign_splits(frame, labels, Split(method="published"), (train, test))
    assert assignment.train == [30, 12, 44, 7]
    assert assignment.test == [20, 11, 5]
    assert assignment.val == [0, 1, 2, 3, 4]
    assert (assignment.test_source, assignment.validation_source) == ("published", "given")
    with pytest.raises(DataError) as caught:
        assign_splits(frame, labels, Split(method="published"), ([ids[5], ids[30], ids[0]], [ids[30], ids[8]]))
    assert [problem.what for problem in caught.value.problems] == [
        "image 'p00005' is listed for train but given as test",
        "image 'p00000' is listed for train but given as val",
        "image 'p00008' is listed for test but given as train",
        "image 'p00030' is listed for train and for test",
    ]


@pytest.mark.parametrize("source", ["train", "pool"])
def test_published_with_groups_shares_none_between_sides(source: str) -> None:
    for seed in range(4):
        frame, labels = table(400, seed, groups=80)
        codes = unit_codes(frame["group"])
        chosen = np.isin(codes, np.unique(codes)[::3])
        train = frame["image_id"][chosen].sample(frac=0.7, random_state=seed).tolist()
        assignment = assign_splits(
            frame, labels, Split(method="published", validation=Validation(source=source)), (train, [])
        )
        check(frame, assignment)
        assert assignment.test_source == "share"
        assert assignment.validation_source == source
        assert set(assignment.train) <= set(np.flatnonzero(chosen))


def test_impossible_settings_say_what_to_do() -> None:
    frame, labels = table(100, 0)
    with pytest.raises(ConfigError, match="leaves no rows over"):
        assign_splits(frame, labels, Split(validation=Validation(source="pool")))
    with pytest.raises(DataError, match="no rows for test"):
        assign_splits(frame, labels, Split(test_share=0.0))
    with pytest.raises(DataError, match="all rows without a given split are one group"):
        assign_splits(frame.assign(group="one"), labels, Split())
    with pytest.raises(DataError, match="no rows for test"):
        assign_splits(frame.assign(given_split="train"), labels, Split())


def test_no_rows_for_train_names_what_took_them() -> None:
    frame, labels = table(100, 0)

    def refused(frame: pd.DataFrame, labels: np.ndarray, **settings: Any) -> str:
        with pytest.raises(DataError, match="no rows for train") as caught:
            assign_splits(frame, labels, Split(**settings))
        return str(caught.value)

    given_splits = refused(frame.assign(given_split="test"), labels)
    assert "column split: 100 of 100 rows are given as test, 0 as val" in given_splits
    assert "the split 'train'" in given_splits
    assert "test_share" not in given_splits
    by_group = frame.assign(group=[f"g{row % 10}" for row in range(100)])
    by_group["given_split"] = ["test"] * 10 + [None] * 90
    pulled = refused(by_group, labels)
    assert "column split: 10 of 100 rows are given as test, 0 as val; 90 others are in their groups" in pulled
    assert "group" in pulled.split("to do:")[1]
    assert "test_share" not in pulled
    by_group["group"] = [f"g{row % 10}" if row < 90 else None for row in range(100)]
    assert len(assign_splits(by_group, labels, Split(validation=Validation(source="none"))).train) == 10
    shared = refused(frame, labels, test_share=1.0)
    assert "lower split.test_share" in shared
    held_out = refused(frame[:10], labels[:10], test_share=0.9, validation=Validation(share=0.9))
    assert "split.validation.share = 0.9 holds out every training row: 1 of 10 rows" in held_out
    assert "lower split.validation.share" in held_out
    for method in ("pareto", "exponential"):
        drawn = refused(frame, np.zeros_like(labels), method=method)
        assert "none of the 80 rows that are left for it has a label" in drawn
        assert "split.method: natural" in drawn
        assert "test_share" not in drawn


@pytest.mark.parametrize(("sites", "share", "raised"), [(2, 0.2, 0.5), (3, 0.2, 0.34), (4, 0.2, 0.25)])
def test_groups_that_are_all_too_large_are_named_with_a_share_that_works(
    sites: int, share: float, raised: float
) -> None:
    frame, labels = table(60, 0)
    frame["group"] = [f"site {row % sites}" for row in range(60)]
    with pytest.raises(
        DataError,
        match=f"the smallest group has {60 // sites} of 60 rows: raise split.test_share from {share} to {raised},",
    ):
        assign_splits(frame, labels, Split(test_share=share))
    assignment = assign_splits(frame, labels, Split(test_share=raised))
    assert len(assignment.test) == 60 // sites
    check(frame, assignment)


def test_no_validation_because_of_large_groups_says_which_share_works() -> None:
    frame, labels = table(60, 0)
    frame["group"] = [f"site {row % 5}" for row in range(60)]
    assignment = assign_splits(frame, labels, Split())
    assert not assignment.val
    assert (
        "the smallest group has 12 of 48 rows: raise split.validation.share from 0.2 to 0.25" in assignment.warnings[0]
    )
    assignment = assign_splits(frame, labels, Split(validation=Validation(share=0.25)))
    assert len(assignment.val) == 12
    assert assignment.warnings == []
    alone = frame.iloc[:3].assign(group=None)
    assert "group" not in assign_splits(alone, labels[:3], Split()).warnings[0]


def test_copies_of_a_file_stay_together() -> None:
    for seed in range(5):
        frame, labels = table(300, seed, given_splits=("test",), given_share=0.1)
        rng = np.random.default_rng(seed)
        frame["sha256"] = [f"{n:064x}" for n in rng.integers(0, 200, 300)]
        assignment = assign_splits(frame, labels, Split(seed=seed))
        rows = check(frame, assignment)
        split_of = {row: name for name, chosen in rows.items() for row in chosen}
        copies = frame.assign(split=[split_of.get(row) for row in range(300)]).groupby("sha256")["split"]
        assert (copies.nunique() == 1).all()
        assert assignment.followed == sum(
            split_of[row] == "test" and frame["given_split"][row] is None for row in range(300)
        )


def test_copies_do_not_join_the_groups_that_they_are_in() -> None:
    """As the blank frame that all cameras write; a copy without a group goes where the first copy is."""
    frame, labels = table(120, 0)
    frame["group"] = [f"site {row % 12}" for row in range(120)]
    frame["sha256"] = ["b" * 64 if row < 12 else f"{row:064x}" for row in range(120)]
    alone = assign_splits(frame.drop(columns="sha256"), labels, Split())
    assert assign_splits(frame, labels, Split()) == alone
    frame.loc[[3, 4, 40], "group"] = None
    frame.loc[40, "sha256"] = frame["sha256"][41]
    codes = sampling_units(frame)
    assert codes[3] == codes[4] == codes[0]
    assert codes[40] == codes[41]
    assert len(set(codes.tolist())) == 12
    frame["sha256"], frame["group"] = None, ["", *[None] * 119]
    assert len(set(sampling_units(frame).tolist())) == 120, "files that were not read"


def test_rows_given_as_train_are_held_out_where_the_others_are_one_large_group() -> None:
    """The group of 30 does not fit into the 20 validation rows."""
    groups, given_splits = ["site"] * 30 + [None] * 80, [None] * 30 + ["train"] * 70 + ["test"] * 10
    frame = pd.DataFrame(
        {
            "image_id": [f"p{n:03d}" for n in range(110)],
            "group": pd.Series(groups, dtype=object),
            "given_split": pd.Series(given_splits, dtype=object),
        }
    )
    labels = np.random.default_rng(0).random((110, 4)) < 0.4
    assignment = assign_splits(frame, labels, Split(method="natural"))
    rows = check(frame, assignment)
    assert len(rows["val"]) == assignment.held_out_of_given == 20
    assert not assignment.warnings
