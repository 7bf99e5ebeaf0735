"""One COCO file of one's own as docs/data-formats.md says: the split is drawn, or follows lists."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.workspace import merge
from unit.data.native import box, jpeg, write_json

from capnet.commands.preset import read
from capnet.config import parse
from capnet.contracts import read_split
from capnet.errors import DataError
from capnet.stages import run


@pytest.fixture
def documented(repository: Path) -> list[dict[str, Any]]:
    """The two pieces of settings that the document prints."""
    text = (repository / "docs/data-formats.md").read_text().partition("## A COCO file of your own")[2]
    blocks = re.findall(r"```yaml\n(.*?)```", text.partition("\n## ")[0], flags=re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """40 pictures of two classes in turn."""
    root = tmp_path / "data"
    images = [{"id": number, "file_name": f"photo_{number:04}.jpg"} for number in range(40)]
    boxes = [box(number, number % 2) for number in range(40)]
    categories = [{"id": 0, "name": "fox"}, {"id": 1, "name": "owl"}]
    write_json(root / "mine.json", images=images, annotations=boxes, categories=categories)
    (root / "images").mkdir()
    for number in range(40):
        (root / "images" / f"photo_{number:04}.jpg").write_bytes(jpeg(colour=(number, 90, 30)))
    return root


def ids(data: Path, out: Path, *settings: dict[str, Any]) -> dict[str, list[str]]:
    """The ids of each split after ingest and split with preset own and the settings."""
    params = parse(functools.reduce(merge, settings, read("own").model_dump(mode="json", by_alias=True)))
    run("ingest", params, {"data": data}, {"manifest": out / "manifest"})
    run("split", params, {"manifest": out / "manifest"}, {"split": out / "split"})
    frame = read_split(out / "split/split.parquet")
    return {name: frame[frame["split"] == name]["image_id"].tolist() for name in ("train", "val", "test")}


def test_test_and_validation_are_drawn(data: Path, tmp_path: Path, documented: list[dict[str, Any]]) -> None:
    result = ids(data, tmp_path, documented[0])
    assert len(result["test"]) == 8, "split.test_share"
    assert sorted(result["train"] + result["val"] + result["test"]) == [f"photo_{number:04}" for number in range(40)]


def test_lists_divide_it(data: Path, tmp_path: Path, documented: list[dict[str, Any]]) -> None:
    listed = [f"photo_{number:04}" for number in range(40)]
    (data / "train.txt").write_text("\n".join(listed[:25]))
    (data / "test.txt").write_text("\n".join(listed[30:]))
    result = ids(data, tmp_path, *documented, {"split": {"validation": {"source": "none"}}})
    assert result == {"train": listed[:25], "val": [], "test": listed[30:]}


def test_no_test_rows_are_told_in_words_that_fit_the_format(
    data: Path, tmp_path: Path, documented: list[dict[str, Any]]
) -> None:
    with pytest.raises(DataError, match="no rows for test") as caught:
        ids(data, tmp_path, documented[0], {"split": {"test_share": 0.0}})
    todo = caught.value.problems[0].todo
    assert "split.test_share" in todo
    assert "ingest.coco.test" in todo
