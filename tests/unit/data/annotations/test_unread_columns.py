"""Columns of a label table that nothing reads, although they may say something that counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.data.annotations.csv_tables import accept, wide, write


@pytest.mark.parametrize(
    ("name", "cells", "named"),
    [
        ("subset", ["train", "test", "train"], True),
        ("phase", ["Training", "Validation", ""], True),
        ("partition", ["TRAIN", "valid", "test"], True),
        ("vehicle", ["train", "train", ""], False),
        ("vehicle", ["train", "car", "test"], False),
        ("subset", ["test", "val", "test"], False),
        ("comment", ["", "", ""], False),
    ],
)
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_column_that_may_be_the_split_is_named(
    tmp_path: Path, name: str, cells: list[str], named: bool, is_wide: bool
) -> None:
    labels, values = ("fox,deer,bird", ["1,0,0", "0,1,0", "0,0,1"]) if is_wide else ("labels", ["fox", "deer", "bird"])
    rows = [f"{number}.jpg,{value},{cell}" for number, (value, cell) in enumerate(zip(values, cells, strict=True))]
    table = "\n".join([f"path,{labels},{name}", *rows]) + "\n"
    warnings = accept(wide(tmp_path, table) if is_wide else write(tmp_path, table)).warnings
    assert any(f"column {name!r} is not read. If it says which split" in warning for warning in warnings) == named
    assert len(warnings) == named


def test_with_a_column_split_no_other_is_named(tmp_path: Path) -> None:
    table = "path,labels,split,before\na.jpg,fox,train,test\nb.jpg,fox,test,train\n"
    assert accept(write(tmp_path, table)).warnings == []
