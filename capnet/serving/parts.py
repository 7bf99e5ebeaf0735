"""The folder of a prediction's parts: they survive an interruption, and one process at a time writes them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from capnet.contracts import remove
from capnet.contracts.files import named_faults
from capnet.errors import CapnetError

LOCK = "lock"


@contextmanager
def parts_of(out: Path) -> Iterator[Path]:
    """The folder in which parts lie until their output is written; it is removed where the block ends well.

    Args:
        out: the output.

    Raises:
        CapnetError: another process writes this output.
    """
    folder = out.with_name(f".{out.name}.parts")
    with _locked(folder, out):
        with named_faults(out):
            yield folder
        for path in folder.iterdir():
            if path.name != LOCK:
                remove(path)
        (folder / LOCK).unlink()  # last: from here on another process may lock a file of its own in this folder
        with suppress(OSError):
            folder.rmdir()


def _locked(folder: Path, out: Path) -> IO[str]:
    """An open file whose lock goes with its process, however that ends; on a file system without locks it has none.

    POSIX's lock, because flock's would stay with processes that decode images for a while after a kill.
    """
    while True:
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
        try:
            file = open(folder / LOCK, "a+")  # noqa: SIM115
        except FileNotFoundError:  # the folder went with a process that has just ended
            continue
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            what = f"another process is writing this file (process {file.read().strip() or '?'})"
            file.close()
            raise CapnetError(what, str(out), "wait for it, end that process, or give another --out") from None
        except OSError:
            return file
        if os.fstat(file.fileno()).st_nlink:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            return file
        file.close()
