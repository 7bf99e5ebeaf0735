"""What holds of every registered reader, and what a new one costs: one file."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import pytest
from pydantic import BaseModel, ValidationError

from capnet.config import Data, Ingest, Section, parse
from capnet.config.data import READERS, IngestBase
from capnet.data.annotations.paths import DataFolder
from capnet.errors import ConfigError, DataError
from capnet.section import InsidePath, Int, NoFile, Share

HEAVY = {"numpy", "pandas", "pyarrow", "torch", "PIL", "scipy", "ijson"}
SECTIONS = [(name, kind) for name, kind in READERS.items() if kind is not None]


def may_name_a_file(kind: type[Section], field: str) -> bool:
    """Whether a setting holds text or paths, by its type or because it takes a file's name; no Word does."""
    if NoFile.__name__ in repr(kind.model_fields[field]):
        return False
    if re.search("str|Path", str(kind.model_fields[field].annotation)):
        return True
    for value in ("a/list.txt", ["a/list.txt"]):
        with suppress(ValidationError):
            kind.model_validate({field: value})
            return True
    return False


PATHS = [(name, field) for name, kind in SECTIONS for field in kind.model_fields if may_name_a_file(kind, field)]


def source(name: str) -> str:
    return Path(str(import_module(f"capnet.data.annotations.readers.{name}").__file__)).read_text()


def test_the_format_and_the_sections_are_the_registered_readers() -> None:
    assert set(READERS) >= {"csv", "voc", "coco", "nus_wide", "camera_traps"}
    assert get_args(Data.model_fields["format"].annotation) == tuple(READERS)
    assert Ingest.model_fields.keys() - IngestBase.model_fields.keys() == {name for name, _ in SECTIONS}
    assert not READERS.keys() & IngestBase.model_fields.keys(), "the name of a reader is a setting already"


