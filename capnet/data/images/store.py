"""The feature store: what a frozen tower makes of an image, in 16 bits, by the image's sha256.

A folder for each tower, transform and precision; in it segments, Arrow IPC files that are written once and renamed into
place. A row of a segment is an image's sha256, a checksum and its numbers. So several processes add to a folder without
waiting for each other, one that is killed loses the segment that it was about to write, and a damaged row is a missing
one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import mmap
import os
import re
import resource
import time
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from capnet.contracts import SCHEMA, replacing
from capnet.data.images.stored_features import StoredFeatures, StoredViews
from capnet.machine_faults import check_room
from capnet.state import state_dir

SEGMENT_BYTES = 64 * 2**20
SEGMENT_SECONDS = 60.0  # of work that a killed process loses at most
ROOM = "make room, or set CAPNET_STATE to a folder with more; fewer views (tte.views) take less"
# names of its files, earlier versions' among them: the state folder may be one that holds others' files, such as
# 0.arrow and .copy.tmp
OWN_NAME = r"(?:[0-9a-f]{32}\.arrow|[0-9a-f]{64}\.safetensors)"
OWN = re.compile(rf"{OWN_NAME}|\.{OWN_NAME}\..+\.tmp")
ABANDONED_SECONDS = 3600.0  # a temporary file that is older has no writer
METADATA = b"capnet"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segment:
    """A file of the store: ``hashes`` of its images, ``checks`` uint32 [row] and ``features`` float16 [row, ...].

    Its map holds a shared lock on the file; who removes files takes an exclusive one.
    """

    path: Path
    hashes: pa.Array
    checks: np.ndarray
    features: np.ndarray
    mapped: mmap.mmap

    def damaged(self, rows: np.ndarray) -> list[int]:
        """Those of ``rows``, int [row], that are no longer what was written."""
        names = self.hashes.take(pa.array(rows)).to_pylist()
        bad = [
            row
            for row, name in zip(rows.tolist(), names, strict=True)
            if _checksum(name, self.features[row]) != int(self.checks[row]) or not np.isfinite(self.features[row]).all()
        ]
        self.mapped.madvise(mmap.MADV_DONTNEED)
        return bad


class FeatureStore:
    """The rows of one tower, transform and precision, which ``key`` stands for, with ``views`` of each image."""

    def __init__(self, key: str, views: int) -> None:
        self.folder = state_dir("features") / key
        self.folder.mkdir(exist_ok=True)
        paths = sorted(self.folder.glob("*.arrow"))
        _allow_open_files(2 * len(paths) + 256)
        self._views = views
        self._segments = [segment for path in paths if (segment := _open(path, views)) is not None]
        self._damaged: set[int] = set()  # positions in the segments' rows, one segment after the other

    def missing(self, hashes: Sequence[str]) -> list[int]:
        """Positions in ``hashes`` of images that the store lacks, or has only damaged; of equal hashes the first."""
        while damaged := self._find_damaged(self._locate(hashes)):
            logger.warning("%d damaged rows of the feature store are passed over", len(damaged))
            self._damaged |= damaged
        absent: dict[str, int] = {}
        for position in np.flatnonzero(self._locate(hashes) < 0).tolist():
            absent.setdefault(hashes[position], position)
        return list(absent.values())

    def fill(self, hashes: Sequence[str], features: Iterable[np.ndarray]) -> None:
        """Add features as they come, a segment at a time.

        Args:
            hashes: sha256 of the images.
            features: one float16 [view, ...] an image, in the order of ``hashes``.

        Raises:
            CapnetError: the disk has too little room for all of them.
        """
        waiting: list[np.ndarray] = []
        done, started = 0, time.monotonic()
        try:
            for item in features:
                if not done and not waiting:
                    check_room(self.folder, len(hashes) * item.nbytes, ROOM)
                waiting.append(item)
                if len(waiting) * item.nbytes >= SEGMENT_BYTES or time.monotonic() - started > SEGMENT_SECONDS:
                    self._add(hashes[done : done + len(waiting)], waiting)
                    done, started, waiting = done + len(waiting), time.monotonic(), []
        finally:  # also what came before an image that cannot be used
            if waiting:
                self._add(hashes[done : done + len(waiting)], waiting)

    def read(self, hashes: Sequence[str]) -> StoredFeatures:
        """The features of images that are not ``missing``; their segments count as used now."""
        positions = self._locate(hashes)
        assert (positions >= 0).all()
        lengths = np.array([len(segment.hashes) for segment in self._segments], dtype=np.int64)
        ends = np.cumsum(lengths)
        numbers = np.searchsorted(ends, positions, side="right")
        used, position = np.unique(numbers, return_inverse=True)
        segments = [self._segments[number] for number in used]
        for segment in segments:
            # where somebody emptied the state folder, or another account owns it, the map is still good
            with suppress(OSError):
                os.utime(segment.path)
        rows = positions - (ends - lengths)[numbers]
        return StoredFeatures([StoredViews([(item.features, item.mapped) for item in segments], position, rows)])

    def _locate(self, hashes: Sequence[str]) -> np.ndarray:
        """Position int64 [image] among the rows of all segments; -1 where an image is not in the store."""
        if not self._segments:
            return np.full(len(hashes), -1, dtype=np.int64)
        known = pa.chunked_array([segment.hashes for segment in self._segments]).combine_chunks()
        if self._damaged:
            mask = np.zeros(len(known), dtype=bool)
            mask[list(self._damaged)] = True
            known = pc.if_else(pa.array(mask), None, known)
        positions = pc.index_in(pa.array(hashes, pa.string()), value_set=known, skip_nulls=True)
        return positions.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    def _find_damaged(self, positions: np.ndarray) -> set[int]:
        damaged, start = set(), 0
        for segment in self._segments:
            end = start + len(segment.hashes)
            rows = np.unique(positions[(positions >= start) & (positions < end)]) - start
            damaged |= {start + row for row in segment.damaged(rows)}
            start = end
        return damaged

    def _add(self, hashes: Sequence[str], features: Sequence[np.ndarray]) -> None:
        name = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:32]
        path = self.folder / f"{name}.arrow"  # the same rows of two processes are one file
        write_segment(path, hashes, np.stack(features))
        segment = _open(path, self._views)
        if segment is None:
            raise OSError(f"{path} cannot be read back")
        self._segments.append(segment)


def write_segment(path: Path, hashes: Sequence[str], features: np.ndarray) -> None:
    """Write an Arrow IPC file of one record batch: sha256, checksum and features.

    Args:
        path: appears once the file is whole.
        hashes: sha256 of the images, [row].
        features: float16 [row, view, ...].
    """
    flat = features.reshape(len(features), -1)
    columns = {
        "sha256": pa.array(hashes, pa.string()),
        "check": pa.array([_checksum(name, row) for name, row in zip(hashes, features, strict=True)], pa.uint32()),
        "features": pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1]),
    }
    about = json.dumps({"schema": SCHEMA, "shape": features.shape[1:]})
    batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({METADATA: about.encode()})
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as file,
    ):
        file.write_batch(batch)


def trim(limit: int) -> None:
    """Remove the longest unused files until the store has at most ``limit`` bytes. Files that a process has open stay,
    and so do those that are not the store's.
    """
    files = list[tuple[os.stat_result, Path]]()
    for folder, _, names in os.walk(state_dir("features")):
        for path in (Path(folder, name) for name in names if OWN.fullmatch(name)):
            with suppress(FileNotFoundError):  # another process has renamed or removed it meanwhile
                files.append((path.stat(), path))
    total = sum(state.st_size for state, _ in files)
    for state, path in sorted(files, key=lambda item: item[0].st_mtime_ns):
        abandoned = path.suffix == ".tmp" and time.time() - state.st_mtime > ABANDONED_SECONDS
        if abandoned or (total > limit and path.suffix != ".tmp"):
            total -= state.st_size if _remove(path) else 0


def _remove(path: Path) -> bool:
    """Whether the file is gone: not where a process reads it."""
    try:
        with open(path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _open(path: Path, views: int) -> Segment | None:
    """A segment; None where its file is gone, or damaged: then it is removed."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # keeps the file open, and so the lock
        with pa.ipc.open_file(pa.py_buffer(mapped)) as reader:
            batch = reader.get_batch(0)
        batch.validate(full=True)
        about = json.loads(batch.schema.metadata[METADATA])
        features = batch["features"].flatten().to_numpy().reshape(batch.num_rows, *about["shape"])
        if about["schema"] != SCHEMA or features.dtype != np.float16 or features.shape[1] != views:
            raise ValueError("another program wrote it")
        return Segment(path, batch["sha256"], batch["check"].to_numpy(), features, mapped)
    except FileNotFoundError:
        return None
    except (
        pa.ArrowException,
        RuntimeError,
        ArithmeticError,
        LookupError,
        AttributeError,
        ValueError,
        TypeError,
    ) as error:
        logger.warning("a damaged file of the feature store is removed: %s: %s", path, error)
        path.unlink(missing_ok=True)
        return None


def _checksum(name: str, features: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(features).data.cast("B"), zlib.crc32(name.encode()))


def _allow_open_files(count: int) -> None:
    """Raise this process's limit of open files as far as it may: every segment that is mapped is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if allowed > soft >= 0:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
