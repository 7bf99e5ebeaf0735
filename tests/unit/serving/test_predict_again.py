"""Batch prediction that was interrupted goes on, and with no part of another model or folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from unit.serving import small_batch
from unit.serving.small_batch import leave_all_parts

from capnet.config import Runtime
from capnet.contracts import read_tensors, write_tensors
from capnet.contracts.files import host
from capnet.data.images import decode, shards
from capnet.errors import CapnetError
from capnet.serving.engine import ScoredBatch, Served, load_served
from capnet.serving.image_source import list_images
from capnet.serving.parts import write_part
from capnet.serving.predict import predict

pytestmark = pytest.mark.slow

served = small_batch.served
folder = small_batch.folder


def test_an_interrupted_call_goes_on_and_writes_the_same_bytes(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = list_images(str(folder))
    predict(served, "m", source, tmp_path / "whole.csv", images_per_part=2)
    scored: list[str] = []
    original = Served.stream

    def until_the_fifth(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        for name in names:  # one image a part
            if len(scored) == 5:
                raise KeyboardInterrupt
            scored.append(name)
            yield from original(served, [name], root, 1)

    monkeypatch.setattr(Served, "stream", until_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        predict(served, "m", source, tmp_path / "out.csv", images_per_part=2)
    assert not (tmp_path / "out.csv").exists()
    again: list[str] = []

    def to_the_end(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        again.extend(names)
        return original(served, list(again), root, total)

    monkeypatch.setattr(Served, "stream", to_the_end)
    predict(served, "m", source, tmp_path / "out.csv", images_per_part=2)
    assert scored[:4] + again == source.names  # the fifth was in a part that was not full
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


KILLED = """
import sys
from pathlib import Path
import open_clip
from capnet.serving.engine import load_served
from capnet.serving.image_source import list_images
from capnet.serving.predict import predict
outputs, images, out = map(Path, sys.argv[1:])
open_clip.add_model_config(outputs / "tiny-random-clip.json")
served = load_served(outputs / "model", outputs / "evaluation" / "thresholds.json")
predict(served, "m", list_images(str(images)), out, images_per_part=5)
"""


def test_a_killed_process_is_continued_without_a_lost_or_doubled_row(
    served: Served, tmp_path: Path, repository: Path
) -> None:
    random = np.random.default_rng(3)
    images = tmp_path / "many"
    images.mkdir()
    for number in range(120):  # each read by one of the worker processes
        Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(images / f"{number:03}.png")
    (images / "100.png").write_bytes(b"damaged")
    source = list_images(str(images))
    predict(served, "m", source, tmp_path / "whole.parquet", images_per_part=5)
    out, parts = tmp_path / "out.parquet", tmp_path / ".out.parquet.parts"
    words = [sys.executable, "-c", KILLED, str(tmp_path / "outputs"), str(images), str(out)]
    with subprocess.Popen(words, cwd=repository) as process:
        while len(list(parts.glob("*.parquet"))) < 7:
            assert process.poll() is None
            time.sleep(0.001 if parts.is_dir() else 0.02)  # it imports for seconds before it begins
        process.kill()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.parquet")}
    assert 7 <= len(before) < 24
    read: list[str] = []
    original = Served.stream

    def watched(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        read.extend(names)
        return original(served, list(read), root, total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Served, "stream", watched)
        done = predict(served, "m", source, out, images_per_part=5)
    assert len(read) == 120 - 5 * len(before)
    assert (done.images, done.not_read) == (120, 1)
    assert pd.read_parquet(out)["path"].tolist() == source.names
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not parts.exists()


def test_parts_of_another_model_are_not_used(served: Served, folder: Path, tmp_path: Path) -> None:
    source = list_images(str(folder))
    parts = tmp_path / ".out.csv.parts"
    parts.mkdir()
    write_part(parts / f"{0:012}.parquet", "another", [(name, "no scores", None) for name in source.names])
    predict(served, "m", source, tmp_path / "out.csv")
    assert "no scores" not in (tmp_path / "out.csv").read_text()
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 8


def test_parts_of_a_model_that_was_trained_again_in_the_same_folder_are_not_used(
    served: Served, folder: Path, tmp_path: Path
) -> None:
    source, out = list_images(str(folder)), tmp_path / "out.csv"
    predict(served, "m", source, tmp_path / "whole.csv", images_per_part=2)
    leave_all_parts(served, source, out, images_per_part=2)
    assert list((tmp_path / ".out.csv.parts").glob("*.parquet"))
    model, path = tmp_path / "outputs" / "model", tmp_path / "outputs" / "evaluation" / "thresholds.json"
    tensors, metadata = read_tensors(model / "model.safetensors")
    write_tensors(model / "model.safetensors", {name: tensor * 2 for name, tensor in tensors.items()}, metadata)
    predict(load_served(model, path), "m", source, out, images_per_part=2)
    assert out.read_bytes() != (tmp_path / "whole.csv").read_bytes()


def test_a_model_in_another_precision_is_another_one(served: Served, tmp_path: Path) -> None:
    model, path = tmp_path / "outputs" / "model", tmp_path / "outputs" / "evaluation" / "thresholds.json"
    assert load_served(model, path).identity == served.identity
    both = {load_served(model, path, Runtime(precision=name)).identity for name in ("fp32", "bf16")}
    assert len(both) == 2


@pytest.mark.parametrize("same_slot", [False, True])
def test_parts_of_other_images_with_the_same_names_are_not_used(
    served: Served, folder: Path, tmp_path: Path, same_slot: bool
) -> None:
    """Two memory cards of cameras that both number from 1."""
    other = tmp_path / "other"
    for path in (folder / "camera 0").iterdir():
        (other / path.name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 50), (200, 0, 0)).save(other / path.name, format="JPEG")
    predict(served, "m", list_images(str(other)), tmp_path / "expected.csv")
    leave_all_parts(served, list_images(str(folder / "camera 0")), tmp_path / "out.csv")
    if same_slot:
        (folder / "camera 0").rename(tmp_path / "first card")
        other = other.rename(folder / "camera 0")
    predict(served, "m", list_images(str(other)), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_parts_with_an_image_that_was_written_over_are_not_used(served: Served, tmp_path: Path) -> None:
    """In a folder that is called as shards are, and does not change itself."""
    image = tmp_path / "cards" / "first.tar" / "1.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (40, 50), (0, 0, 200)).save(image)
    source = list_images(str(tmp_path / "cards"))
    leave_all_parts(served, source, tmp_path / "out.csv")
    Image.new("RGB", (40, 60), (200, 0, 0)).save(image)
    predict(served, "m", source, tmp_path / "expected.csv")
    predict(served, "m", source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_parts_with_an_image_that_another_of_its_size_and_time_replaced_are_not_used(
    served: Served, tmp_path: Path
) -> None:
    """Bitmaps of one camera have one size; archives, rsync and some mounted buckets give all files one time."""
    image = tmp_path / "cards" / "1.bmp"
    image.parent.mkdir()

    def put(color: tuple[int, int, int]) -> None:
        Image.new("RGB", (40, 50), color).save(image)
        os.utime(image, ns=(0, 0))

    put((0, 0, 200))
    source = list_images(str(image.parent))
    leave_all_parts(served, source, tmp_path / "out.csv")
    put((200, 0, 0))
    predict(served, "m", source, tmp_path / "expected.csv")
    predict(served, "m", source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_parts_with_an_image_whose_rights_were_mended_are_not_used(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights change neither size nor time of a file. They are patched, because root may read everything."""
    source, image, may_read = list_images(str(folder / "camera 0")), folder / "camera 0" / "é2.JPG", os.access
    predict(served, "m", source, tmp_path / "expected.csv")
    original = Served.stream

    def refused(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        (part,) = original(served, names, root, total)
        kept = [name != image.name for name in part.names]
        faults = ["" if good else "Permission denied" for good in kept]
        yield ScoredBatch(part.names, faults, part.scores[kept], [None] * sum(kept))

    monkeypatch.setattr(Served, "stream", refused)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != image and may_read(path, mode))
    leave_all_parts(served, source, tmp_path / "out.csv")
    monkeypatch.undo()
    predict(served, "m", source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


@pytest.mark.parametrize("images", ["camera 0", "camera 1"])
def test_a_second_call_for_the_same_file_is_refused_while_the_first_one_runs(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Path, images: str
) -> None:
    """As two cron jobs that overlap: each took the other's parts away, or wrote its own among them."""
    first, out, refusals = list_images(str(folder / "camera 0")), tmp_path / "out.csv", list[str]()
    predict(served, "m", first, tmp_path / "expected.csv", images_per_part=2)
    words = [sys.executable, "-c", KILLED, str(tmp_path / "outputs"), str(folder / images), str(out)]
    original = Served.stream

    def overtaken(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        for part in original(served, names, root, total):
            if not refusals:
                second = subprocess.run(words, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
                refusals.append(second.stderr)
            yield part

    monkeypatch.setattr(Served, "stream", overtaken)
    predict(served, "m", first, out, images_per_part=2)
    assert f"CapnetError: another process is writing this file (process {os.getpid()} on {host()})" in refusals[0]
    assert out.read_bytes() == (tmp_path / "expected.csv").read_bytes()
    monkeypatch.undo()
    predict(served, "m", list_images(str(folder / "camera 1")), out, images_per_part=2)
    assert sorted(path.name for path in tmp_path.glob("*out.csv*")) == ["out.csv"]


def test_no_report_of_drift_lies_beside_predictions_that_it_is_not_of(
    served: Served, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the process dies as soon as the output is written."""
    out = tmp_path / "out.csv"
    report = tmp_path / "out.csv.drift.json"
    report.write_text("{}")
    original = Path.replace

    def last(path: Path, target: Path) -> Path:
        result = original(path, target)
        if target == out:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Path, "replace", last)
    with pytest.raises(KeyboardInterrupt):
        predict(served, "m", list_images(str(folder)), out)
    assert out.exists()
    assert not report.exists()


@pytest.mark.parametrize("number", [errno.EIO, errno.ESHUTDOWN, errno.EACCES])
def test_an_outage_is_no_fault_of_the_images(
    served: Served, folder: Path, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment of a network file system left images without labels, with exit code 0."""
    source, again, read, original = list_images(str(folder)), list[str](), shards.file_or_bytes, Served.stream
    monkeypatch.setattr("capnet.data.images.stream.views_at_once", lambda machine: 1)

    def fail(path: Path) -> Path | bytes:
        if path == folder / source.names[6]:
            raise OSError(number, os.strerror(number))
        return read(path)

    with monkeypatch.context() as patched:
        patched.setattr(decode, "file_or_bytes", fail)
        if number == errno.EACCES:  # of this image alone
            assert predict(served, "m", source, tmp_path / "out.csv", images_per_part=2).not_read == 2
            return
        with pytest.raises(CapnetError, match="same command again") as caught:
            predict(served, "m", source, tmp_path / "out.csv", images_per_part=2)
    (problem,) = caught.value.problems
    assert (os.strerror(number) in problem.what, problem.where) == (True, str(folder / source.names[6]))
    assert (caught.value.exit_code, (tmp_path / "out.csv").exists()) == (1, False)

    def watched(served: Served, names: Iterable[str], root: Path, total: int) -> Iterator[ScoredBatch]:
        again.extend(names)
        return original(served, list(again), root, total)

    monkeypatch.setattr(Served, "stream", watched)
    assert predict(served, "m", source, tmp_path / "out.csv", images_per_part=2).not_read == 1
    assert len(again) < len(source.names)
