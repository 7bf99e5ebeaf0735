"""Extraction of hostile and of broken archives, and the list of published benchmarks."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from capnet.cli import main
from capnet.data.sources import downloads
from capnet.data.sources.archives import extract
from capnet.data.sources.downloads import BENCHMARKS, fetch_benchmark
from capnet.errors import ConfigError, DataError


def tar_of(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for member in (tarfile.TarInfo("good/a.txt"), *members):
            if member.isreg():
                member.size = 4
            archive.addfile(member, io.BytesIO(b"data") if member.isreg() else None)
    return path


def zip_of(path: Path, *members: tuple[str | zipfile.ZipInfo, str]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good/a.txt", "data")
        for name, content in members:
            archive.writestr(name, content)
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    return member


def zip_link(name: str) -> zipfile.ZipInfo:
    item = zipfile.ZipInfo(name)
    item.create_system, item.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return item


HOSTILE_TAR = {
    "climbs": tarfile.TarInfo("../outside.txt"),
    "climbs later": tarfile.TarInfo("good/../../outside.txt"),
    "absolute": tarfile.TarInfo("/outside.txt"),
    "symlink out": link("good/link", "../../outside"),
    "symlink inside": link("good/link", "a.txt"),
    "hard link": link("good/link", "good/a.txt", tarfile.LNKTYPE),
    "device": special("good/device", tarfile.CHRTYPE),
    "pipe": special("good/pipe", tarfile.FIFOTYPE),
    "windows": tarfile.TarInfo("C:outside.txt"),
    "backslash": tarfile.TarInfo("..\\outside.txt"),
}
HOSTILE_ZIP: dict[str, tuple[str | zipfile.ZipInfo, str]] = {
    "climbs": ("../outside.txt", "x"),
    "climbs later": ("good/../../outside.txt", "x"),
    "absolute": ("/outside.txt", "x"),
    "symlink": (zip_link("good/link"), "../../outside"),
    "windows": ("C:outside.txt", "x"),
}


def assert_nothing_written(tmp_path: Path) -> None:
    assert sorted(path.name for path in tmp_path.iterdir()) in (["x.tar"], ["x.zip"])


@pytest.mark.parametrize("kind", HOSTILE_TAR)
def test_a_hostile_tar_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    archive = tar_of(tmp_path / "x.tar", HOSTILE_TAR[kind])
    with pytest.raises(DataError, match="is refused") as caught:
        extract(archive, tmp_path / "out")
    assert repr(HOSTILE_TAR[kind].name) in str(caught.value)
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize("kind", HOSTILE_ZIP)
def test_a_hostile_zip_is_refused_before_anything_is_written(tmp_path: Path, kind: str) -> None:
    archive = zip_of(tmp_path / "x.zip", HOSTILE_ZIP[kind])
    with pytest.raises(DataError, match="is refused"):
        extract(archive, tmp_path / "out")
    assert_nothing_written(tmp_path)


def test_every_hostile_member_is_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "x.tar", tarfile.TarInfo("../1"), tarfile.TarInfo("/2"), link("3", "/etc"))
    with pytest.raises(DataError) as caught:
        extract(archive, tmp_path / "out")
    assert [problem.what.split("'")[1] for problem in caught.value.problems] == ["../1", "/2", "3"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_with_folders_and_dots_is_extracted(tmp_path: Path, mode: str) -> None:
    with tarfile.open(tmp_path / "x.tar", mode) as archive:  # type of compression is read from the bytes
        folder = tarfile.TarInfo("./")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        item = tarfile.TarInfo("./deep/er/ä b.txt")
        item.size, item.mode = 2, 0o000
        archive.addfile(item, io.BytesIO(b"ok"))
    assert extract(tmp_path / "x.tar", tmp_path / "out") == 1
    assert (tmp_path / "out" / "deep" / "er" / "ä b.txt").read_bytes() == b"ok"


def test_a_second_archive_fills_the_same_folder_and_replaces_files(tmp_path: Path) -> None:
    extract(zip_of(tmp_path / "x.zip", ("good/b.txt", "b")), tmp_path / "out")
    extract(zip_of(tmp_path / "y.zip", ("good/b.txt", "new"), ("empty/", "")), tmp_path / "out")
    assert {path.name: path.read_text() for path in (tmp_path / "out" / "good").iterdir()} == {
        "a.txt": "data",
        "b.txt": "new",
    }


def test_a_link_that_lies_in_the_folder_already_is_not_followed_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    os.symlink(tmp_path / "elsewhere", tmp_path / "out" / "good")
    with pytest.raises(DataError, match="would leave"):
        extract(zip_of(tmp_path / "x.zip"), tmp_path / "out")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["x.zip", "x.tar"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"this is no archive" * 100)
    with pytest.raises(DataError, match="cannot be extracted") as caught:
        extract(tmp_path / name, tmp_path / "out")
    assert name in str(caught.value)


def test_a_zip_with_a_wrong_checksum_leaves_no_half_file(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip")
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"data", b"dutu", 1))
    with pytest.raises(DataError, match="CRC"):
        extract(archive, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.txt"))


def test_a_tar_that_ends_early_is_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "x.tar", tarfile.TarInfo("good/b.txt"))
    archive.write_bytes(archive.read_bytes()[:1538])
    with pytest.raises(DataError, match="cannot be extracted"):
        extract(archive, tmp_path / "out")


def test_the_sums_of_voc_are_torchvision_s() -> None:
    """torchvision keeps the published md5 sums of VOC: an independent source."""
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    theirs = {DATASET_YEAR_DICT[key]["md5"]: DATASET_YEAR_DICT[key]["url"] for key in ("2007", "2007-test", "2012")}
    ours = {
        archive.md5: f"{item.base_url}/{archive.path}"
        for name, item in BENCHMARKS.items()
        if name != "coco2017"
        for archive in item.archives
    }
    assert ours == theirs


@pytest.mark.parametrize("address", ["ftp://example.org", "http://[::1", "https://", "http://example.org:port"])
def test_what_is_no_address_of_the_web_is_refused_before_anything_is_tried(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "download", lambda *_: pytest.fail("it was tried"))
    with pytest.raises(ConfigError, match=r"(?s)--base-url .*begins with http"):
        fetch_benchmark(BENCHMARKS["voc2012"], tmp_path, address)


def test_nus_wide_says_where_to_ask() -> None:
    result = CliRunner().invoke(main, ["download", "nus-wide"])
    assert result.exit_code == 0
    assert "lms.comp.nus.edu.sg" in result.output
    assert "Agreement and Disclaimer Form" in result.output
