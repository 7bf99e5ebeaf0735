"""The ingest stage reads nothing outside the data folder, and waits for no pipe."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from capnet.config import parse
from capnet.data.checks.files import open_image_file
from capnet.errors import ConfigError
from tests.unit.steps import ingested
from tests.unit.steps.ingested import ingest, picture, refused

data = ingested.data


def test_links_may_lead_inside_the_data_folder_and_not_out_of_it(data: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    picture(outside / "folder/x.png")
    (data / "near.jpg").symlink_to("images/a.jpg")
    (data / "photos").symlink_to("images")
    (data / "file.png").symlink_to(outside / "folder/x.png")
    (data / "away").symlink_to(outside / "folder")
    (data / "gone.png").symlink_to(outside / "nothing.png")
    (data / "loop").symlink_to(data / "loop")
    rows = "near.jpg,cat\nphotos/c.jpg,cat\nfile.png,cat\naway/x.png,cat\ngone.png,cat\nloop/x.png,cat\n"
    (data / "labels.csv").write_text("path,labels\n" + rows)
    result = refused(data, tmp_path / "manifest")
    links = [text for text in result if "leaves the data folder" in text]
    assert [text.splitlines()[1] for text in links] == [
        "  where: labels.csv row 4",
        "  where: labels.csv row 5",
        "  where: labels.csv row 6",
    ]
    assert all("data.links: anywhere" in text for text in links)
    (data / "labels.csv").write_text("path,labels\n" + rows.split("gone.png")[0])
    assert ingest(data, tmp_path / "manifest", links="anywhere")["pictures"] == 4.0


@pytest.mark.parametrize("images", ["decode", "header"])
def test_a_file_behind_a_link_that_leaves_the_data_folder_is_not_opened(
    data: Path, tmp_path: Path, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret").write_text("this is no picture")
    (data / "images/b.png").unlink()
    (data / "images/b.png").symlink_to(outside / "secret")
    (data / "images/c.jpg").write_text("nor is this")
    opened = []
    monkeypatch.setattr(
        "capnet.data.images.image_files.read_bytes", lambda path: opened.append(path.name) or path.read_bytes()
    )
    link, broken = refused(data, tmp_path / "manifest", images=images)
    assert "'images/b.png' is reached through a link that leaves the data folder" in link
    assert "'images/c.jpg': not a picture" in broken
    assert "labels.csv row 2" in broken
    assert sorted(opened) == ["a.jpg", "c.jpg"]


def test_hostile_paths_are_all_refused_with_their_rows(data: Path, tmp_path: Path) -> None:
    hostile = [
        "/etc/passwd",
        "../../etc/passwd",
        "images/../../x.jpg",
        "C:\\boot.ini",
        "file:///etc/passwd",
        "images\\a.jpg",
    ]
    (data / "labels.csv").write_text(
        "path,labels\n" + "".join(f"{path},cat\n" for path in hostile) + "images/a.jpg,cat\n"
    )
    result = refused(data, tmp_path / "manifest")
    assert len(result) == len(hostile)
    assert all(f"labels.csv row {number}" in text for number, text in enumerate(result, start=2))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("labels", "/etc/passwd"),
        ("classes", "../classes.csv"),
        ("train_list", "/etc/hostname"),
        ("test_list", "../secret.txt"),
    ],
)
def test_settings_that_name_a_file_outside_are_refused_at_start(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"absolute|leaves the data folder") as caught:
        parse({"ingest": {setting: value}})
    assert f"ingest.{setting}" in str(caught.value)


@pytest.mark.parametrize("name", ["labels.csv", "classes.csv", "lists/train.txt"])
def test_a_label_file_behind_a_link_that_leaves_the_data_folder_is_not_opened(
    data: Path, tmp_path: Path, name: str
) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (data / "classes.csv").write_text("name\ncat\ndog\n")
    (data / "lists").mkdir()
    (data / "lists/train.txt").write_text("images/c\n")
    (data / name).rename(outside / "file")
    (data / name).symlink_to(outside / "file")
    (text,) = refused(data, tmp_path / "manifest", train_list="lists/train.txt")
    assert f"{name!r} is reached through a link that leaves the data folder" in text
    ingest(data, tmp_path / "manifest", links="anywhere", train_list="lists/train.txt")


def test_a_pipe_among_the_pictures_is_left_out_and_not_waited_for(data: Path, tmp_path: Path) -> None:
    os.mkfifo(data / "images/pipe.jpg")
    with open(data / "labels.csv", "a") as file:
        file.write("images/pipe.jpg,cat,\n")

    def waited(*_: object) -> None:
        raise TimeoutError("the pipe was opened")

    before = signal.signal(signal.SIGALRM, waited)
    signal.alarm(20)
    try:
        assert ingest(data, tmp_path / "manifest", bad_images=1.0)["left_out"] == 1.0
        assert "pipe" in open_image_file("images/pipe.jpg", str(data), full=False, dhashes=True).fault
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
