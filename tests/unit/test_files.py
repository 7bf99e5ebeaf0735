"""Files between stages that are small on disk and large in memory."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from faults.bounded import bounded

from capnet.contracts import code_hash, csv_text, read_csv_rows, read_json, read_predictions
from capnet.contracts.tensors import read_tensors, write_tensors
from capnet.errors import CapnetError, ContractError


@pytest.mark.parametrize("part", ['{"":0}', "[]", "{}"])
def test_millions_of_lists_or_objects_are_refused_before_they_are_made(part: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" + f"{part}," * 4_500_000 + "0]")
    outcome = bounded(lambda: read_json(path))
    assert outcome.kind == "refused"
    assert "more than 1,000,000 lists and objects" in outcome.text
    assert outcome.megabytes < 200


@pytest.mark.slow
def test_a_million_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("[" + "[1.5,2]," * 500_000 + "0]")
    assert len(read_json(path)) == 500_001


def test_the_last_of_many_parts_that_is_there_twice_is_named_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("{" + "".join(f'"{number}": 0, ' for number in range(100_000)) + '"99999": 0}')
    outcome = bounded(lambda: read_json(path))
    assert outcome.kind == "refused"
    assert "part '99999' is there twice" in outcome.text
    assert outcome.seconds < 5


def test_a_name_with_a_line_end_begins_no_row() -> None:
    rows = [["one\rtwo", "a"], ["three\nfour", "b\r\n"], ["five", 'six "7"']]
    text = csv_text(("path", "class"), rows)
    assert list(csv.reader(io.StringIO(text, newline=""))) == [["path", "class"], *rows]
    assert text.endswith('\nfive,"six ""7"""\n')


def test_tensors_that_no_memory_can_map_are_a_damaged_file_that_is_named(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    head = json.dumps({"a": {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}}).encode()
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + 2**40)
    with pytest.raises(ContractError, match=r"graph\.safetensors"):
        read_tensors(path)


def test_a_file_that_is_written_over_does_not_change_tensors_that_were_read(tmp_path: Path) -> None:
    """As `cp` and `rsync --inplace` do with the model folder of a running server."""
    path, other = tmp_path / "file.safetensors", tmp_path / "other.safetensors"
    write_tensors(path, {"weight": torch.zeros(1000, 10)}, {})
    write_tensors(other, {"weight": torch.ones(1000, 10)}, {})
    tensors, _ = read_tensors(path)
    with open(path, "r+b") as file:
        file.write(other.read_bytes())
    assert not tensors["weight"].any()


def test_columns_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    path, rows = tmp_path / "predictions.parquet", 2000
    columns = {"image_id": list(map(str, range(rows))), "slice": [""] * rows, "variant": ["capnet"] * rows}
    columns |= {"split": ["test"] * rows, "scores": pa.array([[0.5]] * rows, pa.list_(pa.float32()))}
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), ["x" * 500_000])  # a gigabyte, written out
    table = pa.table(columns | {"more": long})
    pq.write_table(table.replace_schema_metadata({"capnet_schema": "1"}), path)
    assert len(read_predictions(path)) == rows


def test_a_link_to_nothing_is_no_code(tmp_path: Path) -> None:
    """Emacs has .#loss.py, a link to user@host.1234, while loss.py is changed in it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "loss.py").write_text("1")
    before = code_hash(tmp_path, ["model"])
    (tmp_path / "model" / ".#loss.py").symlink_to("user@host.1234:1")
    assert code_hash(tmp_path, ["model"]) == before
    (tmp_path / "model" / "loss.py").write_text("2")
    assert code_hash(tmp_path, ["model"]) != before


@pytest.mark.parametrize("read", [read_json, read_tensors, lambda path: read_csv_rows(path, ["a"])])
def test_a_file_that_the_disk_does_not_give_is_not_called_damaged(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.symlink_to("/proc/self/mem")  # whose first byte is never there
    with pytest.raises(CapnetError) as caught:
        read(path)
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.where) == (1, str(path))
    assert problem.what == "it cannot be read: Input/output error"
    assert "stage" not in problem.todo


def test_a_table_that_this_account_may_not_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "split.parquet").touch()

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, f"Failed to open local file {path}. Detail: {os.strerror(errno.EACCES)}")

    monkeypatch.setattr(pq, "read_schema", refuse)
    with pytest.raises(CapnetError) as caught:
        read_predictions(tmp_path / "split.parquet")
    (problem,) = caught.value.problems
    assert (caught.value.exit_code, problem.what) == (1, "it cannot be read: Permission denied")
    assert "let this account read it" in problem.todo
