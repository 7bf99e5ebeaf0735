"""Files between stages of which one part is another: every value of JSON, cells of tables, and files that are small on
the disk and large in memory.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.bounded import bounded
from unit.conftest import _make as make_outputs
from unit.measured import measured

from capnet.config import parse
from capnet.contracts import read_classes, read_csv_rows, read_json, read_split, read_tensors
from capnet.contracts.dvc_file import dvc_output
from capnet.contracts.stage_json import read_evaluation
from capnet.errors import CapnetError, ConfigError, ContractError
from capnet.promotion.policy import Policy, read_policy
from capnet.registry.candidate import read_candidate
from capnet.registry.cards import card_texts, description
from capnet.registry.figures import curves, figures, flat_params

pytestmark = pytest.mark.slow
SHARE = 1 if os.environ.get("FAULTS") == "all" else 3  # of the values in each place; make test-faults sets it
FOLDERS = ("split", "validation", "model", "evaluation")
GONE = object()
VALUES = (GONE, None, True, [], {}, "x", -1, 10**400, [None])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "outputs"
    make_outputs(folder, weighted={"class_head": 0.5, "linear_probe": 0.5})
    return folder


@pytest.fixture
def outputs(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "outputs"))


def write_pages(outputs: Path) -> None:
    """All that register makes of the stages' files before it asks a server."""
    candidate = read_candidate(*(outputs / name for name in FOLDERS))
    figures(candidate), list(curves(candidate)), description(candidate), flat_params(candidate.config)
    card_texts(candidate, "packed", "", "", "", Policy())


def leaves(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    pairs = (
        content.items() if isinstance(content, dict) else enumerate(content[:1] if isinstance(content, list) else ())
    )
    for key, value in pairs:
        yield from leaves(value, (*path, key))


def edited(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    node = content
    for key in path[:-1]:
        node = node[key]
    if value is GONE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return content


JSON = ("model/config.json", "evaluation/thresholds.json", "evaluation/evaluation.json", "validation/validation.json")


@pytest.mark.parametrize("file", JSON)
def test_any_value_of_a_stages_json_is_read_or_refused(outputs: Path, file: str) -> None:
    path = outputs / file
    if file.startswith("validation"):
        path.write_text('{"schema": 1, "checks": [{"name": "a", "success": true, "severity": "critical"}]}')
    content, failed = json.loads(path.read_text()), []
    for number, keys in enumerate(list(leaves(content))[1:]):
        if len(keys) > 3:
            continue
        for value in VALUES[number % SHARE :: SHARE]:
            path.write_text(json.dumps(edited(content, keys, value)))
            measured(outputs, file)
            try:
                write_pages(outputs)
            except CapnetError:
                pass
            except Exception as error:
                failed.append((keys, value, repr(error)))
    assert not failed, failed[:10]


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("evaluation/thresholds.json", ("classes", 0, "threshold"), 1.5),
        ("evaluation/thresholds.json", ("classes", 0, "threshold"), True),
        ("evaluation/thresholds.json", ("classes", 0, "threshold"), "0.5"),
        ("evaluation/thresholds.json", ("classes", 0, "name"), "cat"),
        ("evaluation/thresholds.json", ("calibration", "temperature", 0), -1),
        ("evaluation/evaluation.json", ("capnet", "mAP"), "0.9"),
        ("model/classes.json", ("classes", 0, "critical"), True),
        ("model/classes.json", ("classes", 0, "bucket"), "tail"),
        ("model/classes.json", ("classes", 0, "slug"), "../../x"),
        ("model/classes.json", ("classes", 0, "train_count"), -5),
        ("model/config.json", ("blend", "gains"), []),
    ],
)
def test_an_edit_that_would_change_results_is_refused(
    outputs: Path, file: str, keys: tuple[Any, ...], value: Any
) -> None:
    path = outputs / file
    path.write_text(json.dumps(edited(json.loads(path.read_text()), keys, value)))
    measured(outputs, file)
    with pytest.raises(ContractError) as caught:
        write_pages(outputs)
    assert str(path) in str(caught.value)


def test_a_part_that_is_there_twice_and_a_class_that_is_are_refused(outputs: Path) -> None:
    path = outputs / "evaluation/evaluation.json"
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 1, "capnet": {"mAP": 0.99}'))
    with pytest.raises(ContractError, match="'capnet' is there twice"):
        read_evaluation(path.parent)
    path = outputs / "model/classes.json"
    content = json.loads(path.read_text())
    content["classes"][1]["name"] = content["classes"][0]["name"]
    path.write_text(json.dumps(content))
    with pytest.raises(ContractError, match="is there twice"):
        read_classes(path)


