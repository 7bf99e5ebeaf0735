"""Outputs written under a temporary name and exchanged with the old ones in one step: a reader, a second run and a kill
at any moment find either the old or the new output.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from capnet.contracts.files import host, remove, sweep
from capnet.errors import CapnetError, ConfigError, DataError
from capnet.machine_faults import check_writable, machine_faults

EXCHANGE = 2  # RENAME_EXCHANGE of Linux's renameat2
HERE = -100  # AT_FDCWD
MOUNTS = Path("/proc/self/mountinfo")
RACES = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)  # another run published, or removed, in between
EARLIER = (  # files by which an output of a stage is known
    "manifest.parquet",
    "split.parquet",
    "validation.json",
    "graph.safetensors",
    "model.safetensors",
    "evaluation.json",
)
EARLIER_FILE = b'"content_hash": "'  # by which registration.json is known, the one output that is a file


def temporary_path(path: Path, rank: int) -> Path:
    """Where process ``rank`` of this run writes what becomes ``path``."""
    return path.with_name(f".{path.stem}.{host()}.{os.getpid()}.{rank}.tmp{path.suffix}")


def check_target(path: Path, is_file: bool, inputs: Mapping[str, Path]) -> None:
    """An output takes the place of what is there, so nothing else may be there.

    Args:
        path: of the output.
        is_file: whether it is a file, not a folder.
        inputs: paths of the stage's inputs, by name.

    Raises:
        ConfigError: it is, or holds, an input, it lies in one that is an output of another stage, or no earlier run has
            written what is there.
        CapnetError: another account has, and this one may not remove it.
    """
    target = path.resolve()
    for key, source in inputs.items():
        location = source.resolve()
        if location == target or target in location.parents or (key != "data" and location in target.parents):
            raise _taken(f"the output would take the place of input {key} ({source})", path)
    if target in (Path.cwd(), *Path.cwd().parents) or path.name in ("", ".."):
        raise _taken("the output would take the place of the folder that the command runs in", path)
    _check_removable(path)
    if path.exists() and path.is_dir() == is_file:
        raise _taken(f"the output is a {'file' if is_file else 'folder'}, and what is there is none", path)
    if path.is_file() and path.stat().st_size:
        with open(path, "rb") as file:
            if EARLIER_FILE not in file.read(4096):
                raise _taken("the output would take the place of another file", path)
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in EARLIER):
        raise _taken("the output would take the place of a folder with other files", path)


def _check_removable(path: Path) -> None:
    """Raise CapnetError where what is there cannot be replaced, before the work is done."""
    if _is_mounted(path):
        what = "the output would take the place of a volume that is mounted here, which nothing can"
        raise CapnetError(what, str(path), "mount the folder above it, or name an output inside the volume")
    if os.path.exists(path.parent) and os.statvfs(path.parent).f_flag & os.ST_RDONLY:  # prepare says so
        return
    inner = (Path(above, name) for above, names, _ in os.walk(path) for name in names)
    for folder in (path, *inner):
        if not folder.is_dir() or folder.is_symlink():
            continue
        is_listed = os.access(folder, os.R_OK | os.X_OK)
        if not is_listed or (os.listdir(folder) and not os.access(folder, os.W_OK)):
            what = "the output would take the place of a folder that this account may not remove"
            todo = "let its owner remove it, or give it to this account (chown -R)"
            raise CapnetError(what, str(folder), todo)


def _is_mounted(path: Path) -> bool:
    """Whether a volume is mounted at ``path`` itself, also one of the same disk, which os.path.ismount does not see."""
    location = os.fsencode(path.parent.resolve() / path.name)
    for letter in (b"\\", b" ", b"\t", b"\n"):
        location = location.replace(letter, b"\\%03o" % ord(letter))
    try:
        mounts = MOUNTS.read_bytes().splitlines()
    except OSError:  # not on Linux
        return False
    return any(mount.split()[4] == location for mount in mounts)


def _taken(what: str, path: Path) -> ConfigError:
    return ConfigError(what, str(path), "name a new one, or one that an earlier run has written")


def prepare(path: Path) -> None:
    """Remove what is at ``path`` and what killed runs left beside it; its folder must be one that can be written to.

    Raises:
        CapnetError: it cannot be written to.
    """
    with machine_faults(path.parent, "no output can be written here"):
        remove(path)
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        check_writable(path.parent)
        _sweep(path)


def publish(temporary: Mapping[str, Path], targets: Mapping[str, Path]) -> None:
    """Put every output that was written in the place of the old one; what it replaces is then at the temporary path."""
    for key, path in targets.items():
        if temporary[key].exists():
            _exchange(temporary[key], path)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """An empty folder of this process alone next to ``path``, removed at the end, as are those of killed processes.

    Args:
        path: what is made of its content.
    """
    temporary = temporary_path(path, 0)
    remove(temporary)  # a container's process may have the number of one that was killed
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(temporary)
    temporary.mkdir()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def all_or_nothing(out: Path, content: str) -> Iterator[Path]:
    """An empty folder next to ``out`` that becomes ``out`` at the end; after an error or Ctrl-C it is gone and ``out``
    untouched.

    Args:
        out: the folder that is to be.
        content: what lies in it, for the message.

    Raises:
        DataError: ``out`` is a file or has something in it.
        CapnetError: it cannot be written, or has no room.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "the folder is not empty" if out.is_dir() else "there is a file of this name"
        todo = "choose another folder with --out, or move what is there away"
        raise DataError(f"{what}; {content} never overwrite anything", str(out), todo)
    out = out.resolve()
    with machine_faults(out, f"the {content} cannot be written"), temporary_folder(out) as temporary:
        yield temporary
        if out.is_dir():
            out.rmdir()
        os.replace(temporary, out)


