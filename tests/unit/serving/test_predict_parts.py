"""Parts of an interrupted batch prediction: which are used, and what is wrong with those that are not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from unit.serving import small_batch
from unit.serving.small_batch import leave_all_parts

from capnet.serving import predict as prediction
from capnet.serving.engine import ScoredBatch, Served
from capnet.serving.image_source import list_images
from capnet.serving.parts import KEY, is_part
from capnet.serving.predict import predict

pytestmark = pytest.mark.slow

served = small_batch.served
folder = small_batch.folder


FIRST, SECOND = "the first image", "the second one"
ONE_TEXT = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), ["x" * 1000])


def part(scores: object, path: object = (FIRST, SECOND), **more: object) -> dict[str, object]:
    """Columns of a part; it is a good one where ``scores`` are."""
    return {"path": path, "fault": ["", ""], "scores": pa.array(scores, pa.list_(pa.float32())), **more}


DAMAGED_PARTS: dict[str, bytes | dict[str, object]] = {
    "no bytes": b"",
    "a beginning": b"PAR1",
    "other columns": {"a": [1, 2]},
    "other images": part([[0.1] * 4] * 2, path=["x", "y"]),
    "scores of other classes": part([[0.1], [0.1]]),
    "scores beyond 1": part([[0.1] * 4, [0.1] * 3 + [1e30]]),
    "scores that are none": part([[0.1] * 4, [0.1] * 3 + [math.nan]]),
    "scores of text": {**part([]), "scores": [["x"] * 4] * 2},
    "faults that are numbers": part([[0.1] * 4] * 2, fault=[1, 2]),
    "a bomb": part([None] * 1_000_000, path=ONE_TEXT, fault=[""] * 1_000_000),
}


def write(content: dict[str, object], file: Path, names: list[str], key: bytes) -> None:
    if content.get("path") == (FIRST, SECOND):
        content = {**content, "path": names}
    columns = pa.table(content)
    with pq.ParquetWriter(file, columns.schema, store_schema=False) as writer:
        writer.write_table(columns)
        writer.add_key_value_metadata({KEY: key})


@pytest.mark.parametrize("name", DAMAGED_PARTS)
def test_a_damaged_part_is_scored_again(served: Served, folder: Path, tmp_path: Path, name: str) -> None:
    source = list_images(str(folder))
    predict(served, "m", source, tmp_path / "whole.csv", images_per_part=2)
    leave_all_parts(served, source, tmp_path / "out.csv", images_per_part=2)
    content, file = DAMAGED_PARTS[name], tmp_path / ".out.csv.parts" / "000000000000.parquet"
    key, names = pq.read_metadata(file).metadata[KEY], list(source.names[:2])
    write(part([[0.1] * 4] * 2), file, names, key)
    assert is_part(file, key.decode(), names, 4), "else the others are refused for another reason than theirs"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        write(content, file, names, key)
    predict(served, "m", source, tmp_path / "out.csv", images_per_part=2)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize(
    ("change", "again"),
    [("none", 0), ("write over", 2), ("add", 4), ("remove", 2), ("root", 7), ("data/images/decode.py", 7)],
)
def test_only_parts_that_changed_are_scored_again(
    served: Served,
    folder: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    again: int,
) -> None:
    """One new image among a million threw all parts away, and scores of older code stood among those of newer."""
    leave_all_parts(served, list_images(str(folder)), tmp_path / "out.csv", images_per_part=2)
    fifth = folder / list_images(str(folder)).names[4]
    if change == "write over":
        fifth.write_bytes(fifth.read_bytes() + b"\0")
    elif change == "add":
        fifth.with_name("zzz.png").write_bytes(fifth.read_bytes())
    elif change == "remove":
        fifth.unlink()
    elif change == "root":
        folder = folder.rename(folder.with_name("moved"))
    elif change.endswith(".py"):  # as after an update of the program
        monkeypatch.setattr(prediction, "CODE", shutil.copytree(prediction.CODE, tmp_path / "code"))
        with (tmp_path / "code" / change).open("a") as file:
            file.write("# other code")
    source, read, original = list_images(str(folder)), list[str](), Served.stream

    def watched(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        read.extend(names)
        return original(served, list(read), root, total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Served, "stream", watched)
        predict(served, "m", source, tmp_path / "out.csv", images_per_part=2)
    assert len(read) == again
    assert any("of the interrupted call to score again" in line for line in caplog.messages) == (again > 0)
    predict(served, "m", source, tmp_path / "whole.csv", images_per_part=2)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_what_is_left_is_scored_as_among_all_images(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last few images of a killed call got other bits than in a whole one: of few images one thread did not make
    each pass alone.
    """
    tower, source = served.scorer.loaded.model.towers.image, list_images(str(folder))
    monkeypatch.setattr(type(tower), "is_convolutional", True)
    monkeypatch.setattr(served.scorer, "threads", 2)
    threads, pooled = list[int](), served.scorer.loaded.model.pooled

    def watched(images: torch.Tensor, **how: bool) -> torch.Tensor:
        threads.append(torch.get_num_threads())
        return pooled(images, **how)

    monkeypatch.setattr(served.scorer.loaded.model, "pooled", watched)
    torch.set_num_threads(2)
    leave_all_parts(served, source, tmp_path / "out.csv", images_per_part=2)
    (tmp_path / ".out.csv.parts" / "000000000006.parquet").unlink()
    whole, threads[:] = set(threads), []
    predict(served, "m", source, tmp_path / "out.csv", images_per_part=2)
    assert whole == set(threads) == {1}
