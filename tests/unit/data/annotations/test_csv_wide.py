"""The labels.csv reader on wide tables, which have one column a class."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.data.annotations.csv_tables import accept, problems_of, wide, write

from capnet.config import Ingest
from capnet.contracts import make_classes
from capnet.data.annotations.readers.csv import read_table
from capnet.errors import DataError


def test_a_table_of_another_tool_is_sent_to_the_lines_that_convert_it(tmp_path: Path) -> None:
    for header, is_sent in (("Image Index,Finding Labels", True), ("path,Finding", False)):
        *_, problem = problems_of(write(tmp_path, f"{header}\na.png,Mass|Edema\n"))
        assert problem.what.startswith("column 'labels' is missing")
        assert ("docs/data-formats.md, Exports of other tools" in problem.todo) == is_sent


def test_one_column_a_class_with_unknowns(tmp_path: Path) -> None:
    table = "path,patient,fox,bird,deer,group\na.jpg,p1,1,0,-1,g\nb.jpg,p2,0.0,,1.0,g\nc.jpg,p3,-1.0,True,false,\n"
    root = wide(tmp_path, table)
    result = accept(root)
    assert result.classes.names == ["fox", "deer", "bird"]
    assert result.rows["labels"].tolist() == [[0], [1], [2]]
    assert result.rows["unknown"].tolist() == [[1], [2], [0]]
    negative = accept(root, Ingest(empty_cell="negative"))
    assert negative.rows["labels"].tolist() == result.rows["labels"].tolist()
    assert negative.rows["unknown"].tolist() == [[1], [], [0]]


def test_the_column_unknown_counts_beside_columns_of_classes(tmp_path: Path) -> None:
    """A label that somebody calls unknown is no negative."""
    header = "path,unknown,fox,deer,bird\n"
    result = accept(wide(tmp_path / "fine", header + "a.jpg,deer|bird,1,0,-1\nb.jpg,,0,1,0\n"))
    assert result.rows["labels"].tolist() == [[0], [1]]
    assert result.rows["unknown"].tolist() == [[1, 2], []]
    (problem,) = problems_of(wide(tmp_path / "both", header + "a.jpg,fox,1,0,0\nb.jpg,,0,1,1\n"))
    assert problem.what == "label 'fox' is both in labels and in unknown"
    (problem,) = problems_of(wide(tmp_path / "strange", header + "a.jpg,wolf,1,0,0\nb.jpg,,0,1,1\n"))
    assert (problem.what, problem.where) == ("label 'wolf' is not in classes.csv", "labels.csv row 2, column unknown")


def test_a_wide_table_reports_strange_cells_and_missing_columns(tmp_path: Path) -> None:
    problems = problems_of(wide(tmp_path / "cells", "path,fox,deer,bird\na.jpg,2,0,0\nb.jpg,0,yes,1\n"))
    assert [(problem.what, problem.where) for problem in problems] == [
        ("'2' in the column of a class", "labels.csv row 2, column fox"),
        ("'yes' in the column of a class", "labels.csv row 3, column deer"),
    ]
    (problem,) = problems_of(wide(tmp_path / "column", "path,fox,deer\na.jpg,1,0\n"))
    assert problem.what.startswith("class 'bird' has no column")
    (problem,) = problems_of(write(tmp_path / "bare", "path,fox,deer\na.jpg,1,0\n"))
    assert "one column a class" in problem.todo  # without classes.csv nobody knows which columns are classes
    (problem,) = problems_of(wide(tmp_path / "twice", "path,fox,deer,bird,fox\na.jpg,1,0,0,1\n"))
    assert problem.what == "column 'fox' appears twice"


def test_a_column_with_the_accents_of_its_class_in_another_unicode_form_is_explained(tmp_path: Path) -> None:
    composed, decomposed = "f\u00e9lin", "fe\u0301lin"
    tables = (f"path,{decomposed}\na.jpg,1\n", f"path,{decomposed},fox\na.jpg,1,0\n")
    for number, (table, others) in enumerate(zip(tables, ("", "fox\n"), strict=True)):
        (problem,) = problems_of(wide(tmp_path / str(number), table, f"name\n{composed}\n{others}"))
        assert problem.what.startswith(f"class {composed!r} has no column")
        assert problem.todo == "write its accents in the Unicode form of classes.csv: copy the name from there"


def test_advice_about_columns_names_what_has_the_classes(tmp_path: Path) -> None:
    """Of images that are labelled later there may be no classes.csv at all."""
    for columns in ("fox", "Fox"):
        table = write(tmp_path, f"path,{columns}\na.jpg,1\n") / "labels.csv"
        with pytest.raises(DataError) as raised:
            read_table(table, make_classes(["fox", "deer"]), Ingest(), listed_in="the annotations")
        (problem,) = raised.value.problems
        assert "the annotations" in problem.todo
        assert "classes.csv" not in problem.todo


def test_a_class_that_is_listed_twice_is_named(tmp_path: Path) -> None:
    root = write(tmp_path, "path,fox,deer\na.jpg,1,1\nb.jpg,0,1\n", "name\nfox\nfox\ndeer\n")
    (problem,) = problems_of(root)
    assert (problem.what, problem.where) == ("class 'fox' appears twice", "classes.csv row 3, first in row 2")


def test_fifty_sites_seventy_percent_blanks_a_wide_table(tmp_path: Path) -> None:
    """The made set of camera traps as a table: blanks stay, unknowns stay unknown, no site is in two splits."""
    import numpy as np

    from capnet.config import Params
    from capnet.contracts import read_classes, read_split
    from capnet.stages import run

    rng = np.random.default_rng(1)
    names = ["fox", "deer", "bird"]
    states = np.where(rng.random((1500, 3)) < 0.4, 1, 0)
    states[rng.random(1500) < 0.7] = 0
    states[rng.random((1500, 3)) < 0.05] = -1
    cells = {1: ["1", "1.0"], 0: ["0"], -1: ["-1", ""]}
    lines = [
        f"{number}.jpg,site {rng.integers(50)},b{number // 4},"
        + ",".join(str(rng.choice(cells[state])) for state in row)
        for number, row in enumerate(states.tolist())
    ]
    root = wide(tmp_path / "data", "path,group,sequence," + ",".join(names) + "\n" + "\n".join(lines) + "\n")
    params = Params(ingest=Ingest(images="listed"))
    run("ingest", params, {"data": root}, {"manifest": tmp_path / "manifest"})
    run("split", params, {"manifest": tmp_path / "manifest"}, {"split": tmp_path / "split"})
    frame = read_split(tmp_path / "split/split.parquet").set_index("path")
    assert len(frame) == 1500
    assert frame.groupby("group")["split"].nunique().max() == 1
    for number, row in enumerate(states.tolist()):
        assert frame.at[f"{number}.jpg", "labels"].tolist() == [c for c in range(3) if row[c] == 1]
        assert frame.at[f"{number}.jpg", "unknown"].tolist() == [c for c in range(3) if row[c] == -1]
    assert frame["sequence"].nunique() == 375
    train = [int(path.removesuffix(".jpg")) for path in frame.index[frame["split"] == "train"]]
    assert (
        read_classes(tmp_path / "split/classes.json").train_counts.tolist() == (states[train] == 1).sum(axis=0).tolist()
    )


def test_a_class_with_the_name_of_another_column_is_refused(tmp_path: Path) -> None:
    for name in ("group", "sequence", "sha256", "unknown"):
        root = wide(tmp_path, f"path,fox,{name}\na.jpg,1,0\n", f"name\nfox\n{name}\n")
        (problem,) = problems_of(root)
        assert f"class '{name}' has the name of a column" in problem.what


def test_a_table_in_which_no_class_is_absent_is_named(tmp_path: Path) -> None:
    table = "path,fox,deer,bird\na.jpg,1,,\nb.jpg,,1,\n"
    (warning,) = accept(wide(tmp_path, table)).warnings
    assert warning.endswith("if it means absent, set ingest.empty_cell: negative")
    assert accept(wide(tmp_path, table), Ingest(empty_cell="negative")).warnings == []
    assert accept(wide(tmp_path, table.replace("b.jpg,,", "b.jpg,0,"))).warnings == []


def test_columns_of_classes_that_the_column_labels_replaces_are_named(tmp_path: Path) -> None:
    table = "path,labels,fox,deer\na.jpg,fox,1,1\n"
    (warning,) = accept(wide(tmp_path, table)).warnings
    assert warning == "columns of classes are not read where there is a column 'labels': fox, deer"