def test_the_document_has_a_row_for_every_format(repository: Path) -> None:
    rows = (repository / "docs/data-formats.md").read_text().splitlines()
    missing = [name for name in READERS if not any(row.startswith(f"| `{name}` |") for row in rows)]
    assert missing == [], "write a row into the first table of docs/data-formats.md"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_has_its_function_and_imports_nothing_heavy(name: str) -> None:
    module = import_module(f"capnet.data.annotations.readers.{name}")
    assert callable(module.read), f"readers/{name}.py needs read(folder, settings)"
    tree = ast.parse(source(name))
    at_import = {
        (alias.name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not at_import & HEAVY, "import inside functions: the settings import every reader"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_has_a_test_of_its_own(name: str) -> None:
    """No other one sees that it leaves images out or numbers classes in another order."""
    path = Path(__file__).with_name(f"test_{name}.py")
    assert path.is_file(), f"compare its rows and classes with labels counted by hand, in {path.name}"


@pytest.mark.parametrize(("name", "kind"), SECTIONS)
def test_every_setting_of_a_reader_has_a_help_text(name: str, kind: type[Section]) -> None:
    assert [field for field, info in kind.model_fields.items() if not info.description] == []


def has_a_section(annotation: Any) -> bool:
    """Whether values of this type are sections or hold some."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(has_a_section, get_args(annotation)))


@pytest.mark.parametrize(("name", "kind"), SECTIONS)
def test_the_settings_of_a_reader_are_flat(name: str, kind: type[Section]) -> None:
    """A path in a section inside of them would be tried by no test."""
    nested = [field for field, info in kind.model_fields.items() if has_a_section(info.annotation)]
    assert nested == [], f"write {', '.join(nested)} of readers/{name}.py as settings of their own"


def test_sections_inside_of_settings_are_seen() -> None:
    class Inner(Section):
        file: str = "a"

    for kind in (Inner, Inner | None, tuple[Inner, ...], dict[str, Inner]):
        assert has_a_section(kind), kind
    assert not has_a_section(tuple[InsidePath, ...])


def refusal(settings: dict[str, Any]) -> str:
    """The message with which settings are refused; "" where they are taken."""
    try:
        parse(settings)
    except ConfigError as error:
        return str(error)
    return ""


def test_every_type_that_can_name_a_file_is_tried() -> None:
    class Settings(Section):
        text: str = "a"
        inside: InsidePath = "a"
        anything: Any = None
        raw: bytes = b""
        switch: bool = True
        size: Int = 1
        share: Share = 0.5
        choice: Literal["a", "b"] = "a"

    assert [field for field in Settings.model_fields if not may_name_a_file(Settings, field)] == [
        "switch",
        "size",
        "share",
        "choice",
    ]


@pytest.mark.parametrize("kind", [Path, PurePosixPath | None, tuple[Path, ...], dict[str, Path]])
def test_a_section_with_a_setting_of_type_path_cannot_be_defined(kind: Any) -> None:
    """Such a reader once read any file of the machine, and every test passed."""
    with pytest.raises(TypeError, match="setting file is a Path: make it an InsidePath"):
        type("Settings", (Section,), {"__annotations__": {"file": kind}, "file": None, "__module__": "reader"})


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.csv", "a/../../b", "C:\\x"])
@pytest.mark.parametrize(("name", "field"), PATHS)
def test_a_path_outside_the_data_folder_is_refused_at_start(name: str, field: str, path: str) -> None:
    hint = f"make {field} of readers/{name}.py an InsidePath, or a Word if it names no file"
    for value in (path, [path]):
        assert f"ingest.{name}.{field}" in refusal({"ingest": {name: {field: value}}}), hint


@pytest.mark.parametrize("name", READERS)
def test_a_reader_says_what_is_missing_in_an_empty_folder(name: str, tmp_path: Path) -> None:
    module = import_module(f"capnet.data.annotations.readers.{name}")
    with pytest.raises(DataError) as caught:
        module.read(DataFolder(tmp_path), Ingest())
    assert all(problem.what and problem.where and problem.todo for problem in caught.value.problems)


def test_settings_stay_light() -> None:
    program = "import sys, capnet.config; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "pydantic" in result.stdout.split()
    assert not set(result.stdout.split()) & HEAVY


@pytest.mark.slow
@pytest.mark.parametrize("first", ["capnet.config", "capnet.data.annotations.readers.voc", "capnet.data.annotations"])
def test_settings_and_readers_may_be_imported_in_any_order(first: str) -> None:
    program = f"import {first}; from capnet.config import Ingest; print(Ingest().voc.train)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "VOC2012/trainval\n"


CONTRIBUTING = (Path(__file__).resolve().parents[4] / "CONTRIBUTING.md").read_text()
# the example of the recipe
READER = CONTRIBUTING.partition("## Add a reader")[2].partition("```python\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="module")
def stranger(workspace: Path) -> Any:
    """A copy of the package with one more file; runs ``capnet`` of it."""
    package = Path(str(import_module("capnet").__file__)).parent
    shutil.copytree(package, workspace / "capnet")  # with its bytecode, which lines.py, written often, never gets
    (workspace / "data").mkdir()
    (workspace / "data/list.txt").write_text("a.jpg\tcat\nb.jpg\tdog cat\n")

    def capnet(reader: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (workspace / "capnet/data/annotations/readers/lines.py").write_text(reader)
        command = [sys.executable, "-m", "capnet.cli", *arguments]
        environment = os.environ | {"PYTHONPATH": str(workspace), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, check=False)

    (workspace / "params.yaml").write_text("data: {format: lines}\ningest: {images: listed}\n")
    return capnet


@pytest.mark.slow
def test_one_file_adds_a_format_with_its_section(stranger: Any, workspace: Path) -> None:
    assert "file: list.txt" in stranger(READER, "preset", "own").stdout
    result = stranger(READER, "ingest")
    assert result.returncode == 0, result.stderr
    import pandas as pd

    rows = pd.read_parquet(workspace / "outputs/manifest/manifest.parquet")
    assert rows["path"].tolist() == ["a.jpg", "b.jpg"]
    assert [list(labels) for labels in rows["labels"]] == [[0], [0, 1]]


def test_a_path_setting_of_the_new_reader_that_leads_out_is_refused_at_start(stranger: Any) -> None:
    result = stranger(READER, "ingest", "--set", "ingest.lines.file=../secret.txt")
    assert result.returncode == ConfigError.exit_code
    assert "ingest.lines.file" in result.stderr
    # declared as plain text it is refused all the same, where it is opened
    careless = READER.replace("file: InsidePath", "file: str")
    result = stranger(careless, "ingest", "--set", "ingest.lines.file=../secret.txt")
    assert result.returncode == DataError.exit_code
    assert "leaves the data folder" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("make_rows(rows, classes, problems)", "__import__('pandas').DataFrame()"), "return what make_rows gives"),
        (("CODES[label]", "7"), "there are 2 classes"),
        (("rows.add(image,", "rows.add('/etc/' + image,"), "path '/etc/a.jpg' is absolute"),
        (("rows.add(image, codes, number)", "rows.add(image, codes, number, image_id='x')"), "appears twice"),
        (("codes, number)", "codes, number, group=number)"), "column group must hold text"),
    ],
)
def test_malformed_rows_of_the_new_reader_are_refused(stranger: Any, change: tuple[str, str], words: str) -> None:
    reader = READER.replace(*change)
    assert reader != READER
    result = stranger(reader, "ingest")
    assert result.returncode == DataError.exit_code, result.stderr
    assert words in result.stderr


@pytest.mark.slow
def test_the_recipe_names_a_mistake_of_the_user_and_what_is_missing(stranger: Any, workspace: Path) -> None:
    (workspace / "data/list.txt").write_text("a.jpg\tcat\nb.jpg\tdog cow\n")
    result = stranger(READER, "ingest")
    (workspace / "data/list.txt").unlink()
    missing = stranger(READER, "ingest")
    (workspace / "data/list.txt").write_text("a.jpg\tcat\nb.jpg\tdog cat\n")
    assert result.returncode == missing.returncode == DataError.exit_code
    assert "no class 'cow'" in result.stderr
    assert "list.txt line 2" in result.stderr
    assert "list.txt" in missing.stderr
    assert "Traceback" not in result.stderr + missing.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"), [(b"", "the list of images is empty"), (b"a.jpg\tcaf\xe9\n", "cannot read the list")]
)
def test_a_list_that_is_empty_or_no_utf_8_is_refused(
    stranger: Any, workspace: Path, content: bytes, words: str
) -> None:
    (workspace / "data/list.txt").write_bytes(content)
    result = stranger(READER, "ingest")
    (workspace / "data/list.txt").write_text("a.jpg\tcat\nb.jpg\tdog cat\n")
    assert result.returncode == DataError.exit_code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_default_that_leads_out_is_refused_as_well(stranger: Any) -> None:
    result = stranger(READER.replace('"list.txt"', '"../list.txt"'), "ingest")
    assert result.returncode != 0
    assert "leaves the data folder" in result.stderr
