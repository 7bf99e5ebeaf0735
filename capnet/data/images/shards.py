"""Images in tar shards (WebDataset layout): ``shards/train-000000.tar/000000012.jpg`` is a path like any other.

A shard is an uncompressed tar, so an image is a range of its bytes: the headers are read once, images in any order.
The files of a sample share their name up to the first dot (``000000012.jpg``, ``000000012.json``), as WebDataset
readers expect.
"""

from __future__ import annotations

import io
import re
import stat
import tarfile
from collections.abc import Container, Mapping
from functools import lru_cache
from pathlib import Path

MOST_BYTES = 512 * 2**20  # of an image file
ENDING = ".tar"
MOST_HEADER = 2**20  # bytes that tarfile reads at once of an entry that holds a long name, or what else does not fit
LONG_HEADER, MOST_HEADERS = 2**16, 2**24  # bytes: one that no name needs; all such of a shard, all of an entry
MOST_NAMES = 2**27  # bytes of the names of a shard, which are kept
DIGITS = re.compile(rb"(?<!\d)\d{256}")  # before 3.11.10, tarfile reads 60,000 in 14 seconds
MOST_MEMBERS = 1_000_000  # of a shard: they are listed in a minute and 200 MB
MOST_SHARED = 100  # keys of headers that hold for all entries: each entry gets a copy


def file_of(path: str, files: Container[str]) -> str:
    """The one of ``files`` that holds an image: its shard, or the image itself where it lies in none, even if a
    folder above it is called like a shard.
    """
    ends = (match.end() for match in re.finditer(rf"{re.escape(ENDING)}(?=/)", path))
    return next((path[:end] for end in ends if path[:end] in files), path)


def shard_of(path: Path) -> Path | None:
    """The shard that ``path`` lies in; None for a plain file."""
    if f"{ENDING}/" not in path.as_posix():  # parents take 50 microseconds
        return None
    return next((parent for parent in path.parents if parent.suffix == ENDING and parent.is_file()), None)


def read_bytes(path: Path) -> bytes:
    """The bytes of an image, from a file or from a shard.

    Raises:
        OSError: it is not there, is no plain file, or has more than MOST_BYTES.
    """
    shard = shard_of(path)
    if shard is None:
        return _plain(path).read_bytes()
    start, size = _range(shard, path)
    _check_size(size)
    with open(shard, "rb") as file:
        file.seek(start)
        data = file.read(size)
    if len(data) < size:
        raise OSError(f"the shard ends after {len(data)} of {size} bytes of the picture")
    return data


def file_or_bytes(path: Path) -> Path | bytes:
    """What a decoder opens: a plain file itself, or the bytes of an image in a shard."""
    return _plain(path) if shard_of(path) is None else read_bytes(path)


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file without an owner or a time, so that equal content gives equal bytes.

    Args:
        tar: open for writing.
        name: of the member.
        data: its content.
    """
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))


def _plain(path: Path) -> Path:
    """``path`` itself; raises OSError where opening it could wait forever or fill the memory."""
    state = path.stat()
    mode = state.st_mode
    _check_size(state.st_size)
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError("it is a pipe or a device and no file")
    return path


def _check_size(size: int) -> None:
    if not 0 <= size <= MOST_BYTES:
        raise OSError(f"{size:,} bytes: a picture file has at most {MOST_BYTES:,}")


def _range(shard: Path, path: Path) -> tuple[int, int]:
    state = shard.stat()
    member = path.relative_to(shard).as_posix()
    index = _index(shard, state.st_size, state.st_mtime_ns)
    if isinstance(index, str):
        raise OSError(index)
    position = index.get(member)
    if position is None:
        raise FileNotFoundError(2, f"the shard {shard.name} has no {member}", str(path))
    return position


class _Headers(io.BufferedReader):
    """A tar whose headers alone are read. Those that belong to the next entry are read whole, so large ones are
    refused: here, because each version of tarfile reads them by other methods.
    """

    long_headers = of_entry = 0  # bytes

    def read(self, size: int | None = -1, /) -> bytes:
        number = -1 if size is None else size
        if number > LONG_HEADER:
            self.long_headers += number
        self.of_entry += number
        if not 0 <= number <= MOST_HEADER:
            raise tarfile.ReadError(f"a header of {number:,} bytes")
        if max(self.long_headers, self.of_entry) > MOST_HEADERS:
            raise tarfile.ReadError(f"long headers of {max(self.long_headers, self.of_entry):,} bytes together")
        data = super().read(number)
        if DIGITS.search(data):
            raise tarfile.ReadError("a header with a number of hundreds of digits")
        return data


@lru_cache(maxsize=4096)
def _index(shard: Path, size: int, mtime: int) -> Mapping[str, tuple[int, int]] | str:
    """Start and length of every plain file in a shard; what is wrong where it is no uncompressed tar, so that it is not
    listed again for each image. Keyed by size and time of change.
    """
    try:
        with _Headers(io.FileIO(shard)) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return _ranges(tar, file)
    # sizes of 10^30, numbers of 5,000 digits, headers of headers of headers
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:
        return f"not an uncompressed tar file: {error}"


def _ranges(tar: tarfile.TarFile, file: _Headers) -> dict[str, tuple[int, int]]:
    """Start and length by name; a sparse file, which is not stored as it is read, is left out."""
    ranges: dict[str, tuple[int, int]] = {}
    number = names = end = 0
    while (entry := tar.next()) is not None:
        end = tar.offset
        vars(tar)["members"].clear()  # a thousand bytes each
        file.of_entry = 0
        number, names = number + 1, names + len(entry.name)
        if number > MOST_MEMBERS or names > MOST_NAMES:
            raise tarfile.ReadError(f"more than {MOST_MEMBERS:,} entries, or {MOST_NAMES:,} bytes of names")
        if entry.size < 0:  # the next entry would be an earlier one
            raise tarfile.ReadError(f"an entry of {entry.size:,} bytes")
        if len(tar.pax_headers) > MOST_SHARED:
            raise tarfile.ReadError(f"more than {MOST_SHARED} keys of a header for all entries")
        if entry.isreg() and not entry.issparse():
            ranges[entry.name.removeprefix("./")] = (entry.offset_data, entry.size)
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # a header that tarfile cannot read, which it takes for the end
        raise tarfile.ReadError(f"damaged header at byte {end:,}")
    return ranges
