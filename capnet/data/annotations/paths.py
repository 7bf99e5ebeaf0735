"""Files of the data folder: the one way to open them, and one spelling for their paths."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from capnet.errors import DataError
from capnet.section import PLAIN_PATH, path_fault

TODO = "write the path relative to the data folder, with / between folders"


class DataFolder:
    """The data folder as readers see it: every file is asked for by its path, and none outside is handed out."""

    def __init__(self, root: Path, links: str = "inside") -> None:
        """Remember the folder.

        Args:
            root: the folder.
            links: setting ``data.links``; with "anywhere" symbolic links may lead out of the folder.
        """
        self._root, self._links = root, links
        self._real = os.path.realpath(root)
        self._leaving: dict[str, bool] = {}  # by folder, so that a file costs one system call
        self._states: dict[str, object] = {}  # of each file and folder when it was first handed out

    def __str__(self) -> str:
        return str(self._root)

    @property
    def dvc_file(self) -> str:
        """The file by which DVC tracks it, so that a clone can fetch what is in it; "" where there is none."""
        path = f"{self._root}.dvc"
        return path if Path(path).is_file() else ""

    def path(self, name: str) -> Path:
        """Where a file or folder is that may be read.

        Args:
            name: path relative to the data folder; it need not exist.

        Raises:
            DataError: the path, or a symbolic link on it, leads out of the data folder.
        """
        if fault := path_fault(name):
            raise DataError(fault, str(self._root), TODO)
        self.refuse_link(name)
        if name not in self._states:
            self._states[name] = self._state(name)
        return self._root / name

    def refuse_link(self, name: str) -> None:
        """Raise DataError where the path goes through a symbolic link that leaves the data folder."""
        if self.leads_out(name):
            what = f"{name!r} is reached through a link that leaves the data folder"
            raise DataError(what, str(self._root), "put the file itself there, or set data.links: anywhere")

    def changed(self) -> list[str]:
        """The files and folders that were handed out and are others now by size, time or names, sorted."""
        return sorted(name for name, state in self._states.items() if self._state(name) != state)

    def _state(self, name: str) -> object:
        """Size and time of change of a file, the names in a folder that are not hidden, None where nothing is."""
        path = self._root / name
        try:
            if path.is_dir():
                return sorted(file for file in os.listdir(path) if not file.startswith("."))
            state = path.stat()
        except (OSError, ValueError):
            return None
        return state.st_size, state.st_mtime_ns

    def has(self, name: str) -> bool:
        """Whether anything is there, be it a link that leads nowhere; see ``path``."""
        return os.path.lexists(self.path(name))

    def names(self, folder: str = "") -> list[str] | None:
        """Names of the files and folders in a folder of the data, sorted; None where there is no such folder.

        Args:
            folder: path relative to the data folder; "" for itself.

        Raises:
            DataError: as in ``path``.
        """
        path = self.path(folder) if folder else self._root
        return sorted(os.listdir(path)) if path.is_dir() else None

    def leads_out(self, path: str) -> bool:
        """Say whether a link on ``path`` (relative) leaves the folder and must not; a missing file is no link."""
        if self._links == "anywhere":
            return False
        folder, _, _ = path.rpartition("/")
        if folder not in self._leaving:
            self._leaving[folder] = not self._is_inside(self._root / folder)
        if self._leaving[folder]:
            return True
        return os.path.islink(self._root / path) and not self._is_inside(self._root / path)

    def _is_inside(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")


def normal_path(path: str) -> str:
    """The path without empty parts and dots: one spelling for one file."""
    return path if PLAIN_PATH.fullmatch(path) else str(PurePosixPath(path))


def without_suffix(path: str) -> str:
    """The path without the suffix of its file name: the image id where the annotations have none."""
    if PLAIN_PATH.fullmatch(path):
        return path[: path.rindex(".")]
    plain = PurePosixPath(path)
    return str(plain.with_suffix("") if plain.name else plain)
