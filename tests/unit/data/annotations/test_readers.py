"""What holds of every registered reader, and what a new one costs: one file."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest

from capnet.config import Data, Ingest, Section, parse
from capnet.config.data import READERS, IngestBase
from capnet.data.annotations.paths import DataFolder
from capnet.errors import ConfigError, DataError

HEAVY = {"numpy", "pandas", "pyarrow", "torch", "PIL", "scipy", "ijson"}
SECTIONS = [(name, kind) for name, kind in READERS.items() if kind is not None]
# text settings of readers that name no file; every other one must be an InsidePath
NO_PATHS: set[str] = set()
PATHS = [
    (name, field)
    for name, kind in SECTIONS
    for field, info in kind.model_fields.items()
    if info.annotation is str and f"{name}.{field}" not in NO_PATHS
]


def source(name: str) -> str:
    return Path(str(import_module(f"capnet.data.annotations.readers.{name}").__file__)).read_text()


def test_the_format_and_the_sections_are_the_registered_readers() -> None:
    assert set(READERS) >= {"csv", "voc", "coco", "nus_wide", "camera_traps"}
    assert get_args(Data.model_fields["format"].annotation) == tuple(READERS)
    assert Ingest.model_fields.keys() - IngestBase.model_fields.keys() == {name for name, _ in SECTIONS}
    assert not READERS.keys() & IngestBase.model_fields.keys(), "the name of a reader is a setting already"


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
def test_a_reader_opens_files_by_the_data_folder_alone(name: str) -> None:
    assert "_root" not in source(name), "ask folder.path(...), which checks links"


@pytest.mark.parametrize(("name", "kind"), SECTIONS)
def test_every_setting_of_a_reader_has_a_help_text(name: str, kind: type[Section]) -> None:
    assert [field for field, info in kind.model_fields.items() if not info.description] == []


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.csv", "a/../../b", "C:\\x"])
@pytest.mark.parametrize(("name", "field"), PATHS)
def test_a_path_outside_the_data_folder_is_refused_at_start(name: str, field: str, path: str) -> None:
    with pytest.raises(ConfigError, match=f"ingest.{name}.{field}"):
        parse({"ingest": {name: {field: path}}})


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


@pytest.mark.parametrize("first", ["capnet.config", "capnet.data.annotations.readers.voc", "capnet.data.annotations"])
def test_settings_and_readers_may_be_imported_in_any_order(first: str) -> None:
    program = f"import {first}; from capnet.config import Ingest; print(Ingest().voc.train)"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "VOC2012/trainval\n"


READER = '''
"""A line an image: its path, a space and its classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from capnet.section import InsidePath, Section
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.rows import Annotations, RowList, make_rows

if TYPE_CHECKING:
    from capnet.config import Ingest

CLASSES = ("cat", "dog")


class Settings(Section):
    list: InsidePath = Field("list.txt", description="the list of images")


def read(folder: DataFolder, settings: Ingest) -> Annotations:
    path = folder.path(settings.of(Settings).list)
    classes, problems = published_classes(folder, CLASSES, settings)
    rows = RowList(source=f"{path.name} line {{}}")
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        image, *labels = line.split()
        rows.add(image, [CLASSES.index(label) for label in labels], number)
    return make_rows(rows, classes, problems)
'''


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stranger")


@pytest.fixture(scope="module")
def stranger(workplace: Path) -> Any:
    """A copy of the package with one more file; runs ``capnet`` of it."""
    package = Path(str(import_module("capnet").__file__)).parent
    shutil.copytree(package, workplace / "capnet", ignore=shutil.ignore_patterns("__pycache__"))
    (workplace / "data").mkdir()
    (workplace / "data/list.txt").write_text("a.jpg cat\nb.jpg dog cat\n")

    def capnet(reader: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        (workplace / "capnet/data/annotations/readers/lines.py").write_text(reader)
        command = [sys.executable, "-m", "capnet.cli", *arguments]
        environment = os.environ | {"PYTHONPATH": str(workplace), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True, check=False)

    (workplace / "params.yaml").write_text("data: {format: lines}\ningest: {images: listed}\n")
    return capnet


def test_one_file_adds_a_format_with_its_section(stranger: Any, workplace: Path) -> None:
    assert "list: list.txt" in stranger(READER, "preset", "own").stdout
    result = stranger(READER, "ingest")
    assert result.returncode == 0, result.stderr
    import pandas as pd

    rows = pd.read_parquet(workplace / "outputs/manifest/manifest.parquet")
    assert rows["path"].tolist() == ["a.jpg", "b.jpg"]
    assert [list(labels) for labels in rows["labels"]] == [[0], [0, 1]]


def test_a_path_setting_of_the_new_reader_that_leads_out_is_refused_at_start(stranger: Any) -> None:
    result = stranger(READER, "ingest", "--set", "ingest.lines.list=../secret.txt")
    assert result.returncode == ConfigError.exit_code
    assert "ingest.lines.list" in result.stderr
    # declared as plain text it is refused all the same, where it is opened
    careless = READER.replace("list: InsidePath", "list: str")
    result = stranger(careless, "ingest", "--set", "ingest.lines.list=../secret.txt")
    assert result.returncode == DataError.exit_code
    assert "leaves the data folder" in result.stderr


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("make_rows(rows, classes, problems)", "__import__('pandas').DataFrame()"), "return what make_rows gives"),
        (("CLASSES.index(label)", "7"), "there are 2 classes"),
        (("rows.add(image,", "rows.add('/etc/' + image,"), "path '/etc/a.jpg' is absolute"),
        (("rows.add(image,", "rows.add(image, image_id='x', labels="), "appears twice"),
        (("number)", "number, group=number)"), "column group must hold text"),
    ],
)
def test_malformed_rows_of_the_new_reader_are_refused(stranger: Any, change: tuple[str, str], words: str) -> None:
    reader = READER.replace(*change)
    if "labels=" in change[1]:
        reader = reader.replace("for label in labels], number)", "for label in labels], where=number)")
    assert reader != READER
    result = stranger(reader, "ingest")
    assert result.returncode == DataError.exit_code, result.stderr
    assert words in result.stderr
