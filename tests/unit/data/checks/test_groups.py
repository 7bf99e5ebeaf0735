"""Groups of pictures that are alike: against a search from row to row, and what a reader sees of a flood of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from capnet.data.checks.expectations import OF_A_GROUP, OFFENDING, check_table
from capnet.data.checks.groups import LARGEST, linked_groups, some_of_each
from capnet.data.checks.rules import Check, likeness_rules
from capnet.steps.validate import failure


def _table(groups: list[list[str]]) -> pd.DataFrame:
    """Rows of which each is linked to the first of its group, and that one to the second."""
    rows = [(path, group[0] if path != group[0] else group[1]) for group in groups for path in group]
    paths, partners = zip(*rows, strict=True)
    split = ["train" if number % 2 else "test" for number in range(len(rows))]
    frame = pd.DataFrame({"image_id": paths, "path": paths, "split": split, "look_alike": partners})
    return frame.assign(look_alikes=1)


def _check(groups: list[list[str]]) -> Check:
    (check,) = check_table("x", _table(groups), likeness_rules("warning")[:1]).checks
    return check


CROWD = [f"a{number:03}.jpg" for number in range(300)]
PAIRS = [[f"b{number:02}.jpg", f"c{number:02}.jpg"] for number in range(9)]


@pytest.mark.parametrize("seed", range(3))
def test_groups_equal_those_of_a_search_from_row_to_row(seed: int) -> None:
    random = np.random.default_rng(seed)
    paths = np.array([f"p{number:03}" for number in random.permutation(120)], dtype=object)
    partners = paths[random.integers(0, 120, 120)]
    group = {path: {path} for path in paths}
    for one, other in zip(paths, partners, strict=True):
        whole = group[one] | group[other]
        group.update(dict.fromkeys(whole, whole))
    expected = {frozenset(whole) for whole in group.values()}
    groups = linked_groups(paths, partners)
    assert groups.count == len(expected)
    by_number = {frozenset(paths[groups.of_row == number]) for number in range(groups.count)}
    assert by_number == expected
    order = sorted(expected, key=lambda whole: (-len(whole), min(whole)))
    assert groups.largest == [{"path": min(whole), "pictures": len(whole)} for whole in order[:LARGEST]]


def test_one_background_takes_one_line() -> None:
    check = _check([CROWD])
    assert (check.groups, check.largest) == (1, [{"path": "a000.jpg", "pictures": 300}])
    problem = failure(check)
    assert problem.what.endswith("(300 of 300 rows in 1 group)")
    assert problem.where == "a000.jpg and 299 like it"
    assert "column group" in problem.todo
    assert "validate.near_duplicates" in problem.todo
    assert len(check.offending) == OFFENDING


def test_a_crowd_hides_no_pairs() -> None:
    check = _check([CROWD, *PAIRS])
    assert failure(check).where == "a000.jpg and 299 like it; and 9 more groups"
    shown = [row["path"] for row in check.offending]
    assert sum(path in CROWD for path in shown) == OF_A_GROUP
    assert sum(path not in CROWD for path in shown) == OFFENDING - OF_A_GROUP
    assert sum(path in CROWD for path in (row["path"] for row in _check([CROWD, *PAIRS[:2]]).offending)) == 16


def test_pairs_are_named_as_pairs() -> None:
    check = _check(PAIRS)
    assert check.crowds == ""
    problem = failure(check)
    assert problem.what.endswith("(18 of 18 rows in 9 groups)")
    assert "c00.jpg (train): b00.jpg; " in problem.where
    assert problem.where.endswith("and 12 more")


def test_other_checks_have_no_groups_in_the_file() -> None:
    plain = Check("bad", "critical", False, 1, 2)
    assert not {"groups", "largest"} & set(plain.content())
    assert {"groups", "largest"} <= set(_check(PAIRS).content())
    assert plain.size == "1 of 2 rows"


def test_rows_of_each_group_come_before_the_rest_of_the_large_ones() -> None:
    group = np.array([0] * 10 + [1] * 2 + [2] * 10)
    assert some_of_each(group, 3, 8).tolist() == [0, 1, 2, 10, 11, 12, 13, 14]
    assert some_of_each(group, 3, 10).tolist() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert some_of_each(group, 3, 99).tolist() == list(range(22))
