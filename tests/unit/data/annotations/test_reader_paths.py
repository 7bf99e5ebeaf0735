"""A reader makes no path by itself and opens none: a label file, which may come from anywhere, may name any."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from capnet.config.data import READERS

OPENS = {"_root", "Path", "open", "read_text", "read_bytes"}
LEADS_ON = {"parent", "parents", "joinpath", "with_name", "glob", "rglob", "iterdir"}
# of NumPy, pandas, pyarrow and parsers: they take the name of any file; one that open_plain has opened is called file
OF_LIBRARIES = re.compile(
    r"(read|scan)_\w+|(iter)?parse|load(txt|mat)?|genfromtxt|fromfile|memmap|connect|(Zip|Tar|Parquet|ORC)?File|Dataset"
)
ASKED = re.compile(r"\w+\.path\(")
OWN = "from capnet.data.annotations.plain_files import read_list\nread_list(folder.path(name), 'a list', '')"
AS_TEXT = {"str", "repr", "format", "fspath", "join"}
MESSAGES = {"DataError", "Problem"}
OF_THE_SYSTEM = {"os", "io", "pathlib", "shutil", "subprocess", "importlib"}


def paths_of_its_own(program: str) -> set[str]:
    """Where a reader makes a path by itself or opens one: lines of its text."""
    made, nodes = set(), list(ast.walk(ast.parse(program)))
    imported = {
        item.asname or item.name
        for node in nodes
        if isinstance(node, ast.ImportFrom) and not str(node.module).startswith("capnet")
        for item in node.names
    }
    assigned = [node for node in nodes if isinstance(node, ast.Assign) and ASKED.match(ast.unparse(node.value))]
    asked = "|".join(re.escape(ast.unparse(target)) for node in assigned for target in node.targets)
    # a folder in front of a path: the text of a path that nobody checked
    with_folder = re.compile(rf"[{{(](folder|{asked or 'folder'}|{ASKED.pattern}.*?\))[}})]+(/| \+)")
    above = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    for node in nodes:
        name = ""
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            opened = [ast.unparse(item) for item in node.args[:1]] == ["file"]
            foreign = isinstance(node.func, ast.Attribute) or name in imported
            library = foreign and OF_LIBRARIES.fullmatch(name) and not opened
            name = name if library or name in OPENS | LEADS_ON | {"__import__", "import_module"} else ""
        elif isinstance(node, ast.Attribute) and node.attr in {"_root"} | LEADS_ON:
            name = node.attr
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            name = "/"
        elif isinstance(node, ast.JoinedStr | ast.BinOp) and with_folder.search(ast.unparse(node)):
            name = ast.unparse(node)
        elif isinstance(node, ast.Name) and node.id == "folder" and not is_handed_on(node, above):
            name = f"{ast.unparse(above[id(node)])}: the text of the folder is for messages"
        elif isinstance(node, ast.Import):
            name = next((item.name for item in node.names if item.name.partition(".")[0] in OF_THE_SYSTEM), "")
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in OF_THE_SYSTEM:
            name = "" if {item.name for item in node.names} <= {"Path", "PurePosixPath"} else str(node.module)
        if name:
            made.add(f"line {getattr(node, 'lineno', 0)}: {name}")
    return made


def is_handed_on(folder: ast.Name, above: dict[int, ast.AST]) -> bool:
    """Whether the data folder is asked for something or given to a function, or is in a message as text."""
    parent = above[id(folder)]
    if isinstance(parent, ast.Attribute):
        return True
    if isinstance(parent, ast.keyword):
        parent = above[id(parent)]
    if isinstance(parent, ast.Call) and ast.unparse(parent.func).rpartition(".")[2] not in AS_TEXT:
        return True
    while id(parent) in above:
        last, parent = parent, above[id(parent)]
        if isinstance(parent, ast.Call) and last is not parent.func and ast.unparse(parent.func) in MESSAGES:
            return True
        if isinstance(parent, ast.Attribute) and parent.attr == "startswith":
            return True
    return False


@pytest.mark.parametrize("name", READERS)
def test_a_reader_opens_files_by_the_data_folder_alone(name: str) -> None:
    hint = f"readers/{name}.py: ask folder.path(...) with the whole path, which checks it and its links"
    program = Path(str(import_module(f"capnet.data.annotations.readers.{name}").__file__)).read_text()
    assert "_root" not in program, hint  # in no text either
    assert paths_of_its_own(program) == set(), hint


@pytest.mark.parametrize(
    "line",
    [
        "read_lines(folder._root / name)",
        "read_lines(Path(name))",
        "read_lines(path.parent.joinpath(name))",
        "read_lines(path / name)",
        "read_lines(path.with_name(name))",
        "open(name)",
        "path.open()",
        "pd.read_csv(name)",
        "ElementTree.parse(name)",
        'read_lines(f"{folder}/{name}")',
        "sqlite3.connect(str(folder) + '/' + name)",
        "zipfile.ZipFile(name)",
        "from zipfile import ZipFile\nZipFile(name)",
        "ElementTree.iterparse(name)",
        'opened_by_a_library(f"{folder.path(images)}/{name}")',
        'images = folder.path(where)\nopened_by_a_library(f"{images}/{name}")',
        "images = folder.path(where)\nopened_by_a_library(str(images) + '/' + name)",
        'root = str(folder)\nread_list(root + "/" + name, "a list", "")',
        '"{}/{}".format(folder, name)',
        '"/".join((str(folder), name))',
        'root = f"{folder}"',
        "root = folder",
        "import os",
        "from os import path",
    ],
)
def test_a_reader_that_makes_its_own_paths_is_seen(line: str) -> None:
    assert paths_of_its_own(line)
    for allowed in (
        "from pathlib import Path\nread_lines(folder.path(f'{images}/{name}'))",
        "json.load(file)",
        OWN,
        "raise DataError('no lists', str(folder), ASK)",
        "Problem(what, f'{folder}: {name}', ASK)",
        "published_classes(folder, CLASSES, settings)",
        "for name in folder.names(where) or (): read_lines(folder.path(f'{where}/{name}'))",
    ):
        assert not paths_of_its_own(allowed)
