"""Parts of a batch become one table in the order of the list, some rows at a time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from capnet.errors import ContractError, DataError
from capnet.serving import batch, output
from capnet.serving.batch import TABLE, merge_parts
from capnet.serving.drift import Drift, reference_document

NAMES = ["cat", "dog"]
LIMITS = np.array([0.4, 0.6], dtype=np.float32)
IMAGES = 103


@pytest.fixture
def rows() -> pd.DataFrame:
    """Scores of all images, sorted by path; every ninth cannot be read."""
    scores = np.random.default_rng(0).random((IMAGES, 2)).astype(np.float32)
    bad = np.arange(IMAGES) % 9 == 0
    return pd.DataFrame(
        {
            "path": [f"camera/{number:04}.jpg" for number in range(IMAGES)],
            "fault": ["missing" if item else "" for item in bad],
            "scores": [None if item else row for item, row in zip(bad, scores, strict=True)],
        }
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A downloaded model without its weights: what a merge reads."""
    folder = tmp_path / "champion"
    folder.mkdir()
    scores = np.random.default_rng(1).random((200, 2)).astype(np.float32)
    files: dict[str, Any] = {
        "source.json": {"name": "capnet version 1", "folder": "."},
        "reference.json": reference_document(NAMES, np.full(2, 0.1), scores, LIMITS),
        "thresholds.json": {
            "schema": 1,
            "class_fingerprint": "of these two",
            "classes": [{"name": name, "threshold": float(limit)} for name, limit in zip(NAMES, LIMITS, strict=True)],
            "calibration": {"temperature": [1.0, 1.0], "shift": [0.0, 0.0]},
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


def write_part(folder: Path, frame: pd.DataFrame) -> Path:
    folder.mkdir()
    served: Any = SimpleNamespace(names=NAMES, class_thresholds=LIMITS)
    with output.parquet(folder / TABLE, served, "m") as add:
        for start in range(0, len(frame), 10):
            add(frame.iloc[start : start + 10].reset_index(drop=True))
    return folder


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_parts_become_the_table_of_the_whole_list(
    rows: pd.DataFrame, model: Path, tmp_path: Path, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "ROWS", 4)
    monkeypatch.setattr(output, "GROUP_ROWS", 16)
    folders = [write_part(tmp_path / f"part{n}", rows.iloc[n::parts].reset_index(drop=True)) for n in range(parts)]
    figures = merge_parts(model, folders, tmp_path / "out")
    table = pd.read_parquet(tmp_path / "out" / TABLE)
    assert table["path"].tolist() == rows["path"].tolist()
    assert table["fault"].tolist() == rows["fault"].tolist()
    good = rows["fault"] == ""
    scores = np.stack(rows["scores"][good])
    np.testing.assert_array_equal(table[good][["score cat", "score dog"]].to_numpy(), scores)
    assert [list(item) for item in table["labels"][good]] == [
        [name for name, score, limit in zip(NAMES, row, LIMITS, strict=True) if score >= limit] for row in scores
    ]
    assert (figures["pictures"], figures["not_read"]) == (IMAGES, IMAGES - len(scores))
    groups = pq.ParquetFile(tmp_path / "out" / TABLE).metadata
    assert {groups.row_group(n).num_rows for n in range(groups.num_row_groups - 1)} <= set(range(16, 16 + 4 * parts))

    drift = Drift(json.loads((model / "reference.json").read_text()), LIMITS)
    drift.add(scores)
    assert json.loads((tmp_path / "out" / "drift.json").read_text()) == json.loads(json.dumps(drift.report()))


def test_a_part_without_images_is_one_of_a_short_list_and_else_a_lost_one(
    rows: pd.DataFrame, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    ones, twos = (
        [write_part(tmp_path / f"{size} {n}", rows.iloc[n : 2 * size : 2].reset_index(drop=True)) for n in range(2)]
        for size in (1, 2)
    )
    assert merge_parts(model, [*ones, tmp_path / "empty"], tmp_path / "out")["pictures"] == 2
    with pytest.raises(ContractError, match="a part has 0 images where another has 2: it is not whole") as caught:
        merge_parts(model, [*twos, tmp_path / "empty"], tmp_path / "out")
    assert caught.value.problems[0].where == str(tmp_path / "empty" / TABLE)


def test_what_does_not_fit_together_is_refused(rows: pd.DataFrame, model: Path, tmp_path: Path) -> None:
    first = write_part(tmp_path / "first", rows.iloc[:50].reset_index(drop=True))
    again = write_part(tmp_path / "again", rows.iloc[:50].reset_index(drop=True))
    with pytest.raises(ContractError, match="not of one list"):
        merge_parts(model, [first, again], tmp_path / "out")
    pd.read_parquet(again / TABLE).rename(columns={"score dog": "score fox"}).to_parquet(again / TABLE)
    with pytest.raises(ContractError, match="different classes"):
        merge_parts(model, [first, again], tmp_path / "out")
    with pytest.raises(DataError, match="no part has an image"):
        merge_parts(model, [tmp_path], tmp_path / "out")
    assert not (tmp_path / "out" / TABLE).exists()


DAMAGED: dict[str, Any] = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_bytes(b"path,labels"),
    "pages": lambda path: path.write_bytes(path.read_bytes().replace(b"camera", b"\xff" * 6)),
    "no columns": lambda path: pq.write_table(pa.table({}), path),
    "other columns": lambda path: pq.write_table(pa.table({"a": [1]}), path),
    "numbers for paths": lambda path: changed(path, "path", lambda column: pa.array(range(len(column)))),
    "no path": lambda path: changed(path, "path", lambda column: pa.nulls(len(column), pa.string())),
    "no fault": lambda path: changed(path, "fault", lambda column: pa.nulls(len(column), pa.string())),
    "a score that is none": lambda path: changed(path, "score cat", lambda column: pa.nulls(len(column), pa.float32())),
    "a score beyond 1": lambda path: changed(path, "score cat", lambda column: pc.add(column, 1)),
    "rows that are gone": lambda path: pq.write_table(pq.read_table(path).slice(2), path),
    "words for scores": lambda path: changed(path, "score cat", lambda column: pa.array(["x"] * len(column))),
}


def changed(path: Path, name: str, make: Any) -> None:
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index(name), name, make(table[name])), path)


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_part_is_named(rows: pd.DataFrame, model: Path, tmp_path: Path, name: str) -> None:
    folders = [write_part(tmp_path / f"part{n}", rows.iloc[n::2].reset_index(drop=True)) for n in range(2)]
    DAMAGED[name](folders[1] / TABLE)
    with pytest.raises(ContractError) as caught:
        merge_parts(model, folders, tmp_path / "out")
    assert caught.value.problems[0].where == str(folders[1] / TABLE)
    assert not (tmp_path / "out" / TABLE).exists()
    good = write_part(tmp_path / "good", rows)
    (model / "source.json").write_text("[]")
    with pytest.raises(ContractError) as caught:
        merge_parts(model, [good], tmp_path / "out")
    assert caught.value.problems[0].where == str(model / "source.json")
