"""The index of the local copies of remote files: one SQLite file, made again with the copies where it is damaged."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from capnet.contracts import remove

log = logging.getLogger(__name__)

INDEX = "index.sqlite"
COLUMNS = ["folder", "path", "version", "size", "sha256", "used"]
SCHEMA = """CREATE TABLE IF NOT EXISTS files (
            folder TEXT, path TEXT, version TEXT, size INTEGER, sha256 TEXT, used INTEGER,
            PRIMARY KEY (folder, path)) WITHOUT ROWID"""


def open_index(root: Path) -> sqlite3.Connection:
    """Open the index of a cache; where it is damaged nobody knows what the copies are, so all but the lock is removed.

    Args:
        root: the cache's folder, which this process has locked.

    Raises:
        sqlite3.OperationalError: the file cannot be opened or written; that damages nothing.
    """
    try:
        return _checked(root / INDEX)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        log.warning("%s is damaged: its files are fetched again", root / INDEX)
    for path in root.iterdir():
        if path.name != "lock":
            remove(path)
    return _checked(root / INDEX)


def _checked(path: Path) -> sqlite3.Connection:
    """Open an index; raises sqlite3.DatabaseError where the file is damaged, or no such index."""
    path.touch()  # SQLite itself would take the right to write from a group that the umask gives it
    index = sqlite3.connect(path)
    try:
        index.execute(SCHEMA)
        columns = [row[1] for row in index.execute("PRAGMA table_info(files)")]
        if columns != COLUMNS or index.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("damaged")
    except sqlite3.Error:
        index.close()
        raise
    return index
