"""Tar shards of a stranger's: headers that fill the memory, and entries that are not stored as they are read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from faults.bounded import bounded

from capnet.data.images import shards
from capnet.data.images.shards import add_member, read_bytes


def block(name: str, kind: bytes, body: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = kind, len(body)
    return entry.tobuf(tarfile.USTAR_FORMAT) + body.ljust(-(-len(body) // 512) * 512, b"\0")


def plain(*names: str) -> bytes:
    return b"".join(block(name, tarfile.REGTYPE, b"content") for name in names)


def records(number: int) -> bytes:
    return b"".join(b"14 k%06d=ab\n" % n for n in range(number))


def refused(path: Path, data: bytes, *reasons: str) -> None:
    """With one of the reasons: releases of Python differ in what they take for a header."""
    path.write_bytes(data + bytes(1024))
    outcome = bounded(lambda: read_bytes(path / "0.jpg"), megabytes=8000)
    assert outcome.kind == "failed", outcome
    assert any(f"OSError: not an uncompressed tar file: {reason}" in outcome.text for reason in reasons), outcome
    assert outcome.megabytes < 150, outcome
    assert outcome.seconds < 10, outcome


def test_a_header_for_all_entries_is_not_copied_for_each(tmp_path: Path) -> None:
    shared = block("g", tarfile.XGLTYPE, records(60_000))
    names = [f"{n}.jpg" for n in range(3000)]
    refused(tmp_path / "a.tar", shared + plain(*names), "more than 100 keys of a header for all entries")
    (tmp_path / "b.tar").write_bytes(block("g", tarfile.XGLTYPE, records(3)) + plain("0.jpg") + bytes(1024))
    assert read_bytes(tmp_path / "b.tar/0.jpg") == b"content"


@pytest.mark.slow  # measures memory in a process of its own
def test_long_headers_are_counted_together(tmp_path: Path) -> None:
    long = block("x", tarfile.XHDTYPE, records(60_000)) + plain("0.jpg")
    refused(tmp_path / "a.tar", long * 100, "long headers of")


def test_a_sparse_entry_is_no_picture(tmp_path: Path) -> None:
    """Its bytes would be those of the entries behind it."""
    path = tmp_path / "a.tar"
    about = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n" + b"28 GNU.sparse.realsize=4096\n"
    body = b"1\n0\n512\n".ljust(512, b"\0") + b"A" * 512
    sparse = block("x", tarfile.XHDTYPE, about) + block("s.jpg", tarfile.REGTYPE, body)
    path.write_bytes(sparse + plain(*(f"{n}.jpg" for n in range(20))) + bytes(1024))
    with tarfile.open(path) as tar:
        assert tar.getmember("s.jpg").issparse()
    with pytest.raises(FileNotFoundError, match=r"has no s\.jpg"):
        read_bytes(path / "s.jpg")
    assert read_bytes(path / "7.jpg") == b"content"


def test_a_shard_has_a_most_of_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(21):
            add_member(tar, f"{number}.jpg", b"x")
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    assert read_bytes(tmp_path / "a.tar/20.jpg") == b"x"
    (tmp_path / "b.tar").write_bytes(buffer.getvalue())
    monkeypatch.setattr(shards, "MOST_MEMBERS", 20)
    with pytest.raises(OSError, match="more than 20 entries"):
        read_bytes(tmp_path / "b.tar/20.jpg")


def test_digits_are_not_searched_from_each_on(tmp_path: Path) -> None:
    data = block("p", tarfile.XHDTYPE, b"1" * 60_000) + plain("0.jpg")
    refused(tmp_path / "digits.tar", data * 20, "a header with a number of hundreds of digits")


def test_a_shard_that_is_refused_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = []

    def count(tar: tarfile.TarFile, _: object) -> dict[str, tuple[int, int]]:
        listed.append(tar)
        raise tarfile.ReadError("too much")

    monkeypatch.setattr(shards, "_ranges", count)
    (tmp_path / "x.tar").write_bytes(plain("0.jpg") + bytes(1024))
    for name in ("0.jpg", "1.jpg"):
        with pytest.raises(OSError, match="not an uncompressed tar file: too much"):
            read_bytes(tmp_path / "x.tar" / name)
    assert len(listed) == 1


@pytest.mark.slow  # measures memory in a process of its own
def test_a_map_of_a_sparse_file_is_counted(tmp_path: Path) -> None:
    """It fills blocks behind the header, each of which says whether another follows."""
    sparse = bytearray(block("0.jpg", tarfile.GNUTYPE_SPARSE, b""))
    sparse[482], further = 1, (b"00000000001\0" * 42).ljust(504, b"\0") + b"\1".ljust(8, b"\0")
    sparse[148:156] = b"%06o\0 " % (sum(sparse) - sum(sparse[148:156]) + 8 * 32)
    refused(tmp_path / "a.tar", bytes(sparse) + further * 50_000, "long headers of")


def test_long_names_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MOST_NAMES", 1_000_000)
    long = (block("x", tarfile.GNUTYPE_LONGNAME, b"%06d" % n + b"n" * 60_000) + plain("0.jpg") for n in range(20))
    (tmp_path / "a.tar").write_bytes(b"".join(long) + bytes(1024))
    with pytest.raises(OSError, match="more than 1,000,000 entries, or 1,000,000 bytes of names"):
        read_bytes(tmp_path / "a.tar/0.jpg")


def test_what_is_behind_a_damaged_header_is_not_called_missing(tmp_path: Path) -> None:
    refused(tmp_path / "a.tar", plain("1.jpg") + b"x" + plain("0.jpg")[1:], "damaged header at byte 1,024")


def test_names_as_tar_writes_those_of_the_folder_it_is_in(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(plain("./1.jpg", "./é/3", "4.jpg") + bytes(1024))
    assert [read_bytes(tmp_path / "a.tar" / name) for name in ("1.jpg", "é/3", "4.jpg")] == [b"content"] * 3


def test_a_size_below_zero_leads_back_to_no_header(tmp_path: Path) -> None:
    data = plain("1.jpg") + block("p", tarfile.XHDTYPE, b"14 size=-1536\n") + plain("0.jpg")
    refused(tmp_path / "x.tar", data, "an entry of -1,536 bytes", "damaged header at byte 1,024")
