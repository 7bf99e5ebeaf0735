"""The parts of a prediction: files of scores that survive an interruption, in a folder that one process at a time
writes.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from capnet.contracts import remove
from capnet.contracts.files import host, named_faults
from capnet.contracts.parquet import DAMAGED
from capnet.errors import CapnetError
from capnet.machine_faults import refuse_unread
from capnet.serving.output import are_scores

LOCK = "lock"
# what a part holds of each image; scores are null with a fault
PART_SCHEMA = pa.schema([("path", pa.string()), ("fault", pa.string()), ("scores", pa.list_(pa.float32()))])
KEY = b"capnet"  # in the metadata of a part
PART_ROW = 16_384  # most bytes of an image in a part beside its scores: a path and a fault


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
            owner = file.read().strip().replace(" ", " on ", 1)  # the machine may be another, with the same disk
            file.close()
            what = f"another process is writing this file (process {owner or '?'})"
            raise CapnetError(what, str(out), "wait for it, end that process, or give another --out") from None
        except OSError:
            return file
        if os.fstat(file.fileno()).st_nlink:
            file.truncate(0)
            file.write(f"{os.getpid()} {host()}")
            file.flush()
            return file
        file.close()


def write_part(path: Path, key: str, rows: Sequence[tuple[str, str, np.ndarray | None]]) -> None:
    """Write the scores of some images, whole or not at all.

    Args:
        path: of the part.
        key: what the scores depend on.
        rows: path, fault and scores (None with a fault) of each image.
    """
    temporary = path.with_suffix(".tmp")
    frame = pd.DataFrame(rows, columns=PART_SCHEMA.names)
    pq.write_table(pa.Table.from_pandas(frame, PART_SCHEMA.with_metadata({KEY: key})), temporary)
    temporary.replace(path)


def is_part(path: Path, key: str, names: Sequence[str], classes: int) -> bool:
    """Whether a file holds the scores of these images: one that is damaged is written again.

    Args:
        path: of a part, as ``write_part`` writes it.
        key: what the scores depend on.
        names: of its images, in order.
        classes: number of scores of each image without a fault.
    """
    try:
        with pq.ParquetFile(path) as file:
            size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
            most = len(names) * (PART_ROW + 8 * classes) + PART_ROW
            if (file.metadata.metadata or {}).get(KEY) != key.encode():
                return False
            if not file.schema_arrow.equals(PART_SCHEMA) or file.metadata.num_rows != len(names) or size > most:
                return False
            part = file.read()
    except (*DAMAGED, ValueError) as error:
        refuse_unread(error, path)
        return False
    scores, faults = part["scores"], part["fault"].to_pylist()
    if part["path"].to_pylist() != list(names) or None in faults:
        return False
    expected = [None if fault else classes for fault in faults]
    return bool(pc.list_value_length(scores).to_pylist() == expected) and are_scores(pc.list_flatten(scores))
