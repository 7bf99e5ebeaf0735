"""What the machine does to a run (a full disk, a folder that is read-only, too little memory) as an error that a user
can act on.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from capnet.errors import CapnetError, megabytes

PROBE = 1 << 20  # bytes; less room than that is none
MACHINE = {
    errno.ENOSPC: "make room there, or choose another folder",
    errno.EDQUOT: "make room there, or have the quota raised",
    errno.EFBIG: "raise the largest size of a file (ulimit -f), or choose another file system",
    errno.EROFS: "choose a folder that may be written to",
    errno.EACCES: "let this account read it, or write to it (chmod, chown), or choose another",
    errno.EPERM: "let this account read it, or write to it (chmod, chown), or choose another",
    errno.ENOTDIR: "choose a folder, or remove the file that is in its place",
    errno.EEXIST: "choose a folder, or remove the file, or the link to nothing, that is in its place",
    errno.EISDIR: "choose a file, or remove the folder that is in its place",
    errno.EMFILE: "raise the number of open files (ulimit -n)",
    errno.ENOMEM: "give the task more memory",
    errno.EIO: "look at the disk or the network that it is on",
}
UNNAMED = "standard output, or another file without a name"  # of an error that names no file
# what says nothing of a file: the disk or the network fails for the moment, or too many files are open
TRANSIENT = (
    *(errno.EIO, errno.EREMOTEIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOLINK),
    *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNRESET, errno.ESHUTDOWN),
    *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    *(errno.EMFILE, errno.ENFILE),
)
# torch's allocators, oneDNN: each says it in its own words, as a RuntimeError
NO_MEMORY = ("allocate memory", "out of memory", "create a primitive", "bad_alloc")
NO_THREAD = "can't start new thread"
NO_GPU_MEMORY = ("cuda out of memory", "cublas_status_alloc_failed", "cuda error: out of memory")
MEMORY = "give the task more memory, or set train.batch_size, runtime.threads or runtime.workers lower"
PROCESSES = "raise the limit (ulimit -u, pids of a container), or set runtime.workers or runtime.threads lower"
GPU_MEMORY = "set train.batch_size or train.prompt.chunk lower, runtime.precision: bf16, or take a larger GPU"


@contextmanager
def machine_faults(where: Path | str = "", doing: str = "") -> Iterator[None]:
    """Whatever the machine refuses inside is a CapnetError.

    Args:
        where: what the message names; "" takes the path that the error names.
        doing: what did not work, for the message.
    """
    try:
        yield
    except (ImportError, MemoryError, OSError, RuntimeError) as error:
        fault = machine_fault(error, str(where), doing)
        if fault is None:
            raise
        raise fault from error


def machine_fault(error: Exception, where: str = "", doing: str = "") -> CapnetError | None:
    """An error of the machine as a message.

    Args:
        error: as it was raised.
        where: what the message names; "" takes the path that the error names.
        doing: what did not work, for the message.

    Returns:
        The error to raise; None where ``error`` is none of the machine's.
    """
    head = f"{doing}: " if doing else ""
    if any(words in str(error).lower() for words in NO_GPU_MEMORY):
        reason = " ".join(str(error).split())[:300]
        return CapnetError(f"{head}the GPU has not enough memory: {reason}", where or "this process", GPU_MEMORY)
    if "no kernel image is available" in str(error):
        todo = "take a torch that is built for this GPU (another CUDA index of its wheels), or set runtime.device: cpu"
        return CapnetError(f"{head}this torch has no kernels for this GPU", where or "this process", todo)
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY):
        return CapnetError(f"{head}there is not enough memory", where or "this process", MEMORY)
    # of a fork; other words are those of a write to a stream that does not wait
    no_process = isinstance(error, BlockingIOError) and error.strerror == os.strerror(errno.EAGAIN)
    if no_process or NO_THREAD in str(error):
        what = "no more processes and threads can be started: their number is limited, or memory ran out"
        return CapnetError(f"{head}{what}", where or "this process", PROCESSES)
    if "failed to map segment" in str(error):  # an ImportError of a library in C, without a number
        todo = "give the task more memory, or install the libraries where the file system is not mounted noexec"
        return CapnetError(f"{head}{error}", where or "this process", todo)
    if not isinstance(error, OSError):
        return None
    number = error.errno or next((n for n in MACHINE if os.strerror(n) in str(error)), 0)
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    path = str(error.filename2 or error.filename or "")
    todo = MACHINE.get(number, "see that it is there, may be used and has room; `capnet --traceback` says more")
    return CapnetError(f"{head}{reason}", where or path or UNNAMED, todo)


def refuse_unread(error: Exception, path: Path) -> None:
    """Raise CapnetError where ``error`` says that the machine does not read ``path``, whose content may be good."""
    if isinstance(error, OSError) and error.errno in (*TRANSIENT, errno.EACCES, errno.EPERM):
        named = OSError(error.errno, os.strerror(error.errno))  # pyarrow's words say it twice
        raise machine_fault(named, str(path), "it cannot be read") or error from error


def check_writable(folder: Path) -> None:
    """Raise OSError where nothing, or next to nothing, can be written into a folder: before hours of work."""
    with TemporaryFile(dir=folder) as file:  # without a name, so that a kill leaves none
        file.write(bytes(PROBE))
        file.flush()


def check_room(folder: Path, needed: int, todo: str) -> None:
    """Refuse to write more than the disk has left.

    Args:
        folder: on that disk.
        needed: bytes.
        todo: what to do where there is less.

    Raises:
        CapnetError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapnetError(f"{megabytes(needed)} are needed, the disk has {megabytes(free)} left", str(folder), todo)
