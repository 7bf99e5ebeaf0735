"""A copy of remote files in the state folder: fetched in parallel, verified, never half-written, no larger than
allowed.

An index (SQLite) remembers the version, size, sha256 and last use of every copied file. A file reaches its path by a
rename after it was verified; an unfinished one stays under ``unfinished/`` and is continued by the next run.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from capnet.concurrency import in_threads
from capnet.contracts import sha256_file
from capnet.data.images.shards import file_of
from capnet.data.sources.cache_index import INDEX, open_index
from capnet.data.sources.remote import Entry, is_label_file
from capnet.errors import DataError, Problem, megabytes
from capnet.progress import track

if TYPE_CHECKING:
    from capnet.data.sources.dvc_versions import DvcSource
    from capnet.data.sources.s3_source import S3Source

    Source = S3Source | DvcSource

log = logging.getLogger(__name__)

COMMIT_EVERY = 200  # files, so that little is forgotten when the machine fails
UNFINISHED_DAYS = 7.0


@dataclass(frozen=True, slots=True)
class Copied:
    """A row of the index."""

    version: str
    size: int
    sha256: str


class Cache:
    """The copies of all remote roots below ``root``, at most ``limit`` bytes together."""

    def __init__(self, root: Path, limit: int, connections: int) -> None:
        self.root, self.limit, self.connections = root, limit, connections

    def bring(self, source: Source, images: Mapping[str, str | None] | None = None, strict: bool = True) -> Path:
        """Copy files of a remote and return the folder that holds them.

        Args:
            source: the remote.
            images: their sha256 by path, None where it is not known; for images in shards, the shards are copied. Where
                all are known, and copies have that content, no request is made. Without ``images``, the label files
                are copied.
            strict: raise for images that the remote lacks, or whose content is another.

        Raises:
            DataError: see ``strict``; or a copy cannot be made, or does not fit.
        """
        folder = self.root / source.folder
        with self._locked() as index:
            known = _known(index, source.folder)
            if images is not None and all(
                _is_here(folder, path, known.get(path)) and known[path].sha256 == content
                for path, content in images.items()
            ):
                _mark_used(index, source.folder, images)
                return folder
            entries = source.entries()
            for path in known.keys() - entries.keys():  # so that no reader finds a label file of old
                self._forget(index, str(source.folder), path)
            if images is None:
                paths = sorted(filter(is_label_file, entries))
            else:
                paths = list(dict.fromkeys(file_of(path, entries) for path in images))
            absent = [path for path in paths if path not in entries]
            if absent and strict:
                todo = "put them back, or run `capnet ingest` again after their rows were removed"
                gone = [Problem(f"picture {path!r} is not there any more", source.name, todo) for path in absent]
                raise DataError(problems=gone)
            present = [path for path in paths if path in entries]
            copied = {path for path in present if _is_here(folder, path, known.get(path))}
            stale = [path for path in present if path not in copied or known[path].version != entries[path].version]
            self._check_limit(source, entries, present)
            _mark_used(index, source.folder, present)
            _announce(index, source.folder, entries, stale)
            self._make_room(index, source.folder, present)
            self._download(index, source, folder, entries, stale)
            if images is not None and strict:
                _check_content(index, source, images)
        return folder

    def size(self) -> int:
        """Bytes that all copies take; does not wait for a process that is fetching."""
        if not (self.root / INDEX).is_file():
            return 0
        with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(self.root / INDEX)) as index:
            return int(index.execute("SELECT COALESCE(SUM(size), 0) FROM files WHERE version != ''").fetchone()[0])
        return 0

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        """The index, for one process at a time: the lock goes with the process, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.warning("another process fetches pictures into %s: waiting for it", self.root)
                fcntl.flock(lock, fcntl.LOCK_EX)
            index = open_index(self.root)
            try:
                yield index
                index.commit()
            finally:
                index.close()

    def _check_limit(self, source: Source, entries: Mapping[str, Entry], present: Sequence[str]) -> None:
        """Raise DataError where the files never fit together."""
        needed = sum(entries[path].size for path in present)
        if needed > self.limit:
            allowed = f"the cache may take {megabytes(self.limit)}"
            what = f"{len(present)} files of {source.name} take {megabytes(needed)}, {allowed}"
            todo = f"set data.cache_gigabytes to {needed / 1e9 * 1.1:.1f} or more, if the disk allows it"
            raise DataError(what, str(self.root), todo)

    def _make_room(self, index: sqlite3.Connection, ours: PurePosixPath, present: Sequence[str]) -> None:
        """Delete the longest unused copies until the files that are asked for fit."""
        surplus = int(index.execute("SELECT COALESCE(SUM(size), 0) FROM files").fetchone()[0]) - self.limit
        if surplus <= 0:
            return
        keep = set(present)
        for folder, path, size in index.execute(
            "SELECT folder, path, size FROM files ORDER BY used, folder, path"
        ).fetchall():
            if surplus <= 0:
                break
            if folder != str(ours) or path not in keep:
                self._forget(index, folder, path)
                surplus -= size

    def _forget(self, index: sqlite3.Connection, folder: str, path: str) -> None:
        """Delete a copy, and its row."""
        with suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):  # its name may be a folder's now
            (self.root / folder / path).unlink()
        index.execute("DELETE FROM files WHERE folder = ? AND path = ?", (folder, path))

    def _download(
        self,
        index: sqlite3.Connection,
        source: Source,
        folder: Path,
        entries: Mapping[str, Entry],
        stale: Sequence[str],
    ) -> None:
        if not stale:
            return
        unfinished = self.root / "unfinished"
        unfinished.mkdir(exist_ok=True)
        for old in unfinished.iterdir():  # DVC begins its own with a dot, under names that no later run knows
            if old.name.startswith(".") or time.time() - old.stat().st_mtime > UNFINISHED_DAYS * 86400:
                old.unlink()

        def one(path: str) -> tuple[str, int, str]:
            entry, copy = entries[path], folder / path
            part = unfinished / hashlib.sha256(f"{folder}\0{path}\0{entry.version}".encode()).hexdigest()
            source.fetch(path, entry, part)
            content, size = sha256_file(part), part.stat().st_size
            copy.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, copy)
            return path, size, content

        done = 0
        doing = f"fetching {megabytes(sum(entries[path].size for path in stale))}"
        try:
            # the iterator of the threads has no name here, so that Ctrl-C closes it, and ends them, at once
            for path, size, content in track(
                in_threads(stale, one, self.connections, 4 * self.connections), doing, len(stale)
            ):
                row = (str(source.folder), path, entries[path].version, size, content, int(time.time()))
                index.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", row)
                done += 1
                if done % COMMIT_EVERY == 0:
                    index.commit()
        except (DataError, OSError) as error:
            todo = f"make room on the disk, or remove {self.root}: copies come again"
            if isinstance(error, FileExistsError | IsADirectoryError | NotADirectoryError):
                todo = f"rename or remove one of those that are a file and a folder in {source.name}"
            problems = [Problem(f"cannot write a copy: {error}", str(folder), todo)]
            if isinstance(error, DataError):
                problems = error.problems
            what = f"{done} of {len(stale)} files were fetched and are kept"
            kept = Problem(what, str(self.root), "run the same command again: it goes on from there")
            raise DataError(problems=[*problems, kept]) from None
        finally:
            index.commit()


