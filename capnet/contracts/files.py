"""Bytes and JSON on disk: hashes, files that are written whole, the schema version."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from capnet.errors import ContractError
from capnet.machine_faults import refuse_unread

MOST_TEXT = 32 * 2**20  # bytes of a stage's JSON or CSV: thirty thousand classes have a fifth of that
MOST_PARTS = 1_000_000  # lists and objects of a stage's JSON: 230 bytes of memory each
HALF_LETTER = re.compile(r"\\u[dD][89a-fA-F]")  # in JSON: half of a pair that stands for one letter
FIRST_NAMESPACE = 0xEFFFFFFC  # of Linux' process namespaces, the machine's own
SCHEMA = 1
AGAIN = "run the stage that writes it again"


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5_file(path: Path) -> str:
    """Hex md5 of a file's bytes: what DVC, S3 and published data sets name a file by, no protection."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def sha256_files(files: Mapping[str, Path]) -> str:
    """Hex sha256 of the sorted (name, sha256) of files, given by name."""
    hashes = sorted((name, sha256_file(path)) for name, path in files.items())
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def code_hash(folder: Path, rooms: Iterable[str]) -> str:
    """Hex sha256 of the code in some rooms of ``folder``: what it has left unfinished, other code begins anew."""
    paths = (path for room in rooms for path in (folder / room).rglob("*.py"))
    # a link to nothing is how Emacs marks a file that it has open
    return sha256_files({path.relative_to(folder).as_posix(): path for path in paths if path.is_file()})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file in the folder of ``path``, renamed to ``path`` at the end: no reader ever sees half a file.
    Temporary files that killed processes left are removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{host()}.{os.getpid()}.tmp")
    sweep(path.parent, re.compile(rf"\..+\.{re.escape(host())}\.(\d+)\.tmp"))
    try:
        with named_faults(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def named_faults(path: Path) -> Iterator[None]:
    """An OSError inside that names no file, such as that of a full disk, names ``path``, the file being written. Its
    words stay: pyarrow gives no number where a file cannot be closed, as on a full network file system.
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:
            error.strerror = str(error)
        if error.filename is None:
            error.filename = str(path)
        raise


def sweep(folder: Path, form: re.Pattern[str]) -> None:
    """Remove what processes of this machine left that run no more; the group of ``form`` is the process's id. What
    another account left may stay until that one comes, what a reader still has open on a network file system until it
    is closed.
    """
    for path in folder.iterdir():
        match = form.fullmatch(path.name)
        if match and not is_alive(int(match[1])):
            with suppress(OSError):
                remove(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def host() -> str:
    """This machine's name, as a part of a file's; with the number of its process namespace in a container, which may
    have the machine's name and does not see its processes.
    """
    name = re.sub(r"[^\w-]", "-", os.uname().nodename)
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not on Linux
        return name
    return name if namespace == FIRST_NAMESPACE else f"{name}-{namespace}"


def is_alive(process: int) -> bool:
    """Whether this machine has a process of that id."""
    try:
        os.kill(process, 0)
    except OSError as error:  # PermissionError: it lives, under another account
        return not isinstance(error, ProcessLookupError)
    return True


def replace_file(path: Path, data: bytes | str) -> None:
    """Write a whole file; see replacing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, so that equal content gives equal bytes; NaN is refused."""
    replace_file(path, json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; raises ContractError where the file is missing or damaged, holds NaN or infinity, or has a part
    twice.
    """
    check_exists(path)
    with reading(path):
        check_small(path)
        text = path.read_text(encoding="utf-8")
        if text.count("{") + text.count("[") > MOST_PARTS:
            raise ValueError(f"more than {MOST_PARTS:,} lists and objects")
        content = json.loads(text, parse_constant=_no_number, object_pairs_hook=_without_repetition)
        if HALF_LETTER.search(text):
            json.dumps(content, ensure_ascii=False).encode()  # raises where a half stands alone: no file can hold it
        return content


def read_document(path: Path) -> dict[str, Any]:
    """``read_json`` of a mapping of this program's schema version; raises ContractError where it is anything else."""
    content: dict[str, Any] = read_json(path)
    check_schema(content, path)
    return content


def check_small(path: Path) -> None:
    """Raise ValueError where a file of text has more bytes than a stage writes."""
    size = path.stat().st_size
    if size > MOST_TEXT:
        raise ValueError(f"{size:,} bytes, at most {MOST_TEXT:,} are read")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        times = Counter(name for name, _ in pairs)
        raise ValueError(f"part {next(name for name in times if times[name] > 1)!r} is there twice")
    return content


def _no_number(name: str) -> Any:
    raise ValueError(f"not valid JSON: {name} is no number")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever goes wrong inside because a file is not what this program writes is a ContractError that names it, and a
    CapnetError where the machine does not read it.

    Args:
        path: the file, or the folder of files, that is read inside.
    """
    try:
        yield
    except json.JSONDecodeError as error:
        raise ContractError(f"not valid JSON: {error}", str(path), AGAIN) from None
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        csv.Error,
    ) as error:
        refuse_unread(error, path)
        reason = f"nothing under {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:300]
        what = f"damaged, or not what this version writes: {reason or type(error).__name__}"
        raise ContractError(what, str(path), AGAIN) from error


def check_exists(path: Path) -> None:
    """Raise ContractError where the file is missing."""
    if not path.is_file():
        raise ContractError("a stage's output is missing", str(path), "run the stage that writes it, or `dvc repro`")


def check_schema(content: Any, path: Path) -> None:
    """Raise ContractError unless ``content`` is a mapping of this program's schema version."""
    version = content.get("schema") if isinstance(content, Mapping) else None
    if isinstance(version, bool) or str(version) != str(SCHEMA):
        raise ContractError(f"schema version {version!r}, this program reads {SCHEMA}", str(path), AGAIN)


def tree_hash(root: Path) -> str:
    """DVC's md5 of a folder ('....dir'): of the JSON list of (md5, relative path), sorted by path."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    entries = [{"md5": md5_file(root / path), "relpath": path} for path in paths]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