def _exchange(new: Path, path: Path) -> None:
    """Put ``new`` in the place of ``path``; a folder there changes places with it, in one step where the system can."""
    while True:
        try:
            if not os.path.lexists(path) or (not new.is_dir() and not path.is_dir()):
                os.replace(new, path)
            elif not _exchanged(new, path):
                _replace_folder(new, path)
            return
        except OSError as error:
            is_race = error.errno in RACES and new.exists()
            if not is_race or (new.is_file() and path.is_file()):  # some file systems put no file in another's place
                raise


def _replace_folder(new: Path, path: Path) -> None:
    """Put ``new`` in the place of ``path``, which gets another name first: on a network file system no folder can be
    removed in which a reader has a file open. Where it cannot be replaced, it stays; what cannot be removed goes with a
    later run.
    """
    names = (temporary_path(path, number) for number in count(1))
    aside = next(name for name in names if not os.path.lexists(name))
    try:
        os.replace(path, aside)
    except OSError as error:
        if error.errno != errno.EXDEV:  # overlayfs renames no folder of a container's image, and removes it
            raise
        remove(path)
    try:
        os.replace(new, path)
    except OSError as error:
        with suppress(OSError):  # another run has published in between
            os.rename(aside, path)
        if os.path.lexists(path) or not os.path.lexists(aside) or error.errno in RACES:
            raise
        what = f"the output cannot be put in its place, nor the old one back: {error.strerror}"
        todo = f"the old output is here: rename it to {path.name} before the next run, which removes it"
        raise CapnetError(what, str(aside), todo) from error
    finally:
        if os.path.lexists(path):
            with suppress(OSError):
                remove(aside)


def _exchanged(new: Path, path: Path) -> bool:
    """False where that is not possible: on another system than Linux, on some network file systems."""
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if function is None:
        return False
    if function(HERE, os.fsencode(new), HERE, os.fsencode(path), EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        raise FileNotFoundError(number, os.strerror(number), str(path))
    return False


def _sweep(temporary: Path) -> None:
    """Remove temporary outputs of the same name whose process, on this machine, is gone."""
    head, _, rank_and_end = temporary.name.partition(f".{host()}.{os.getpid()}.")
    end = rank_and_end.partition(".")[2]
    form = re.compile(rf"{re.escape(head)}\.{re.escape(host())}\.(\d+)\.\d+\.{re.escape(end)}")
    sweep(temporary.parent, form)