@pytest.mark.parametrize("epoch", ["x", "inf", "nan", "0", ""])
def test_an_epoch_that_is_no_number_is_refused(outputs: Path, epoch: str) -> None:
    path = outputs / "model/history.csv"
    path.write_text(path.read_text().replace("\n1,", f"\n{epoch},", 1))
    measured(outputs)
    with pytest.raises(ContractError, match=r"history\.csv"):
        write_pages(outputs)


CELLS = {
    "path": ["/etc/passwd", "../../x.jpg", "a/../../x.jpg", "a\0b", "a\\b", "", "images/1.jpg"],
    "image_id": ["p1"],
    "sha256": ["no hash", "../../x", "\n"],
    "width": [0, -1],
    "labels": [[0, 0]],
}


@pytest.mark.parametrize("column", CELLS)
def test_cells_that_ingest_never_writes_are_refused(outputs: Path, column: str) -> None:
    path = outputs / "split/split.parquet"
    table = pq.read_table(path)
    number = table.column_names.index(column)
    for value in CELLS[column]:
        cells = pa.array([value, *table[column].to_pylist()[1:]], table.schema.field(column).type)
        pq.write_table(table.set_column(number, table.schema.field(column), cells), path)
        with pytest.raises(ContractError) as caught:
            read_split(path)
        assert str(path) in str(caught.value), value


def test_tables_that_are_small_on_the_disk_do_not_fill_the_memory(outputs: Path) -> None:
    path = outputs / "split/split.parquet"
    table = pq.read_table(path).slice(0, 1)
    number = table.column_names.index("slice")
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), pa.array(["a" * 500_000]))
    cases: dict[str, Callable[[], pa.Table]] = {
        "a long text in every row": lambda: table.take([0] * 5000).set_column(number, "slice", texts),
        "many rows": lambda: table.take([0] * 5_000_000),
    }
    for name, make in cases.items():
        written = bounded(
            lambda make=make: pq.write_table(make(), path, store_schema=False), megabytes=8000, seconds=60
        )
        assert written.kind == "done", (name, written)
        result = bounded(lambda: read_split(path), megabytes=8000)
        assert result.kind == "refused", (name, result)
        assert result.is_bounded, (name, result)


def test_large_files_in_the_place_of_small_ones_are_not_read(tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "a.json": read_json,
        "a.csv": lambda path: read_csv_rows(path, ("class",)),
        "a.safetensors": read_tensors,
    }
    for name, read in readers.items():
        with open(tmp_path / name, "wb") as file:
            file.write(b"\xff\xff\xff\x7f\0\0\0\0")
            file.truncate(1 << 40)
        result = bounded(lambda read=read, name=name: read(tmp_path / name), megabytes=8000)
        assert result.kind == "refused", (name, result)
        assert result.is_bounded, (name, result)


def test_a_dvc_file_of_a_strangers_is_read_or_passed_over(tmp_path: Path) -> None:
    laughs = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    contents = {
        "repetitions": f"a0: &a0 [x]\n{laughs}outs: [{{md5: *a8}}]",
        "deep": "outs: " + "[" * 5000 + "]" * 5000,
        "an infinity": "outs: [{md5: ab, size: .inf}]",
        "a path": "outs: [{md5: ../../../etc/passwd}]",
        "a negative size": "outs: [{md5: ab, size: -1}]",
        "no date": "outs: [{md5: 2020-99-99}]",
        "a comment of 4 MB": f"#{'x' * 4_000_000}\nouts: [{{md5: ab}}]",
    }
    path = tmp_path / "data.dvc"
    for name, content in contents.items():
        path.write_text(content)
        result = bounded(lambda: check_nothing(path), megabytes=2000)
        assert result.kind == "done", (name, result)
        assert result.is_bounded, (name, result)
    path.write_text("outs: [{md5: 3f1.dir, size: 5, nfiles: 2, path: data}]")
    assert dvc_output(path) == {"md5": "3f1.dir", "size": 5, "nfiles": 2, "path": "data"}


def check_nothing(path: Path) -> None:
    assert dvc_output(path) == {}


@pytest.mark.parametrize(
    "settings",
    [
        {"evaluate": {"bootstrap": 10**12}},
        {"evaluate": {"probe": {"c": [1.0] * 100_000}}},
        {"train": {"epochs": 10**12}},
        {"train": {"gcn": {"hidden": 10**12}}},
        {"train": {"adapter": {"bottleneck": 10**12}}},
        {"validate": {"processes": 10**12}},
        {"train": {"optimiser": {"clip": True}}},
        {"split": {"test_share": True}},
    ],
)
def test_settings_that_no_run_survives_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        parse(settings)


def test_a_promotion_policy_with_draws_for_years_is_refused() -> None:
    with pytest.raises(ConfigError, match="draws"):
        read_policy("draws: 1000000000000\nseed: 0\n")
