"""Files between stages that were damaged, cut, edited or swapped: the next stage names the file, a cache is made
again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from unit.conftest import _make as make_outputs
from unit.measured import measured

from capnet.config import Runtime
from capnet.contracts import (
    MANIFEST_COLUMNS,
    PREDICTION_COLUMNS,
    label_matrix,
    read_predictions,
    read_split,
    write_predictions,
    write_split,
)
from capnet.errors import CapnetError, ContractError
from capnet.registry.candidate import read_candidate
from capnet.runtime import prepare
from capnet.serving.engine import load_served

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "outputs"
    make_outputs(folder)
    return folder


@pytest.fixture
def outputs(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    return Path(shutil.copytree(whole, tmp_path / "outputs"))


def read_all(outputs: Path) -> None:
    """What register, evaluate and predict read."""
    from capnet.model.folder import load_model
    from capnet.promotion.scores import gate_scores

    paths = [outputs / name for name in ("split", "validation", "model", "evaluation")]
    candidate = read_candidate(*paths)
    label_matrix(gate_scores(paths[0], paths[3], candidate.classes, "").test["labels"], len(candidate.classes))
    load_model(paths[2], prepare(Runtime(threads=1)))
    load_served(paths[2], paths[3] / "thresholds.json", Runtime(threads=1))


JSON = ("split/classes.json", "model/classes.json", "model/config.json", "evaluation/thresholds.json")
JSON += ("evaluation/evaluation.json", "validation/validation.json")
TABLES = ("split/split.parquet", "evaluation/predictions.parquet")
TENSORS = ("model/model.safetensors", "model/graph.safetensors")
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "another file": lambda data: b"<html>not found</html>",
    "its start is damaged": lambda data: b"\xff" * 16 + data[16:],
}


def edited(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(change(json.loads(data))).encode()


EDITS: dict[str, Callable[[bytes], bytes]] = {
    "no schema": edited(lambda content: {name: value for name, value in content.items() if name != "schema"}),
    "a schema of words": edited(lambda content: content | {"schema": "one"}),
    "a schema that is a list": edited(lambda content: content | {"schema": [1]}),
    "a schema of the future": edited(lambda content: content | {"schema": 99}),
    "a list": edited(lambda content: [content]),
    "null": edited(lambda content: None),
    "NaN": lambda data: data.replace(b'"schema": 1', b'"schema": 1, "x": NaN'),
    "an infinity": lambda data: data.replace(b'"schema": 1', b'"schema": 1, "x": -Infinity'),
    "5,000 digits": lambda data: data.replace(b'"schema": 1', b'"schema": 1, "x": ' + b"9" * 5000),
    "nested deep": lambda data: data.replace(b'"schema": 1', b'"x": ' + b"[" * 100_000 + b"]" * 100_000),
    "half a letter": lambda data: data.replace(b'"schema": 1', b'"schema": 1, "x": "\\ud800"'),
    "no UTF-8": lambda data: data.replace(b'"schema"', b'"\xff": 1, "schema"'),
}


@pytest.mark.parametrize("file", [*JSON, *TABLES, *TENSORS])
def test_bytes_that_are_no_such_file_are_a_contract_error_that_names_it(outputs: Path, file: str) -> None:
    for name, damage in BYTES.items():
        refused(outputs, file, damage, name)


@pytest.mark.parametrize("file", JSON)
def test_json_that_no_stage_writes_is_a_contract_error_that_names_the_file(outputs: Path, file: str) -> None:
    for name, damage in EDITS.items():
        refused(outputs, file, damage, name)


@pytest.mark.parametrize("file", JSON)
def test_any_part_of_json_that_is_missing_or_of_another_type_is_no_traceback(outputs: Path, file: str) -> None:
    """Parts that nothing reads may be missing."""
    content = json.loads((outputs / file).read_text())
    for key in content:
        for value in (None, [], {}, "x", -1, [[1]]):
            path = outputs / file
            before = path.read_bytes()
            path.write_text(json.dumps(content | {key: value}))
            measured(outputs, file)
            with suppress(CapnetError):
                read_all(outputs)
            path.write_bytes(before)


@pytest.mark.parametrize("file", ["model/config.json", "evaluation/thresholds.json"])
def test_what_serves_names_the_damaged_file_itself(outputs: Path, file: str) -> None:
    """Of a registered version nothing but this is read."""
    path = outputs / file
    before = json.loads(path.read_text())
    edits = [change(path.read_bytes()) for change in EDITS.values()]
    if file.endswith("config.json"):
        backbone = before["backbone"]
        parts = [{}] + [{key: backbone[key] for key in backbone if key != name} for name in ("name", "pretrained")]
        edits += [json.dumps(before | {"backbone": part}).encode() for part in parts]
    if file.endswith("thresholds.json"):
        needed = ("class_fingerprint", "classes", "calibration", "views")
        values = (None, [], {}, "x", -1, [[1]])
        edits += [json.dumps(before | {key: value}).encode() for key in needed for value in values]
    for content in edits:
        path.write_bytes(content)
        with pytest.raises(ContractError) as caught:
            load_served(outputs / "model", outputs / "evaluation/thresholds.json", Runtime(threads=1))
        assert str(outputs) in str(caught.value), content[:200]


def refused(outputs: Path, file: str, damage: Callable[[bytes], bytes], name: str) -> None:
    path = outputs / file
    before = path.read_bytes()
    path.write_bytes(damage(before))
    assert path.read_bytes() != before, name
    measured(outputs, file)
    with pytest.raises(ContractError) as caught:
        read_all(outputs)
    text = str(caught.value)
    assert str(path) in text, (name, text)
    assert "to do: " in text
    assert len(text) < 2000
    path.write_bytes(before)


def column(name: str, values: Callable[[list], Any], kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(
        table.column_names.index(name), name, pa.array(values(table[name].to_pylist()), kind)
    )


TABLE_EDITS: dict[str, tuple[str, Callable[[pa.Table], pa.Table]]] = {
    "no column": (TABLES[0], lambda table: table.drop_columns(["labels"])),
    "no schema": (TABLES[0], lambda table: table.replace_schema_metadata({})),
    "a schema of words": (TABLES[0], lambda table: table.replace_schema_metadata({"capnet_schema": "one"})),
    "a schema that is no text": (TABLES[0], lambda table: table.replace_schema_metadata({b"capnet_schema": b"\xff"})),
    "labels of text": (TABLES[0], column("labels", lambda values: [["cat"]] * len(values))),
    "labels beyond all classes": (
        TABLES[0],
        column("labels", lambda values: [[30_000]] * len(values), pa.list_(pa.int16())),
    ),
    "labels below 0": (TABLES[0], column("labels", lambda values: [[-1]] * len(values), pa.list_(pa.int16()))),
    "no labels": (TABLES[0], column("labels", lambda values: [None] * len(values), pa.list_(pa.int16()))),
    "paths of numbers": (TABLES[0], column("path", lambda values: list(range(len(values))))),
    "a split of its own": (TABLES[0], column("split", lambda values: ["mine"] * len(values))),
    "no split": (TABLES[0], column("split", lambda values: [None] * len(values), pa.string())),
    "scores that are NaN": (
        TABLES[1],
        column("scores", lambda values: [[float("nan")] * 4] * len(values), pa.list_(pa.float32())),
    ),
    "scores of other classes": (
        TABLES[1],
        column("scores", lambda values: [[0.5] * 3, *values[1:]], pa.list_(pa.float32())),
    ),
    "scores of text": (TABLES[1], column("scores", lambda values: [["x"]] * len(values))),
    "fewer rows": (TABLES[1], lambda table: table.slice(0, 5)),
}


@pytest.mark.parametrize("name", TABLE_EDITS)
def test_tables_that_no_stage_writes(outputs: Path, name: str) -> None:
    file, change = TABLE_EDITS[name]
    path = outputs / file
    table = pq.read_table(path)
    changed = change(table)
    if "schema" not in name:
        changed = changed.replace_schema_metadata(table.schema.metadata)
    pq.write_table(changed, path)
    with pytest.raises(ContractError) as caught:
        read_all(outputs)
    assert "where: " in str(caught.value)
    if "beyond" not in name:
        assert str(path) in str(caught.value)


TENSOR_EDITS: dict[str, Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = {
    "none": lambda tensors: {},
    "one is missing": lambda tensors: dict(list(tensors.items())[1:]),
    "another name": lambda tensors: {f"x.{name}": tensor for name, tensor in tensors.items()},
    "one more side": lambda tensors: {name: tensor[None].contiguous() for name, tensor in tensors.items()},
    "one row less": lambda tensors: {name: tensor.flatten()[1:].clone() for name, tensor in tensors.items()},
    "whole numbers": lambda tensors: {name: tensor.to(torch.int64) for name, tensor in tensors.items()},
    "NaN": lambda tensors: {name: tensor * float("nan") for name, tensor in tensors.items()},
}
METADATA: dict[str, str] = {
    "none": "{}",
    "no JSON": "{",
    "a list": "[]",
    "null": "null",
    "only the schema": '{"schema": 1}',
    "metadata of text": '{"schema": 1, "metadata": "x"}',
    "a schema of words": '{"schema": "one", "metadata": {}}',
}


ROW = dict.fromkeys(MANIFEST_COLUMNS, "a") | {"labels": [0], "unknown": [1], "width": 3, "height": 2, "split": "train"}
SCORED = dict.fromkeys(PREDICTION_COLUMNS, "a") | {"split": "val", "scores": [0.25, 0.5]}


@pytest.mark.parametrize(
    ("row", "write", "read"), [(ROW, write_split, read_split), (SCORED, write_predictions, read_predictions)]
)
def test_one_wrong_bit_in_a_table_is_a_contract_error_or_another_value(tmp_path, row, write, read) -> None:
    path = tmp_path / "table.parquet"
    write(path, pd.DataFrame([row]))
    whole, refused = path.read_bytes(), []
    tried = range(0, len(whole), 3)
    for at in tried:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            read(path)
        except ContractError as error:
            refused.append(str(error))
    assert len(tried) / 2 < len(refused) < len(tried)
    assert all(str(path) in text for text in refused)


@pytest.mark.parametrize("file", TENSORS)
def test_tensors_that_no_stage_writes(outputs: Path, file: str) -> None:
    from safetensors import safe_open

    path = outputs / file
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(path)
    cases = [(name, change(tensors), metadata) for name, change in TENSOR_EDITS.items()]
    cases += [(name, tensors, {"capnet": text}) for name, text in METADATA.items()]
    for name, changed, about in cases:
        save_file(changed, path, about)
        measured(outputs, file)
        with pytest.raises(ContractError) as caught:
            read_all(outputs)
        assert str(path) in str(caught.value), (name, str(caught.value))


def test_the_undamaged_files_are_read(outputs: Path) -> None:
    read_all(outputs)
    assert len(read_split(outputs / "split/split.parquet")) == 430
