"""Parts of an interrupted batch prediction: which are used, and what is wrong with those that are not."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from unit.serving import small_batch
from unit.serving.small_batch import leave_all_parts

from capnet.serving import predict as prediction
from capnet.serving.engine import ScoredBatch, Served
from capnet.serving.image_source import list_images
from capnet.serving.parts import KEY
from capnet.serving.predict import predict

pytestmark = pytest.mark.slow

served = small_batch.served
folder = small_batch.folder


def table(**columns: object) -> bytes:
    return pd.DataFrame(columns).to_parquet()


DAMAGED_PARTS = {
    "no bytes": b"",
    "a beginning": b"PAR1",
    "other columns": table(a=[1, 2]),
    "other images": table(path=["x", "y"], fault=["", ""], scores=[[0.1] * 4] * 2),
    "scores of other classes": table(path=["{0}", "{1}"], fault=["", ""], scores=[[0.1], [0.1]]),
    "scores beyond 1": table(path=["{0}", "{1}"], fault=["", ""], scores=[[0.1] * 4, [0.1] * 3 + [1e30]]),
    "scores that are none": table(path=["{0}", "{1}"], fault=["", ""], scores=[[0.1] * 4, [0.1] * 3 + [float("nan")]]),
    "scores of text": table(path=["{0}", "{1}"], fault=["", ""], scores=[["x"] * 4] * 2),
    "faults that are numbers": table(path=["{0}", "{1}"], fault=[1, 2], scores=[[0.1] * 4] * 2),
    "a bomb": table(path=["x" * 1000] * 1_000_000, fault=[""] * 1_000_000, scores=[None] * 1_000_000),
}


@pytest.mark.parametrize("name", DAMAGED_PARTS)
def test_a_damaged_part_is_scored_again(served: Served, folder: Path, tmp_path: Path, name: str) -> None:
    source = list_images(str(folder))
    predict(served, "m", source, tmp_path / "whole.csv", images_per_part=2)
    first, second = source.names[:2]
    leave_all_parts(served, source, tmp_path / "out.csv", images_per_part=2)
    content, first_part = DAMAGED_PARTS[name], tmp_path / ".out.csv.parts" / "000000000000.parquet"
    metadata = {KEY: pq.read_metadata(first_part).metadata[KEY]}
    if b"{0}" in content:
        frame = pd.read_parquet(io.BytesIO(content))
        content = frame.assign(path=[first, second]).to_parquet()
    first_part.write_bytes(content)
    if len(content) > len(b"PAR1"):
        pq.write_table(pq.read_table(first_part).replace_schema_metadata(metadata), first_part)
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
