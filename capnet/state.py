"""The state folder: training checkpoints and caches, keyed by hashes; never an output, never under DVC. And the folder
for what a process keeps for a moment.
"""

from __future__ import annotations

import atexit
import fcntl
import glob
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from capnet.errors import check_writable, machine_faults

MOMENTARY = "capnet-process."
RANDOM = 8  # letters that tempfile adds to a name


def state_folder() -> Path:
    """``$CAPNET_STATE``; ``.capnet`` where it is unset or empty, as templates leave a variable without a value."""
    return Path(os.environ.get("CAPNET_STATE") or ".capnet")


def state_dir(kind: str) -> Path:
    """Folder ``kind`` of the state folder, made when missing; a state folder that is made here is its owner's alone,
    one that was there keeps its modes (a volume that several accounts share).

    Raises CapnetError where it cannot be written to.
    """
    base = state_folder()
    path = base / kind
    with machine_faults(path, "the state folder cannot be used (CAPNET_STATE names another)"):
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    return path


def use_own_temporary_folder() -> None:
    """What this process and its libraries keep for a moment goes to a folder of its own, which it removes when it ends.

    A process locks its folder for as long as it or a child of it lives. Folders of this account and this machine that
    nobody locks were left by a kill and are removed now: no lock of a folder is seen on another machine. Where no
    folder can be made, the system's own is used.
    """
    with suppress(OSError):
        base, prefix = Path(tempfile.gettempdir()), f"{MOMENTARY}{os.uname().nodename}."
        for path in base.glob(f"{glob.escape(prefix)}{'?' * RANDOM}"):
            with suppress(OSError):
                if path.lstat().st_uid == os.getuid():
                    _remove_unlocked(path)
        own = Path(tempfile.mkdtemp(prefix=prefix))
        fcntl.flock(os.open(own, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)
        if own.exists():  # nobody took it for one that was left, just before it was locked
            tempfile.tempdir = str(own)
            atexit.register(_remove_own, own, os.getpid())


def _remove_unlocked(path: Path) -> None:
    """Raises OSError where somebody locks the folder, or where it is none."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(handle)


def _remove_own(own: Path, process: int) -> None:
    if os.getpid() == process:  # and not in a fork of it
        shutil.rmtree(own, ignore_errors=True)
