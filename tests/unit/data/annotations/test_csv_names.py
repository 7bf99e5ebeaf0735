"""The labels.csv reader on labels that name no class: other separators, empty cells, names that look alike."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from unit.data.annotations.csv_tables import accept, problems_of, write

from capnet.config import Ingest, parse


def test_a_label_that_says_that_nothing_is_there_is_no_class_to_add(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog\nb.jpg,No Finding\n", "name\ndog\n"))
    assert problem.what == "label 'No Finding' is not in classes.csv"
    assert problem.todo == "leave the cell empty where no class is there, or add it to classes.csv if it is one"


def test_a_label_in_another_unicode_form_is_no_other_class(tmp_path: Path) -> None:
    table = "path,labels\na.jpg,cha\u0302t\nb.jpg,hat\n"
    (problem,) = problems_of(write(tmp_path, table, "name\nhat\nch\u00e2t\n"))
    assert problem.todo == "write its accents in the Unicode form of classes.csv: copy the name from there"


LISTS = [
    "['dog', 'cat']",
    "['dog']",
    "[]",
    '[""dog""]',
    '{""choices"": [""dog"", ""cat""]}',  # CSV of Label Studio
    "{dog,cat}",  # PostgreSQL
    "{'dog'}",
    "('dog',)",
    "('dog', 'cat')",
    "[dog, cat]",
    '[{""label"": ""dog""}]',
]


@pytest.mark.parametrize("cell", LISTS)
@pytest.mark.parametrize("classes", [None, "name\ndog\ncat\n"])
def test_a_list_as_programs_write_it_is_no_label(tmp_path: Path, cell: str, classes: str | None) -> None:
    (problem,) = problems_of(write(tmp_path, f'path,labels\na.jpg,"{cell}"\nb.jpg,dog|cat\n', classes))
    assert "is a list as programs write it" in problem.what or "is not in classes.csv" in problem.what
    assert problem.todo == "write the names alone, with '|' between them"


def test_the_wrong_separator_is_named(tmp_path: Path) -> None:
    (problem,) = problems_of(write(tmp_path, "path,labels\na.jpg,dog;cat\n", "name\ndog\ncat\n"))
    assert "ingest.separator to ';'" in problem.todo


@pytest.mark.parametrize(
    ("cell", "mark"), [("dog;cat", ";"), ("dog; cat", ";"), ('"dog, cat"', ","), ("dog / cat", "/")]
)
def test_labels_that_another_separator_divides_into_labels_are_no_class_of_their_own(
    tmp_path: Path, cell: str, mark: str
) -> None:
    table = f"path,labels\na.jpg,{cell}\nb.jpg,dog\nc.jpg,cat\n"
    (problem,) = problems_of(write(tmp_path, table))
    assert f"set ingest.separator to {mark!r}" in problem.todo
    assert accept(write(tmp_path, table), Ingest(separator=mark)).classes.names == ["cat", "dog"]
    name = cell.strip('"')
    assert accept(write(tmp_path, table, f"name\ndog\ncat\n{cell}\n")).classes.names == ["dog", "cat", name], (
        "listed, so meant"
    )


def test_a_mark_in_a_name_alone_is_no_separator(tmp_path: Path) -> None:
    table = 'path,labels\na.jpg,"dog, small|cat"\nb.jpg,dog|cow/ox\n'
    result = accept(write(tmp_path, table))
    assert result.classes.names == ["cat", "cow/ox", "dog", "dog, small"]
    (warning,) = result.warnings
    assert warning.startswith(
        "2 of 4 classes look like several labels: 'dog, small', 'cow/ox'; ingest.separator is '|'"
    )
    assert accept(write(tmp_path, table, 'name\ncat\ncow/ox\ndog\n"dog, small"\n')).warnings == [], "listed, so meant"


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["fox;owl", "deer"], ""),
        (["fox;owl", "fox"], ";"),
        (["fox; owl", "fox; deer"], ";"),
        (["fox;", "fox"], ";"),
        (["fox;owl"], ";"),
        (["fox, owl"], ","),
        (["fox/owl"], ""),
        (["salt, pepper", "fox"], ""),
        (["fox, small", "fox"], ""),
        (["fox, small", "fox, large", "owl, small", "owl, large"], ""),
        (["deer, fox", "fox, owl", "deer, owl"], ","),
        (["deer/fox", "fox/owl", "deer/owl/x"], "/"),
    ],
)
def test_a_name_with_a_mark_is_refused_where_it_is_near_certain_and_else_a_warning(
    tmp_path: Path, cells: list[str], mark: str
) -> None:
    table = "path,labels\n" + "".join(f'{number}.jpg,"{cell}"\n' for number, cell in enumerate(cells))
    if mark:
        (problem,) = problems_of(write(tmp_path, table))
        assert f"with {mark!r} between them" in problem.what
        assert f"set ingest.separator to {mark!r}" in problem.todo
        assert accept(write(tmp_path, table), Ingest(separator=mark)).warnings == []
    else:
        (warning,) = accept(write(tmp_path, table)).warnings
        assert "several labels" in warning


def test_a_set_whose_names_have_no_mark_is_not_warned_of(tmp_path: Path) -> None:
    assert accept(write(tmp_path, "path,labels\na.jpg,fox|grey owl\n")).warnings == []


def test_what_programs_write_for_an_empty_cell_is_no_class_and_no_group(tmp_path: Path) -> None:
    table = "path,labels,group\na.jpg,nan,site 1\nb.jpg,fox,NaN\nc.jpg,fox|None,<NA>\nd.jpg,NA,\n"
    assert [problem.what for problem in problems_of(write(tmp_path, table))] == [
        "group = 'NaN' is how programs write an empty cell",
        "group = '<NA>' is how programs write an empty cell",
        "label 'NA' is how programs write an empty cell",
        "label 'None' is how programs write an empty cell",
        "label 'nan' is how programs write an empty cell",
    ]
    accept(write(tmp_path, "path,labels\na.jpg,none\n", "name\nnone\n"))
    table = 'path,labels\na.jpg,"fo\tx"\nb.jpg,deer\nc.jpg,"de\ter"\n'
    (problem,) = problems_of(write(tmp_path / "b", table))
    assert problem.what == "labels 'de\\ter', 'fo\\tx' have control characters"


def test_labels_on_lines_of_their_own_are_read_with_the_separator_that_is_named(tmp_path: Path) -> None:
    """A spreadsheet's cell with line breaks: the advice was a blank as the separator, which changed nothing."""
    table = 'path,labels\na.jpg,"grey fox\ndeer\nowl"\nb.jpg,"grey fox\nowl"\nc.jpg,"deer\ngrey fox"\n'
    separation, _ = problems_of(write(tmp_path, table))
    assert separation.what == """label 'deer\\ngrey fox' and 2 more seem to be labels with "\\n" between them"""
    assert separation.todo.startswith('set ingest.separator to "\\n", or')
    setting = separation.todo.partition("separator to ")[2].partition(",")[0]
    params = parse(yaml.safe_load(f"ingest:\n  separator: {setting}"))
    rows = accept(write(tmp_path, table), params.ingest)
    assert rows.classes.names == ["deer", "grey fox", "owl"]


