"""The state folder: training checkpoints and caches, keyed by hashes; never an output, never under DVC. And the folder
for what a process keeps for a moment.
"""

from __future__ import annotations

import atexit
import errno
import fcntl
import hashlib
import mmap
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from capnet.errors import CapnetError
from capnet.machine_faults import check_writable, machine_faults

MOMENTARY = "capnet-process."
CANNOT = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENODEV)
RANDOM = 8  # letters that tempfile adds to a name
_OWN = set[str]()  # folders that this process has made for itself


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
        check_usable(path)
    return path


def check_usable(folder: Path) -> None:
    """Raise OSError where a state folder cannot be written to, CapnetError where its file system lacks what the program
    needs, as Lustre without its option flock does: before hours of work.
    """
    check_writable(folder)
    with TemporaryFile(dir=folder) as file:
        try:
            what = "lock files"
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            what = "map files into memory"
            os.ftruncate(file.fileno(), 1)
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ).close()
        except OSError as error:
            if error.errno not in CANNOT:
                raise
            todo = "set CAPNET_STATE to a folder on a local disk, or mount it in a way that can (Lustre: option flock)"
            reason = f"the file system of the state folder cannot {what}: {error.strerror}"
            raise CapnetError(reason, str(folder), todo) from None


def use_own_temporary_folder() -> None:
    """What this process and its libraries keep for a moment goes to a folder of its own, which it removes when it ends.

    A process locks its folder for as long as it or a child of it lives. Folders of this account and this machine that
    nobody locks were left by a kill and are removed now: no lock of a folder is seen on another machine. Where no
    folder can be made, the system's own is used.
    """
    if tempfile.tempdir in _OWN:
        return
    with suppress(OSError):
        # a pod's name has 63 letters, and the path of a socket of multiprocessing below the folder at most 107
        machine = hashlib.sha256(os.uname().nodename.encode()).hexdigest()[:8]
        base, prefix = Path(tempfile.gettempdir()), f"{MOMENTARY}{machine}."
        for path in base.glob(f"{prefix}{'?' * RANDOM}"):
            with suppress(OSError):
                if path.lstat().st_uid == os.getuid():
                    _remove_unlocked(path)
        own = Path(tempfile.mkdtemp(prefix=prefix))
        fcntl.flock(os.open(own, os.O_RDONLY | os.O_DIRECTORY), fcntl.LOCK_SH)
        if own.exists():  # nobody took it for one that was left, just before it was locked
            tempfile.tempdir = str(own)
            _OWN.add(tempfile.tempdir)
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
