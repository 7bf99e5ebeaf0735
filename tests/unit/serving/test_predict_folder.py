"""What `capnet predict` takes from a folder, and what it says of the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from capnet.cli import main
from capnet.contracts import read_tensors, write_tensors
from capnet.errors import ContractError, DataError
from capnet.evaluation import tte
from capnet.model.folder import LoadedModel
from capnet.serving.engine import load_served
from capnet.serving.image_source import list_images

Make = Callable[..., dict[str, Path]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    workspace = tmp_path / "pictures"
    (workspace / ".git").mkdir(parents=True)
    Image.new("RGB", (40, 50)).save(workspace / "a.JPG", format="JPEG")
    for name in ("b.heic", "c.HEIC", "d.avif", "README", ".DS_Store", ".git/config", "e.\x1b[31m"):
        (workspace / name).write_bytes(b"x")
    (workspace / "folder.jp2").mkdir()
    return workspace


def _predict(folder: Path, out: Path, outputs: Path) -> Result:
    arguments = ["predict", "--input", str(folder), "--model", str(outputs), "--out", str(out)]
    return CliRunner().invoke(main, [*arguments, "--params", str(out.with_name("none.yaml"))])


@pytest.mark.slow
def test_files_with_other_endings_are_counted_and_dangling_links_are_missing(
    folder: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    outputs, out = make_outputs()["model"].parent, tmp_path / "out.csv"
    (tmp_path / "none.yaml").write_text("{}\n")
    (folder / "gone\x1b[31m.jpg").symlink_to("nowhere.jpg")
    (folder / "gone.heic").symlink_to("nowhere.heic")
    done = _predict(folder, out, outputs)
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == [
        "predict: 6 files passed over: 3 .heic, 1 '.\\x1b[31m', 1 .avif, 1 without an ending; images end in .jpg,"
        " .jpeg, .png, .gif, .bmp, .tif, .tiff, .webp",
        "not read: gone\\x1b[31m.jpg: missing",
    ]
    assert pd.read_csv(out, keep_default_na=False)[["path", "fault"]].to_numpy().tolist() == [
        ["a.JPG", ""],
        ["gone\x1b[31m.jpg", "missing"],
    ]


@pytest.mark.slow
def test_nothing_is_said_where_nothing_is_passed_over(
    folder: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    outputs = make_outputs()["model"].parent
    (tmp_path / "none.yaml").write_text("{}\n")
    for path in folder.iterdir():
        if path.is_file() and path.name not in ("a.JPG", ".DS_Store"):
            path.unlink()
    done = _predict(folder, tmp_path / "out.csv", outputs)
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_folder_without_images_says_what_is_there(folder: Path) -> None:
    (folder / "a.JPG").unlink()
    with pytest.raises(DataError, match=r"there are no images; 5 files passed over: 2 \.heic, "):
        list_images(str(folder))


def test_a_link_in_a_circle_and_one_to_a_folder(folder: Path) -> None:
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "folder.jpg").symlink_to(".git")
    os.mkfifo(folder / "pipe.jpg")
    assert list_images(str(folder)).names == ["a.JPG", "circle.jpg"]


def test_folders_that_are_links_or_may_not_be_listed_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "card").mkdir()
    (folder / "card" / "b.jpg").write_bytes(b"x")
    (folder.parent / "2025-04").mkdir()
    (folder.parent / "2025-04" / "c.jpg").write_bytes(b"x")
    (folder / "april\x1b[31m").symlink_to("../2025-04")
    (folder / ".cache").symlink_to("../2025-04")
    scandir = os.scandir

    def refused(path: str) -> object:  # root may list every folder
        if str(path).endswith(("card", ".git")):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refused)
    source = list_images(str(folder))
    assert source.names == ["a.JPG"]
    assert "1 folder that may not be listed (card)" in source.passed_over
    assert "1 link to a folder ('april\\x1b[31m')" in source.passed_over
    assert source.passed_over.startswith("7 files passed over: ")


def test_a_linked_folder_itself_is_read(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder)
    assert list_images(str(folder.parent / "link")).names == ["a.JPG"]


def test_hidden_images_are_counted_and_not_read(folder: Path) -> None:
    for name in ("._a.JPG", ".Trashes/deleted.jpg", "site 7/._b.jpg", "site 7/b.jpg"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")  # what macOS writes on other disks
    source = list_images(str(folder))
    assert source.names == ["a.JPG", "site 7/b.jpg"]
    assert source.passed_over.startswith("8 files passed over: 3 hidden, 2 .heic, ")


def test_a_folder_that_is_too_deep_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):  # and their path is longer than the system takes
        os.mkdir("aaaa")
        os.chdir("aaaa")
    with pytest.raises(DataError, match="it cannot be listed"):
        list_images(str(tmp_path))
    while not os.path.samefile(".", tmp_path):  # pytest's own removal of old folders would not end it
        os.chdir("..")
        os.rmdir("aaaa")


@pytest.mark.slow
def test_a_model_that_is_replaced_while_it_is_loaded_is_not_taken_for_the_new_one(
    folder: Path, make_outputs: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupted prediction would go on with parts of two models."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    paths = make_outputs()
    thresholds, load = paths["evaluation"] / "thresholds.json", tte.load_model

    def meanwhile(*arguments: Any) -> LoadedModel:
        loaded = load(*arguments)
        tensors, metadata = read_tensors(paths["model"] / "model.safetensors")
        write_tensors(
            paths["model"] / "model.safetensors", {name: 2 * item for name, item in tensors.items()}, metadata
        )
        return loaded

    monkeypatch.setattr(tte, "load_model", meanwhile)
    with pytest.raises(ContractError, match="replaced while they were loaded"):
        load_served(paths["model"], thresholds)
