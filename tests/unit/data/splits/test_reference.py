"""Test images stay test images when others are added, and what was trained on never becomes one; by brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from unit.data.splits.test_assign import check, table

from capnet.config import Split
from capnet.data.splits import reference
from capnet.data.splits.assign import Assignment, assign_splits
from capnet.data.splits.reference import NOTHING, Reference, read_split_reference, reference_text
from capnet.errors import ConfigError
from capnet.inline import TEXT


def saved(frame: pd.DataFrame, result: Assignment, before: Reference = NOTHING) -> Reference:
    """What the file says of a split, through its text."""
    rows = [(row, name) for name in ("train", "val", "test") for row in getattr(result, name)]
    table = frame.iloc[[row for row, _ in rows]].assign(split=[name for _, name in rows])
    text = reference_text(table, before)
    return read_split_reference(TEXT + text)


@pytest.mark.parametrize("groups", [0, 90])
@pytest.mark.parametrize("added", [0, 1, 3, 40, 300])
def test_test_images_stay_and_new_ones_fill_up_the_share(groups: int, added: int) -> None:
    everything, labels = table(700, 3, groups=groups)
    rng = np.random.default_rng(added)
    old = np.sort(rng.permutation(700)[: 700 - added])
    before = assign_splits(everything.iloc[old].reset_index(drop=True), labels[old], Split())
    reference = saved(everything.iloc[old].reset_index(drop=True), before)
    assignment = assign_splits(everything, labels, Split(), reference=reference)
    rows = check(everything, assignment)
    test = {everything["image_id"].iloc[row] for row in rows["test"]}
    assert {name for name, split in reference.images.items() if split == "test"} <= test
    assert not {name for name, split in reference.images.items() if split == "train"} & test
    known = set(everything["group"][everything["image_id"].isin(reference.images)].dropna())
    listed, pairs = reference.images, everything[["image_id", "group"]].to_numpy()
    new = [row not in listed and group not in known for row, group in pairs]
    drawn = test & set(everything["image_id"][new])
    lacking = max(0, round(0.2 * 700) - assignment.test_kept)
    assert len(drawn) == min(lacking, sum(new)) or (groups and len(drawn) <= lacking)
    assert assignment.test_kept == len(test) - len(drawn)
    if not added:
        assert (assignment.train, assignment.val, assignment.test) == (before.train, before.val, sorted(before.test))


def test_cameras_that_are_added_one_at_a_time_reach_test() -> None:
    """A camera is one group: larger than a fifth of what is added with it, and yet one that counts."""
    everything, labels = table(400, 4)
    everything["group"] = [f"camera {row // 20}" for row in range(400)]
    known, reference = 200, NOTHING
    while known <= 400:
        part = everything.iloc[:known].reset_index(drop=True)
        assignment = assign_splits(part, labels[:known], Split(), reference=reference)
        reference = saved(part, assignment)
        assert abs(len(assignment.test) - 0.2 * known) < 20
        known += 20
    assert {everything["group"].iloc[row] for row in assignment.test} & {f"camera {number}" for number in range(10, 20)}


def test_without_it_one_more_image_draws_another_test_set() -> None:
    everything, labels = table(200, 1)
    before = assign_splits(everything.iloc[1:].reset_index(drop=True), labels[1:], Split())
    after = assign_splits(everything, labels, Split())
    assert len(set(after.test) & {row + 1 for row in before.test}) < len(before.test) / 2, "what the file is for"


def test_labels_may_change_and_images_may_go() -> None:
    everything, labels = table(300, 2)
    reference = saved(everything, assign_splits(everything, labels, Split()))
    left = everything.iloc[:250]
    assignment = assign_splits(left, ~labels[:250], Split(), reference=reference)
    test = [name for name in left["image_id"] if reference.images[name] == "test"]
    assert [left["image_id"].iloc[row] for row in sorted(assignment.test)] == test


def test_a_new_class_gets_test_images_from_the_new() -> None:
    frame, labels = table(300, 4)
    reference = saved(frame.iloc[:250], assign_splits(frame.iloc[:250], labels[:250], Split()))
    wider = np.hstack([labels, np.zeros((300, 1), dtype=bool)])
    wider[250:, -1] = True
    assignment = assign_splits(frame, wider, Split(), reference=reference)
    assert wider[assignment.test, -1].sum() == 10


@pytest.mark.parametrize("left", [0, 1])
def test_a_group_stays_where_it_was_when_its_images_are_replaced(left: int) -> None:
    """A patient whose earlier images are deleted, all or all but one, and who comes back with new ones."""
    everything, labels = table(400, 6)
    everything["group"] = [f"patient {row // 10}" for row in range(400)]
    before = assign_splits(everything, labels, Split())
    reference = saved(everything, before)
    later = everything.copy()
    replaced = [row for row in range(400) if row % 10 >= left]
    later.loc[replaced, "image_id"] = [f"new {row:03d}" for row in replaced]
    assignment = assign_splits(later, labels, Split(), reference=reference)
    assert sorted(assignment.test) == sorted(before.test)
    assert not assignment.warnings


def test_a_copy_without_a_group_goes_where_the_group_of_the_other_was() -> None:
    """All images of a patient are new, and one of them is there twice, once without its group."""
    everything, labels = table(400, 6)
    everything["group"] = [f"patient {row // 10}" for row in range(400)]
    before = assign_splits(everything, labels, Split())
    later = everything.assign(
        image_id=[f"new {row:03d}" for row in range(400)], sha256=[str(row) for row in range(400)]
    )
    later.loc[5::10, "group"] = None
    later.loc[5::10, "sha256"] = [str(row) for row in range(4, 400, 10)]
    assignment = assign_splits(later, labels, Split(), reference=saved(everything, before))
    assert sorted(assignment.test) == sorted(before.test)


def test_an_image_that_is_known_counts_more_than_the_name_of_its_group() -> None:
    """Bursts that are numbered anew: what was trained on does not become a test image by its number."""
    everything, labels = table(200, 7)
    everything["group"] = [str(row // 5) for row in range(200)]
    before = assign_splits(everything, labels, Split())
    again = everything.assign(group=[str((row // 5 + 7) % 40) for row in range(200)])
    assignment = assign_splits(again, labels, Split(), reference=saved(everything, before))
    assert sorted(assignment.test) == sorted(before.test)


def test_a_file_without_groups_is_read_and_gets_them_when_it_is_saved() -> None:
    old = read_split_reference(f"{TEXT}image_id,split\na,test\nb,train\n")
    assert (old.images, old.groups) == ({"a": "test", "b": "train"}, {})
    table = pd.DataFrame({"image_id": ["b", "c"], "split": ["val", "test"], "group": ["Jane Roe", None]})
    text = reference_text(table, old)
    assert "Jane Roe" not in text, "a group may be a patient"
    new = read_split_reference(TEXT + text)
    assert new.images == {"a": "test", "b": "train", "c": "test"}, "a is gone, and would be known if it came back"
    assert list(new.groups.values()) == ["train"]


def test_renamed_folders_are_named_as_the_cause_of_another_test_set() -> None:
    everything, labels = table(200, 8)
    reference = saved(everything, assign_splits(everything, labels, Split()))
    renamed = everything.assign(image_id=[f"2024/{name}" for name in everything["image_id"]])
    warnings = assign_splits(renamed, labels, Split(), reference=reference).warnings
    assert [warning for warning in warnings if "40 of 40 test images of split.reference are not in the data" in warning]
    assert "image_id" in warnings[0]
    again = saved(renamed, assign_splits(renamed, labels, Split()), reference)
    assert not assign_splits(renamed, labels, Split(), reference=again).warnings, "once it is written anew"


def test_a_renamed_folder_among_others_is_named() -> None:
    everything, labels = table(200, 8)
    reference = saved(everything, assign_splits(everything, labels, Split()))
    ids = everything["image_id"]
    renamed = everything.assign(image_id=[f"2024/{name}" if row < 60 else name for row, name in enumerate(ids)])
    absent = sum(reference.images[name] == "test" for name in ids[:60])
    (warning,) = assign_splits(renamed, labels, Split(), reference=reference).warnings
    assert warning.startswith(f"{absent} of 40 test images of split.reference are not in the data any more, and 60 new")
    assert not assign_splits(everything[60:].reset_index(drop=True), labels[60:], Split(), reference=reference).warnings


def test_an_image_given_as_train_that_takes_its_group_out_of_test_is_named() -> None:
    frame, labels = table(200, 9, groups=50)
    before = assign_splits(frame, labels, Split())
    group = frame["group"] == frame["group"].iloc[before.test[0]]
    frame["given_split"] = np.where(group & ~group.duplicated(), "train", None)
    (warning,) = assign_splits(frame, labels, Split(), reference=saved(frame, before)).warnings
    assert warning.startswith(f"{group.sum()} of {len(before.test)} test images of split.reference leave test")
    (given,) = frame["image_id"][frame["given_split"].notna()]
    assert f"a copy: {given}. Empty" in warning, "its cell is the one to empty"


def test_given_test_rows_are_all_there_is() -> None:
    frame, labels = table(100, 5)
    reference = saved(frame, assign_splits(frame, labels, Split()))
    frame["given_split"] = ["test"] * 10 + [None] * 90
    assignment = assign_splits(frame, labels, Split(), reference=reference)
    assert (assignment.test, assignment.test_kept) == (list(range(10)), 0)
    leaving = sum(reference.images[image] == "test" for image in frame["image_id"][10:])
    (warning,) = assignment.warnings
    assert warning.startswith(f"{leaving} of 20 test images of split.reference leave test: ")
    assert "give them the split 'test', too" in warning


def test_a_reference_whose_test_images_are_all_given_as_test_warns_of_nothing() -> None:
    frame, labels = table(100, 5)
    reference = saved(frame, assign_splits(frame, labels, Split()))
    frame["given_split"] = ["test" if reference.images[image] == "test" else None for image in frame["image_id"]]
    assert not assign_splits(frame, labels, Split(), reference=reference).warnings


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("path,labels\na.jpg,fox\n", "first line is not image_id,split,group"),
        ("", "first line is not image_id,split,group"),
        ("image_id,split\na,test\nb\n", "line 3"),
        ("image_id,split,group\na,test,\nb,test\n", "line 3"),
        ("image_id,split\na,val\n", "no id and train or test"),
        ("image_id,split\na,test\na,train\n", "an image id that is there already"),
        ('image_id,split\n"a,test\n', "no CSV"),
        ("image_id,split\n" + "a" * 200_000 + ",test\n", "no CSV"),
    ],
)
def test_another_table_is_refused(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "split.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        read_split_reference(str(path))
    assert str(path) in str(caught.value)
    assert "capnet split --save-reference" in str(caught.value)


def test_no_file_and_no_setting_know_nothing(tmp_path: Path) -> None:
    assert read_split_reference(str(tmp_path / "none.csv")) == read_split_reference("") == NOTHING


def test_a_file_of_200_000_images_is_read(tmp_path: Path) -> None:
    rows = "".join(f"images/{number:08},train,{number % 99:06x}\n" for number in range(200_000))
    (tmp_path / "split.csv").write_text(f"image_id,split,group\n{rows}")
    assert len(read_split_reference(str(tmp_path / "split.csv")).groups) == 99


def test_a_file_that_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "split.csv"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match="1,099,511,627,776 bytes"):
        read_split_reference(str(path))
    path.write_text("image_id,split\na,train\nb,test\n")
    monkeypatch.setattr(reference, "MOST_IMAGES", 1)
    with pytest.raises(ConfigError, match="more than 1 images"):
        read_split_reference(str(path))
