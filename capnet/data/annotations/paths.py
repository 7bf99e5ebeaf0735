"""Paths that label files name: relative to the data folder, and never out of it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

# nearly every path: nothing to normalise, a name and one suffix
_PLAIN = re.compile(r"(?:[^/\\:.][^/\\:]*/)*[^/\\:.]+\.[A-Za-z0-9]+")
TODO = "write the path relative to the data folder, with / between folders"


def path_fault(written: str) -> str:
    """Why ``written`` cannot be a path inside the data folder; empty where it can."""
    if _PLAIN.fullmatch(written) and "\0" not in written:
        return ""
    path = PurePosixPath(written)
    if not written or not path.name:
        return "the path is empty" if not written else f"path {written!r} names no file"
    if path.is_absolute() or PureWindowsPath(written).is_absolute() or "://" in written:
        return f"path {written!r} is absolute"
    if ".." in path.parts:
        return f"path {written!r} leaves the data folder"
    if "\\" in written:
        return f"path {written!r} has backslashes"
    return f"path {written!r} has a zero byte" if "\0" in written else ""


def normal_path(written: str) -> str:
    """``written`` without empty parts and dots: one spelling for one file."""
    return written if _PLAIN.fullmatch(written) else str(PurePosixPath(written))


def without_suffix(path: str) -> str:
    """The path without the ending of its file name: the image id where none is given."""
    if _PLAIN.fullmatch(path):
        return path[: path.rindex(".")]
    plain = PurePosixPath(path)
    return str(plain.with_suffix("") if plain.name else plain)


@dataclass
class Links:
    """Where symbolic links below ``root`` lead; remembers folders, so that a file costs one look."""

    root: Path
    _folders: dict[str, bool] = field(default_factory=dict)
    _real: str = ""

    def lead_out(self, path: str) -> bool:
        """Is ``path`` (relative to the root) reached through a link that leaves the root? A missing file is not."""
        folder, _, _ = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = not self._inside(self.root / folder)
        if self._folders[folder]:
            return True
        try:
            is_link = stat.S_ISLNK(os.lstat(self.root / path).st_mode)
        except (OSError, ValueError):
            return False
        return is_link and not self._inside(self.root / path)

    def _inside(self, path: Path) -> bool:
        self._real = self._real or os.path.realpath(self.root)
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")
