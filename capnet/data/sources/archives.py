"""Archives, extracted only inside a folder: every name in a .zip or .tar is checked before anything is written."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capnet.data.sources.remote import unsafe
from capnet.errors import DataError, Problem
from capnet.machine_faults import check_room
from capnet.progress import track

CHUNK = 1 << 16  # bytes
ROOM = "make room, or choose another folder with --out"


@dataclass(frozen=True)
class Member:
    """One entry of an archive: ``kind`` is file, folder, or what else it is."""

    name: str
    kind: str
    size: int
    handle: Any


def _refused(members: Sequence[Member], archive: Path) -> list[Problem]:
    """Every member that could leave the folder or is no plain file: absolute paths, ``..``, links, devices."""
    problems = []
    todo = "take the archive from its publisher; nothing of this one was extracted"
    for member in members:
        name = member.name.removesuffix("/").removeprefix("./")
        fault = unsafe(name) if name not in ("", ".") else ""
        if "\\" in name or (len(name) > 1 and name[1] == ":"):
            fault = fault or "it is no relative path"
        if member.kind not in ("file", "folder"):
            fault = f"it is a {member.kind}"
        if fault:
            problems.append(Problem(f"archive member {member.name!r} is refused: {fault}", str(archive), todo))
    return problems


def extract(archive: Path, out: Path) -> int:
    """Extract a .zip or .tar (also compressed); all names are checked before anything is written.

    Args:
        archive: the file.
        out: folder, made where it is missing.

    Returns:
        Number of files.

    Raises:
        DataError: members could leave ``out``, or the archive is damaged.
        CapnetError: the disk is too small.
    """
    try:
        with _opened(archive) as (members, read):
            if problems := _refused(members, archive):
                raise DataError(problems=problems)
            out.mkdir(parents=True, exist_ok=True)
            files = [member for member in members if member.kind == "file"]
            check_room(out, sum(member.size for member in files), ROOM)
            root = out.resolve()
            for member in track(files, f"extracting {archive.name}", len(files)):
                target = out / member.name.removeprefix("./")
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.parent.resolve().is_relative_to(root):
                    what = f"archive member {member.name!r} would leave {out}"
                    todo = "remove the link, or choose another folder with --out"
                    raise DataError(what, f"{archive}, through the link {target.parent}", todo)
                temporary = target.with_name(f".{target.name[:200]}.{os.getpid()}.tmp")
                with read(member.handle) as source, open(temporary, "wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)
                os.replace(temporary, target)
            return len(files)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        what = f"the archive cannot be extracted: {error}"
        raise DataError(what, str(archive), "remove it and download it again") from None


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[Member], Any]]:
    """Members of an archive, and a function that opens a file among them by its handle."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            names = [Member(item.filename, _zip_kind(item), item.file_size, item) for item in packed.infolist()]
            yield names, packed.open
    else:
        with tarfile.open(archive) as tar:
            yield [Member(item.name, _tar_kind(item), item.size, item) for item in tar.getmembers()], tar.extractfile


def _zip_kind(item: zipfile.ZipInfo) -> str:
    mode = item.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "link"
    if item.is_dir():
        return "folder"
    return "file" if not stat.S_IFMT(mode) or stat.S_ISREG(mode) else "device"


def _tar_kind(item: tarfile.TarInfo) -> str:
    if item.issym() or item.islnk():
        return "link"
    if item.isdir():
        return "folder"
    return "file" if item.isreg() else "device"