def _known(index: sqlite3.Connection, folder: PurePosixPath) -> dict[str, Copied]:
    rows = index.execute("SELECT path, version, size, sha256 FROM files WHERE folder = ?", (str(folder),))
    return {path: Copied(*content) for path, *content in rows}


def _is_here(folder: Path, path: str, copied: Copied | None) -> bool:
    """True where the index knows the copy and the file still has its size."""
    if copied is None:
        return False
    try:
        return os.stat(folder / path).st_size == copied.size
    except (FileNotFoundError, NotADirectoryError):
        return False


def _mark_used(index: sqlite3.Connection, folder: PurePosixPath, paths: Iterable[str]) -> None:
    now = int(time.time())
    index.executemany(
        "UPDATE files SET used = ? WHERE folder = ? AND path = ?", ((now, str(folder), path) for path in paths)
    )


def _announce(
    index: sqlite3.Connection, folder: PurePosixPath, entries: Mapping[str, Entry], stale: Sequence[str]
) -> None:
    """Write down what is about to be fetched, without a version, so that a killed run leaves no file that the index
    does not know.
    """
    now = int(time.time())
    index.executemany(
        "INSERT OR REPLACE INTO files VALUES (?, ?, '', ?, '', ?)",
        ((str(folder), path, entries[path].size, now) for path in stale),
    )
    index.commit()


def _check_content(index: sqlite3.Connection, source: Source, images: Mapping[str, str | None]) -> None:
    """Compare images that are files; a shard has another hash than the images in it."""
    known = _known(index, source.folder)
    changed = [path for path, content in images.items() if content and path in known and known[path].sha256 != content]
    if changed:
        todo = "run the stages again from ingest on: `dvc repro`, or `capnet ingest` and what follows"
        others = [Problem(f"picture {path!r} is not the one that ingest saw", source.name, todo) for path in changed]
        raise DataError(problems=others)
