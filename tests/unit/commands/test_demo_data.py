"""`capnet demo-data` as a user runs it: the whole set once, a second time under a data.dvc of something else, and
interrupted.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from PIL import Image
from unit.commands.data_dvc import EXACT, OTHER

from capnet.commands import demo_data
from capnet.config import Ingest
from capnet.contracts import label_matrix, tree_hash
from capnet.contracts.publish import all_or_nothing
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers.csv import read
from capnet.data.demo import image_set as scene_set
from capnet.data.splits.long_tail import long_tailed_draw, reference_curve
from capnet.errors import CapnetError, DataError

pytestmark = pytest.mark.slow


def capnet(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "capnet.cli", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def dvc(folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(folder / "home"),
    }
    result = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@dataclass(frozen=True)
class Drawn:
    folder: Path  # the working directory, with data/ in it
    result: subprocess.CompletedProcess[str]

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def rows(self) -> list[dict[str, str]]:
        with open(self.data / "labels.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Drawn]:
    folder = tmp_path_factory.mktemp("demo")
    shutil.copy(repository / "data.dvc", folder)
    yield Drawn(folder, capnet(folder, "demo-data"))
    shutil.rmtree(folder)


# ---------------------------------------------------------------- the set


def test_the_set_in_git_is_drawn_and_one_line_says_so(drawn: Drawn) -> None:
    assert drawn.result.returncode == 0, drawn.result.stderr
    (line,) = drawn.result.stdout.splitlines()
    assert line.startswith("demo-data: 3100 images of 44 classes in 12 kinds of scenes in data")
    if EXACT:
        assert line.endswith("byte for byte as data.dvc describes them")
        lines = drawn.result.stderr.splitlines()
        assert [line for line in lines if not line.startswith("drawing: ")] == [], "a slow machine shows progress"
    else:
        assert "warning: the bytes are not those of data.dvc" in drawn.result.stderr
    assert sorted(path.name for path in drawn.data.iterdir()) == [
        "ATTRIBUTION.md",
        "classes.csv",
        "images",
        "labels.csv",
    ]
    assert sorted(path.name for path in drawn.folder.iterdir()) == ["data", "data.dvc"]


def test_dvc_add_leaves_data_dvc_as_it_is_in_git(drawn: Drawn, tmp_path: Path, repository: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc(tmp_path, "init", "-q")
    shutil.copytree(drawn.data, tmp_path / "data")
    dvc(tmp_path, "add", "-q", "data")
    written = (tmp_path / "data.dvc").read_text()
    assert yaml.safe_load(written)["outs"][0]["md5"] == tree_hash(drawn.data)
    if EXACT:
        assert written == (repository / "data.dvc").read_text()


def test_the_reader_of_the_product_finds_no_mistake(drawn: Drawn) -> None:
    annotations = read(DataFolder(drawn.data), Ingest())
    assert annotations.problems == []
    assert len(annotations.rows) == 3100
    assert len(annotations.classes) == 44
    assert [item.name for item in annotations.classes.items if item.critical] == ["person", "bicycle"]


def test_sides_and_slices(drawn: Drawn) -> None:
    counts = Counter((row["split"], row["slice"]) for row in drawn.rows())
    assert counts == {
        ("train", ""): 2100,
        ("val", ""): 300,
        ("test", "known artwork"): 350,
        ("test", "unseen artwork"): 350,
    }


def test_every_row_has_its_picture_and_no_two_pictures_are_alike(drawn: Drawn) -> None:
    paths = [row["path"] for row in drawn.rows()]
    assert sorted(paths) == sorted(
        path.relative_to(drawn.data).as_posix() for path in (drawn.data / "images").iterdir()
    )
    assert len({(drawn.data / path).read_bytes() for path in paths}) == 3100
    for path in paths[::31]:
        with Image.open(drawn.data / path) as picture:
            assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", (224, 224))


def test_every_class_can_be_measured_on_each_side_and_slice(drawn: Drawn) -> None:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for row in drawn.rows():
        labels = row["labels"].split("|")
        assert 2 <= len(labels) <= 6
        counts.setdefault((row["split"], row["slice"]), Counter()).update(labels)
    assert all(len(names) == 44 for names in counts.values())
    assert min(counts["train", ""].values()) >= 50
    assert min(counts["val", ""].values()) >= 5
    assert min(min(names.values()) for split, names in counts.items() if split[0] == "test") >= 6


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_long_tailed_draw_fills_all_three_buckets(drawn: Drawn, seed: int) -> None:
    annotations = read(DataFolder(drawn.data), Ingest())
    labels = label_matrix(annotations.rows["labels"], 44)[(annotations.rows["given_split"] == "train").to_numpy()]
    rows = long_tailed_draw(labels, reference_curve(labels.shape[1], 800, 4, 6.0), seed).rows
    counts = labels[rows].sum(axis=0)
    assert 430 <= len(rows) <= 620
    assert 3 <= np.sum(counts >= 100) <= 9
    assert np.sum((counts >= 20) & (counts < 100)) >= 12
    assert np.sum(counts < 20) >= 12
    assert counts.min() >= 4


def test_the_attribution_names_maker_licence_and_changes(drawn: Drawn) -> None:
    text = (drawn.data / "ATTRIBUTION.md").read_text()
    for words in (
        "OpenMoji",
        "CC BY-SA 4.0",
        "https://creativecommons.org/licenses/by-sa/4.0/",
        "What was changed",
        "17.0.0",
    ):
        assert words in text


# ---------------------------------------------------------------- refusals


def test_a_data_dvc_of_other_pictures_is_refused_and_the_bytes_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_set, "total", lambda: 150)  # the first 150 of the 3100, in more than one chunk
    monkeypatch.chdir(tmp_path)
    first = CliRunner().invoke(demo_data.command, ["--out", "first"], catch_exceptions=False)
    assert (first.exit_code, len(list(Path("first/images").iterdir()))) == (0, 150)
    Path("data.dvc").write_text(OTHER)
    Path("data").mkdir()
    second = CliRunner().invoke(demo_data.command)
    if EXACT:
        assert isinstance(second.exception, DataError)
        assert second.exception.exit_code == 3
        assert tree_hash(Path("first")) in str(second.exception), "a second run drew other bytes"
        assert "0123456789abcdef0123456789abcdef.dir" in str(second.exception)
        assert "dvc pull data.dvc" in str(second.exception)
        assert list(Path("data").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.dvc", "first"]


@pytest.mark.parametrize("name", ["my.jpg", ".hidden"])
def test_nothing_is_drawn_over_what_is_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("mine")
    result = capnet(tmp_path, "demo-data", "--out", "data")
    assert result.returncode == 3
    assert "not empty" in result.stderr
    assert "--out" in result.stderr
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_a_file_of_that_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    result = capnet(tmp_path, "demo-data")
    assert (result.returncode, (tmp_path / "data").read_text()) == (3, "mine")
    assert "there is a file of this name" in result.stderr


def test_a_folder_that_cannot_be_written_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = capnet(tmp_path, "demo-data", "--out", "file/data")
    assert result.returncode == 1
    assert "the demo pictures cannot be written: Not a directory" in result.stderr
    assert str(tmp_path / "file" / "data") in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_seed_is_a_usage_error(tmp_path: Path) -> None:
    assert capnet(tmp_path, "demo-data", "--seed", "-1").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_no_half_set(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "capnet.cli", "demo-data"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell's background job hands down an ignored SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data.*/images/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)  # as a terminal does: all processes of the run
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert not (tmp_path / "data").exists()
    assert any(tmp_path.iterdir()) == (number == signal.SIGKILL)  # nobody can tidy up after SIGKILL; the next run does
    with all_or_nothing(tmp_path / "data", "demo pictures") as folder:
        assert list(folder.iterdir()) == []
        (folder / "labels.csv").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_of_two_runs_at_once_the_first_to_end_is_whole(tmp_path: Path) -> None:
    """A run that began removed the files of one that was at work, which then called what was there complete."""
    code = (
        "import sys; from pathlib import Path; from capnet.contracts.publish import all_or_nothing\n"
        "with all_or_nothing(Path('data'), 'demo pictures') as folder:\n"
        "    (folder / 'first.jpg').write_text('first'); print('begun', flush=True); sys.stdin.read()\n"
    )

    def second(first: subprocess.Popen[bytes]) -> None:
        with all_or_nothing(tmp_path / "data", "demo pictures") as folder:
            (folder / "half.jpg").write_text("half")
            assert first.communicate(timeout=60) == (b"", b"")

    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdin=pipe, stdout=pipe, stderr=pipe) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"begun\n"
        with pytest.raises(CapnetError, match="the demo pictures cannot be written: Directory not empty"):
            second(first)
    assert first.returncode == 0
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["data", "data/first.jpg"]


def test_an_error_while_drawing_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    def fail() -> None:
        with all_or_nothing(tmp_path / "data", "demo pictures") as folder:
            (folder / "half.jpg").write_text("half")
            raise RuntimeError("no more memory")

    (tmp_path / "data").mkdir()
    with pytest.raises(RuntimeError, match="no more memory"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["data"]
