"""Archives, extracted only inside a folder: every name in a .zip or .tar is checked before anything is written."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from capnet.data.sources.remote import megabytes
from capnet.errors import DataError, Problem
from capnet.progress import track

CHUNK = 1 << 16  # bytes


def check_room(folder: Path, needed: int) -> None:
    """Refuse to write more than the disk has left.

    Args:
        folder: on that disk.
        needed: bytes.

    Raises:
        DataError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{megabytes(needed)} are needed, the disk has {megabytes(free)} left",
            str(folder),
            "make room, or choose another folder with --out",
        )


def extract(archive: Path, out: Path) -> int:
    """Extract a .zip or .tar (also compressed); all names are checked before anything is written.

    Args:
        archive: the file.
        out: folder, made where it is missing.

    Returns:
        Number of files.

    Raises:
        DataError: members could leave ``out``, the archive is damaged, or the disk is too small.
    """
    out.mkdir(parents=True, exist_ok=True)
    root, zipped = out.resolve(), archive.suffix == ".zip"
    how: dict[str, Any] = {} if zipped else {"filter": "data"}
    try:
        with zipfile.ZipFile(archive) if zipped else tarfile.open(archive) as opened:
            packed: Any = opened
            members = packed.infolist() if zipped else packed.getmembers()
            problems = []
            for item in members:
                name = item.filename if zipped else item.name
                plain = zipped or item.isfile() or item.isdir()  # zipfile makes neither links nor devices
                if not plain or not (root / name).resolve().is_relative_to(root):
                    what = f"archive member {name!r} is refused: it is a link or a device, or would leave {out}"
                    todo = (
                        "take it from its publisher, or remove the link that lies in the folder; nothing was extracted"
                    )
                    problems.append(Problem(what, str(archive), todo))
            if problems:
                raise DataError(problems=problems)
            check_room(out, sum(item.file_size if zipped else item.size for item in members))
            for item in track(members, f"extracting {archive.name}", len(members)):
                packed.extract(item, out, **how)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"the archive cannot be extracted: {error}", str(archive), "remove it and download it again"
        ) from None
    return sum(not item.is_dir() if zipped else item.isfile() for item in members)