def test_blanks_of_any_kind_between_labels_are_seen(tmp_path: Path) -> None:
    cells = ("fox{}deer", "deer{}fox", "owl{}fox", "fox{}owl", "owl{}deer", "deer{}owl")
    for blank in " \u00a0\u3000":
        table = "path,labels\n" + "".join(f"{n}.jpg,{cell.format(blank)}\n" for n, cell in enumerate(cells))
        (problem,) = problems_of(write(tmp_path, table))
        assert "and 5 more seem to be labels with blanks between them" in problem.what


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["fo\u200bx", "fox"], "labels 'fox' and 'fo\\u200bx' look alike"),
        (["red\u00a0fox", "red fox"], "labels 'red fox' and 'red\\xa0fox' look alike"),
        (["Cafe\u0301", "Caf\u00e9"], "labels 'Cafe\\u0301' and 'Caf\\xe9' look alike"),
        (["fox\u202egpj"], "label 'fox\\u202egpj' has a control character"),
    ],
)
def test_names_that_a_person_cannot_tell_apart_are_named(tmp_path: Path, names: list[str], what: str) -> None:
    rows = "".join(f"{n}.jpg,{name}\n" for n, name in enumerate(names))
    (problem,) = problems_of(write(tmp_path, "path,labels\n" + rows))
    assert problem.what.startswith(what)


