"""Tables that are small on the disk, or wrong in every row: refused before they take minutes or gigabytes."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.bounded import bounded

from capnet import errors
from capnet.config import Ingest
from capnet.data.annotations import rows
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers.csv import read
from capnet.errors import MOST, DataError

WRONG = {
    "more cells than the header": ("path,labels", "a,b,c"),
    "paths that lead out": ("path,labels", "../x,cat"),
    "one image": ("path,labels", "a.jpg,cat"),
    "splits that are none": ("path,labels,split", "{}.jpg,cat,trian"),
    "a label that is unknown too": ("path,labels,unknown", "{}.jpg,cat,cat"),
}


def write_wrong(folder: Path, name: str, rows: int) -> None:
    header, row = WRONG[name]
    lines = "\n".join(row.replace("{}", str(number)) for number in range(rows))
    (folder / "labels.csv").write_text(f"{header}\n{lines}\n")


def refuse(folder: Path, file: str) -> None:
    raise DataError(problems=read(DataFolder(folder), Ingest(labels=file)).problems)


@pytest.mark.parametrize("name", WRONG)
def test_no_more_problems_are_looked_for_than_anybody_reads(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (errors, rows):
        monkeypatch.setattr(module, "MOST", 2000)
    write_wrong(tmp_path, name, 3000)
    with pytest.raises(DataError) as caught:
        refuse(tmp_path, "labels.csv")
    assert 2000 <= len(caught.value.problems) <= 2010
    assert len(str(caught.value)) < 10_000


@pytest.mark.slow
def test_a_table_that_is_wrong_in_every_row_is_refused_in_bounded_time_and_memory(tmp_path: Path) -> None:
    write_wrong(tmp_path, "splits that are none", MOST + 50_000)
    done = bounded(lambda: refuse(tmp_path, "labels.csv"))
    assert done.is_bounded, done
    assert done.kind == "refused"
    assert done.has_three_parts


def parquet(columns: Callable[[], dict[str, object]], **more: object) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table(columns()), path, compression="zstd", **more)


def repeated(value: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, dtype=np.int32)), pa.array([value]))


def packed(row: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(gzip.compress(b"path,labels\n", 1) + gzip.compress(row * 1000, 9) * 300)


BOMBS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "long paths": (
        "labels.parquet",
        parquet(lambda: {"path": repeated("x" * 2000, 2**20), "labels": repeated("c", 2**20)}),
    ),
    "many rows": (
        "labels.parquet",
        parquet(lambda: {"path": repeated("a.jpg", 2**24), "labels": repeated("c", 2**24)}),
    ),
    "long pages": (
        "labels.parquet",
        parquet(lambda: {"path": ["x" * 100_000] * 8000, "labels": ["c"] * 8000}, use_dictionary=["labels"]),
    ),
    "a long list": (
        "labels.parquet",
        parquet(lambda: {"path": ["a.jpg", "b.jpg"], "labels": [["c"] * 10_000_000, ["d"]]}),
    ),
    "long lines": ("labels.csv.gz", packed(b"x" * 2000 + b",cat\n")),
    "many lines": ("labels.csv.gz", packed(b"a.jpg,cat\n" * 20)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_table_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, name: str) -> None:
    file, write = BOMBS[name]
    write(tmp_path / file)
    assert (tmp_path / file).stat().st_size < 1_000_000
    problems = bounded(lambda: refuse(tmp_path, file))
    assert problems.is_bounded, problems
    assert problems.kind == "refused"
    assert "could fill the memory" in problems.text, problems
    assert problems.has_three_parts


def test_a_table_of_a_usual_size_is_read_however_well_it_is_packed(tmp_path: Path) -> None:
    rows = 20_000
    table = pa.table({"path": [f"{n}.jpg" for n in range(rows)], "labels": repeated("cat", rows)})
    pq.write_table(table, tmp_path / "labels.parquet", compression="zstd")
    assert len(read(DataFolder(tmp_path), Ingest(labels="labels.parquet")).rows) == rows


@pytest.mark.parametrize("file", ["labels.parquet", "labels.csv.gz"])
def test_a_wide_table_of_zeros_is_read(tmp_path: Path, file: str) -> None:
    names, rows = [f"class {number}" for number in range(400)], 1000
    (tmp_path / "classes.csv").write_text("name\n" + "\n".join(names) + "\n")
    path = [f"{number}.jpg" for number in range(rows)]
    if file.endswith("gz"):
        head = ",".join(["path", *names])
        lines = [head, *(",".join([name, *["1"] * (n == 0), *["0"] * (400 - (n == 0))]) for n, name in enumerate(path))]
        (tmp_path / file).write_bytes(gzip.compress("\n".join(lines).encode()))
    else:
        zeros = [1, *[0] * (rows - 1)]
        pq.write_table(pa.table({"path": path} | dict.fromkeys(names, zeros)), tmp_path / file, compression="zstd")
    assert len(read(DataFolder(tmp_path), Ingest(labels=file)).rows) == rows


MANY_COLUMNS = ",".join(f"x{n:x}" for n in range(300_000))
SLOW: dict[str, dict[str, Callable[[], bytes]]] = {
    "labels that no class list has": {
        "labels.csv": lambda: ("path,labels\n" + "".join(f"{n}.jpg,class{n}x\n" for n in range(20_000))).encode(),
        "classes.csv": lambda: ("name\n" + "".join(f"class {n}\n" for n in range(20_000))).encode(),
    },
    "a label of words that are labels": {
        "labels.csv": lambda: b"path,labels\na.jpg," + b"z " * 65_000 + b"\n",
        "classes.csv": lambda: ("name\n" + "".join(f"class {n}\n" for n in range(30_000)) + "z\n").encode(),
    },
    "columns spelled nearly like labels": {
        "labels.csv": lambda: (",".join(f"slebal{n:x}" for n in range(700_000)) + "\na\n").encode(),
    },
    "lines without a cell": {"labels.csv": lambda: b"path,labels\na.jpg,cat\n" + b"\n" * 60_000_000},
    "lines of commas": {"labels.csv": lambda: b"path,labels\na.jpg,cat\n" + b",\n" * 30_000_000},
    "classes without a column": {
        "labels.csv": lambda: ("path,class 0," + MANY_COLUMNS + "\n").encode(),
        "classes.csv": lambda: ("name\n" + "".join(f"class {n}\n" for n in range(30_000))).encode(),
    },
    "classes that columns may be called like": {
        "labels.csv": lambda: ("path,labels," + MANY_COLUMNS + "\na.jpg,fox" + "," * 300_000 + "\n").encode(),
        "classes.csv": lambda: ("name\n" + "".join(f"class {n}\n" for n in range(30_000))).encode(),
    },
    "labels that begin like lists": {
        "labels.csv": lambda: b"path,labels\na.jpg,(" + b" " * 130_000 + b"x\nb.jpg,[" + b":" * 130_000 + b"x\n",
    },
    "a million classes": {
        "labels.csv": lambda: b"path,labels\na.jpg,cat\n",
        "classes.csv": lambda: ("name\ncat\n" + "".join(f"class {n}\n" for n in range(1_000_000))).encode(),
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_what_is_compared_or_passed_over_is_bounded(tmp_path: Path, name: str) -> None:
    for file, make in SLOW[name].items():
        (tmp_path / file).write_bytes(make())
    done = bounded(lambda: refuse(tmp_path, "labels.csv"))
    assert done.kind == "refused", done
    assert done.has_three_parts
    assert done.seconds < 15, done
    assert done.megabytes < 300
