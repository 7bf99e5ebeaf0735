"""Files in a tar shard, found by name: what is missing says so, and hostile headers cost no memory."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

import pytest
from faults.bounded import bounded

from capnet.data.images.image_files import inspect_image
from capnet.data.images.shards import add_member, file_of, read_bytes
from capnet.data.images.transform import Transform
from capnet.errors import DataError


def test_members_are_found_and_what_is_not_there_says_so(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add_member(tar, "x/1.jpg", b"one")
        add_member(tar, "2.jpg", b"")
        link = tarfile.TarInfo("3.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    (tmp_path / "folder.tar").mkdir()
    (tmp_path / "folder.tar/plain.jpg").write_bytes(b"plain")
    (tmp_path / "no.tar").write_bytes(b"this is no tar file" * 100)
    assert read_bytes(tmp_path / "a.tar/x/1.jpg") == b"one"
    assert read_bytes(tmp_path / "folder.tar/plain.jpg") == b"plain"
    assert read_bytes(tmp_path / "a.tar/2.jpg") == b""
    for name in ("a.tar/9.jpg", "a.tar/3.jpg", "a.tar/x", "b.tar/1.jpg", "no.tar/1.jpg", "folder.tar"):
        with pytest.raises(OSError, match="tar"):
            read_bytes(tmp_path / name)
    assert inspect_image(tmp_path / "a.tar/9.jpg").fault == "missing"
    assert inspect_image(tmp_path / "a.tar/3.jpg").fault == "missing"  # a link in a shard has no target
    assert "not an uncompressed tar" in inspect_image(tmp_path / "no.tar/1.jpg").fault
    transform = Transform(8, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=1)
    with pytest.raises(DataError, match=r"9\.jpg"):
        transform.tensor(tmp_path, "a.tar/9.jpg", "0" * 64)


@pytest.mark.parametrize(
    ("path", "file"),
    [
        ("shards/a.tar/1.jpg", "shards/a.tar"),
        ("shards/a.tar/x/1.jpg", "shards/a.tar"),
        ("folder.tar/b.tar/1.jpg", "folder.tar/b.tar"),
        ("folder.tar/1.jpg", "folder.tar/1.jpg"),
        ("images/1.jpg", "images/1.jpg"),
        ("gone.tar/1.jpg", "gone.tar/1.jpg"),
        ("shards/a.tar", "shards/a.tar"),
    ],
)
def test_the_file_that_holds_a_picture(path: str, file: str) -> None:
    assert file_of(path, {"shards/a.tar", "folder.tar/b.tar", "folder.tar/1.jpg", "images/1.jpg"}) == file


def test_a_shard_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    for content in (b"first", b"second"):
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            add_member(tar, "0.json", content * 300)
            add_member(tar, "1.jpg", content)
        assert read_bytes(tmp_path / "a.tar/1.jpg") == content


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [700_000_000, -700_000_000])
def test_a_header_that_says_it_is_huge_is_not_read(tmp_path: Path, kind: bytes, size: int) -> None:
    entry = tarfile.TarInfo("a.jpg")
    entry.type, entry.size = kind, size
    path = tmp_path / "a.tar"
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 800_000_000)
    outcome = bounded(lambda: read_bytes(path / "a.jpg"))
    named = re.search(r"OSError: not an uncompressed tar file: a header of (-?[\d,]+) bytes", outcome.text)
    if size < 0 and named is None:  # Python refuses it by itself from 3.13.5 on
        assert "OSError: not an uncompressed tar file: invalid offset" in outcome.text
    else:
        assert named is not None
        assert 0 <= int(named[1].replace(",", "")) - size < 512, "rounded up to whole blocks"
    assert outcome.megabytes < 100


def test_a_header_for_a_header_for_a_header_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a.jpg")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 1
    path = tmp_path / "a.tar"
    path.write_bytes((entry.tobuf(tarfile.GNU_FORMAT) + b"a".ljust(512, b"\0")) * 10_000)
    with pytest.raises(OSError, match="not an uncompressed tar file"):
        read_bytes(path / "a.jpg")


def test_long_names_are_read(tmp_path: Path) -> None:
    name = "ä" * 4000 + ".jpg"
    for number, form in enumerate((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w", format=form) as tar:
            add_member(tar, name, b"content")
        assert read_bytes(path / name) == b"content"