def warnings_of(root: Path, rows: dict[str, int]) -> str:
    lines = [f"{label}-{number}.jpg,{label}" for label, times in rows.items() for number in range(times)]
    return "\n".join(accept(write(root, "\n".join(["path,labels", *lines]) + "\n")).warnings)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({"cat": 30, "catt": 1}, "'catt' (on 1 image) like 'cat' (on 30)"),
        ({"red fox": 20, "red foxx": 2, "owl": 3}, "'red foxx' (on 2 images) like 'red fox' (on 20)"),
        ({"red fox": 20, "red foxx": 3}, ""),  # of three images it may be a class
        ({"cat": 9, "catt": 1}, ""),
        ({"cat": 30, "owl": 1}, ""),
        ({"European badger": 30, "Europaen badger": 1}, "'Europaen badger' (on 1 image)"),
        ({"black-backed jackal": 30, "black-backed jackdaw": 1}, ""),
        ({"grade 1": 30, "grade 11": 1}, ""),
    ],
)
def test_a_rare_label_that_is_nearly_a_frequent_one_is_named(tmp_path: Path, rows: dict[str, int], words: str) -> None:
    warning = warnings_of(tmp_path, rows)
    assert words in warning
    assert bool(warning) == bool(words)


def table_of(rows: dict[str, int]) -> str:
    lines = [f"{label}-{number}.jpg,{label}" for label, times in rows.items() for number in range(times)]
    return "\n".join(["path,labels", *lines]) + "\n"


def test_labels_with_a_space_in_the_place_of_the_separator_are_named(tmp_path: Path) -> None:
    animals = ["cat", "dog", "owl", "fox"]
    pairs = {f"{one} {other}": 1 for one in animals for other in animals if one < other}
    table = table_of(dict.fromkeys(animals, 2) | pairs)
    (problem,) = problems_of(write(tmp_path, table))
    assert problem.what == "label 'cat dog' and 5 more seem to be labels with blanks between them"
    assert "ingest.separator: ' '" in problem.todo
    assert accept(write(tmp_path, table), Ingest(separator=" ")).classes.names == sorted(animals)
    accept(write(tmp_path, table, "name\n" + "\n".join([*animals, *pairs]) + "\n"))  # listed, so meant
    few = dict(list(pairs.items())[:3])
    assert not warnings_of(tmp_path, dict.fromkeys(animals, 2) | few)


def test_blanks_are_not_proposed_beside_the_separator_that_is_there(tmp_path: Path) -> None:
    names = ["drugs / alcohol", "hate symbols", "spam", "weapon"]
    cells = [*names, *(f"{one}; {other}" for one in names for other in names if one != other)]
    (problem,) = problems_of(write(tmp_path, table_of(dict.fromkeys(cells, 1))))
    assert "set ingest.separator to ';'" in problem.todo


PLANET = (
    "haze primary|agriculture clear primary water|clear primary|clear agriculture primary|cloudy|road clear|"
    "clear habitation primary road|water clear agriculture|clear primary water|habitation road water haze"
)
SPECIES = (
    "American Black Bear|Asian Black Bear|Brown Bear|Red Fox|Gray Fox|Arctic Fox|Fox Squirrel|Eastern Gray Squirrel|"
    "Eastern Fox Squirrel|American Red Squirrel|Western Gray Squirrel|Red Deer|Gray Wolf|Red Wolf|Brown Rat|"
    "Mountain Lion|Mountain Goat|American Marten|Spotted Skunk|Eastern Spotted Skunk|Western Spotted Skunk"
)


@pytest.mark.parametrize(
    ("names", "count"), [(PLANET, 9), ("16 0|7 1 2 0|5", 2), (SPECIES, 0), ("fire truck|truck|fire engine", 0)]
)
def test_names_of_words_are_labels_only_where_there_are_fewer_words_than_names(
    tmp_path: Path, names: str, count: int
) -> None:
    """Planet's and the protein atlas' labels have blanks between them; names of species share words, too."""
    root = write(tmp_path, table_of(dict.fromkeys(names.split("|"), 1)))
    if count:
        (problem,) = problems_of(root)
        assert f" and {count - 1} more seem to be labels with blanks" in problem.what
    else:
        accept(root)  # at most with a warning


def test_blanks_between_listed_classes_are_named(tmp_path: Path) -> None:
    for cell in ("dog cat", "1 0"):
        (problem,) = problems_of(write(tmp_path, f"path,labels\na.jpg,{cell}\n", "name\ndog\ncat\n"))
        assert "set ingest.separator to ' '" in problem.todo


def test_the_separator_in_a_list_of_a_parquet_file_is_not_proposed_as_the_separator(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.jpg", "b.jpg", "c.jpg"], "labels": [["dog|cat"], ["dog"], ["cat"]]})
    pq.write_table(table, tmp_path / "labels.parquet")
    (problem,) = problems_of(tmp_path, Ingest(labels="labels.parquet"))
    assert problem.todo == "write each label of a list by itself"
