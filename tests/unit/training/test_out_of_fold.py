"""What is held out together, so that no fold is scored by a model that has seen one of its images elsewhere."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch

from capnet.contracts import make_classes, sampling_units, unit_codes
from capnet.data.annotations.rows import RowList, make_rows
from capnet.training.out_of_fold import folds_of


def test_groups_sequences_and_copies_of_a_file_are_one_unit():
    rows = pd.DataFrame(
        {
            "group": ["a", "", None, "", "a", "", "", ""],
            "sequence": [None, "s", "s", "t", "t", None, None, ""],
            "sha256": ["1", "2", "3", "4", "5", "3", None, None],
        }
    )
    units = sampling_units(rows)
    assert [len(set(units[part])) for part in ([0, 3, 4], [1, 2, 5])] == [1, 1]
    assert len(set(units)) == 4  # of the last two nothing is known that they share
    assert len(set(sampling_units(rows[["group"]]))) == 7
    assert sampling_units(rows[["group"]].iloc[:0]).tolist() == []


def test_an_image_without_a_group_stays_with_its_sequence_as_ingest_writes_both():
    """A table whose group column is filled in here and there: ingest makes the sequence the group of the others."""
    rows = RowList("sequence")
    for number in range(40):
        group = f"camera {number // 4}" if number % 4 == 1 else None
        rows.add(f"{number}.jpg", [0], number, group=group, sequence=f"burst {number // 4}" if number < 36 else None)
    units = sampling_units(make_rows(rows, make_classes(["fox"]), []).rows)
    assert units.tolist() == [*np.repeat(range(9), 4), 9, 10, 11, 12]


def test_folds_tear_no_copies_and_no_sequence_apart():
    """As a user met it: every image twice, in a table that names bursts and no groups."""
    labels = np.repeat(np.random.default_rng(0).random((40, 3)) < 0.3, 2, axis=0)
    once = [f"file {number // 2}" for number in range(80)]
    settings = SimpleNamespace(train=SimpleNamespace(folds=5), runtime=SimpleNamespace(seed=0))
    trainer = SimpleNamespace(labels=lambda _: SimpleNamespace(targets=torch.from_numpy(labels)), params=settings)
    for column in ("sha256", "sequence"):
        folds = folds_of(trainer, pd.DataFrame({"group": [None] * 80, column: once}))
        assert folds is not None
        assert len(set(folds)) == 5
        np.testing.assert_array_equal(folds[::2], folds[1::2])


def test_a_file_that_all_cameras_write_does_not_make_them_one_unit():
    """A frame that is black, or a placeholder: its cameras would be one fold, scored by a model of the few others."""
    labels = np.random.default_rng(0).random((160, 3)) < 0.3
    rows = pd.DataFrame({"group": [f"camera {n // 8}" for n in range(160)], "sha256": [f"{n}" for n in range(160)]})
    rows.loc[:127:8, "sha256"] = "black"
    settings = SimpleNamespace(train=SimpleNamespace(folds=5), runtime=SimpleNamespace(seed=0))
    folds = folds_of(
        SimpleNamespace(labels=lambda _: SimpleNamespace(targets=torch.from_numpy(labels)), params=settings), rows
    )
    assert folds is not None
    assert np.bincount(folds).tolist() == [32] * 5
    np.testing.assert_array_equal(folds, np.repeat(folds[::8], 8))


def test_rows_without_a_group_are_groups_of_their_own():
    codes = unit_codes(pd.Series(["b", None, "a", "b", None, ""], dtype=object))
    assert codes[0] == codes[3]
    assert len(set(codes.tolist())) == 5
