"""Tar shards: what WebDataset's own reader finds in them, and what the stages read from them."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from capnet.cli import main
from capnet.commands.preset import render
from capnet.config import Data, Ingest, Params, Split
from capnet.contracts import read_classes, read_manifest, read_split, write_manifest
from capnet.data.images.shards import read_bytes
from capnet.data.images.transform import Transform
from capnet.errors import CapnetError, DataError
from capnet.stages import run


def noise(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format="PNG" if seed % 2 else "JPEG")
    return buffer.getvalue()


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty pictures after ingest and split, with settings in params.yaml; the working folder."""
    root = tmp_path / "data"
    lines = ["path,labels,unknown,group,slice,sequence,image_id,split"]
    for number in range(40):
        ending = {0: "json", 2: "j" * 150}.get(number, "png" if number % 2 else "JPG")
        path = f"bilder/ä {number}.{ending}"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(noise(number))
        labels, unknown = (["red fox|deer", ""], ["deer", "red fox"], ["", ""])[number % 3]
        lines.append(
            f"{path},{labels},{unknown},site {number // 4},night,b{number // 2},no."
            f" {number},{'test' if number > 30 else ''}"
        )
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    (root / "classes.csv").write_text("name,prompt_name,critical\nred fox,a fox,true\ndeer,,\n")
    params = Params(split=Split.model_validate({"validation": {"source": "none"}, "method": "natural"}))
    (tmp_path / "params.yaml").write_text(render(params, "test"))
    monkeypatch.chdir(tmp_path)
    stages(params, Path("data"), Path("outputs"))
    return tmp_path


def stages(params: Params, data: Path, out: Path) -> None:
    run("ingest", params, {"data": data}, {"manifest": out / "manifest"})
    run("split", params, {"manifest": out / "manifest"}, {"split": out / "split"})


def shard(*options: str) -> str:
    result = CliRunner().invoke(main, ["shard", "--out", "shards-of-data", *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


LISTED = {"data": Data(root="shards-of-data"), "ingest": Ingest(images="listed")}


def test_a_folder_of_shards_gives_the_same_split_and_the_same_tensors(workspace: Path) -> None:
    params = Params(split=Split.model_validate({"validation": {"source": "none"}}))
    assert "40 images in 2 shards" in shard()  # rows with a given side, and rows without
    stages(params.model_copy(update=LISTED), workspace / "shards-of-data", workspace / "again")
    before, after = (
        read_split(workspace / name / "split/split.parquet").set_index("image_id") for name in ("outputs", "again")
    )
    for name in ("split", "width", "height", "sha256", "group", "slice", "sequence"):
        assert before[name].to_dict() == after[name].to_dict(), name
    for name in ("labels", "unknown"):
        assert {image: list(row) for image, row in before[name].items()} == {
            image: list(row) for image, row in after[name].items()
        }
    assert read_classes(workspace / "outputs/split/classes.json") == read_classes(
        workspace / "again/split/classes.json"
    )
    transform = Transform(32, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=2)
    tensors = [
        [transform.tensor(root, path, sha256) for path, sha256 in zip(rows["path"], rows["sha256"], strict=True)]
        for rows, root in ((before, workspace / "data"), (after.loc[before.index], workspace / "shards-of-data"))
    ]
    assert all(torch.equal(one, other) for one, other in zip(*tensors, strict=True))


def test_ingest_decodes_pictures_in_shards(workspace: Path) -> None:
    shard()
    params = Params(data=Data(root="shards-of-data"))
    run("ingest", params, {"data": workspace / "shards-of-data"}, {"manifest": workspace / "decoded"})
    run(
        "ingest",
        params.model_copy(update=LISTED),
        {"data": workspace / "shards-of-data"},
        {"manifest": workspace / "listed"},
    )
    assert (workspace / "decoded/manifest.parquet").read_bytes() == (workspace / "listed/manifest.parquet").read_bytes()
    (tar,) = (workspace / "shards-of-data/shards").glob("test-*.tar")
    tar.write_bytes(tar.read_bytes()[:3000])
    with pytest.raises(DataError) as caught:
        run("ingest", params, {"data": workspace / "shards-of-data"}, {"manifest": workspace / "cut"})
    assert {str(problem).split(".tar/")[0] for problem in caught.value.problems} == {"image 'shards/test-000000"}


def test_webdataset_reads_them(workspace: Path) -> None:
    import webdataset

    shard("--size", "1")
    shards = sorted(str(path) for path in (workspace / "shards-of-data/shards").glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False, empty_check=False))
    manifest = read_manifest(workspace / "outputs/manifest/manifest.parquet").set_index("image_id")
    assert len(samples) == 40
    for sample in samples:
        label = json.loads(sample["json"])
        row = manifest.loc[label["image_id"]]
        picture = sample["png"] if "png" in sample else sample["jpg"]
        assert picture == (workspace / "data" / row["path"]).read_bytes()
        assert [["red fox", "deer"].index(name) for name in label["labels"]] == list(row["labels"])
        assert label["group"] == row["group"]


def test_a_split_is_sharded_by_side_and_small_shards_follow_each_other(workspace: Path) -> None:
    from capnet.data.images.shard_set import write_shard_set

    shard("--split", "outputs/split")
    names = sorted(path.name for path in (workspace / "shards-of-data/shards").iterdir())
    assert names == ["test-000000.tar", "train-000000.tar"]
    rows, classes = (
        read_split(workspace / "outputs/split/split.parquet"),
        read_classes(workspace / "outputs/split/classes.json"),
    )
    for name in ("one", "two"):
        (workspace / name).mkdir()
        assert (
            write_shard_set(
                workspace / name, rows, classes, workspace / "data", 20_000, "|", lambda steps=1, *, note="": None
            )
            > 4
        )
    for path in (workspace / "one").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (workspace / "two" / path.relative_to(workspace / "one")).read_bytes()
    table = (workspace / "one/labels.csv").read_text().splitlines()
    assert len(table) == 41
    assert len({line.split(",")[0] for line in table}) == 41
    stages(
        Params(ingest=Ingest(images="listed"), split=Split.model_validate({"validation": {"source": "none"}})),
        workspace / "one",
        workspace / "from-one",
    )
    again = read_split(workspace / "from-one/split/split.parquet")
    assert again.set_index("image_id")["split"].to_dict() == rows.set_index("image_id")["split"].to_dict()


def test_large_images_are_stored_smaller_and_their_rows_say_so(workspace: Path) -> None:
    from capnet.data.images.shard_set import write_shard_set

    rows, classes = (
        read_split(workspace / "outputs/split/split.parquet"),
        read_classes(workspace / "outputs/split/classes.json"),
    )
    photo = Image.linear_gradient("L").resize((140, 90)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    path = workspace / "data" / rows["path"].iloc[3]
    photo.save(path, format="JPEG", quality=95, exif=exif)
    rows.loc[3, "sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (workspace / "small").mkdir()
    write_shard_set(
        workspace / "small", rows, classes, workspace / "data", 10**9, "|", lambda steps=1, *, note="": None, 60
    )
    table = pd.read_csv(workspace / "small/labels.csv").set_index("image_id")
    for row in rows.itertuples():
        data, stored = read_bytes(workspace / "small" / table["path"][row.image_id]), table.loc[row.image_id]
        assert stored["sha256"] == hashlib.sha256(data).hexdigest()
        original = (workspace / "data" / row.path).read_bytes()
        with Image.open(io.BytesIO(data)) as image, Image.open(io.BytesIO(original)) as before:
            assert image.size == (stored["width"], stored["height"])
            if min(before.size) <= 60:
                assert data == original
            else:
                assert min(image.size) == 60
                assert stored["path"].endswith(".jpg")
    with Image.open(io.BytesIO(read_bytes(workspace / "small" / table["path"][rows["image_id"].iloc[3]]))) as image:
        assert image.size == (60, 93)
        upright = photo.transpose(Image.Transpose.ROTATE_270).resize(image.size, Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).max() < 6


def test_changed_and_missing_pictures_are_named_and_nothing_is_left(workspace: Path) -> None:
    (workspace / "data/bilder/ä 3.png").write_bytes(noise(99))
    (workspace / "data/bilder/ä 4.JPG").unlink()
    with pytest.raises(DataError) as caught:
        shard()
    assert {problem.what for problem in caught.value.problems} == {
        "image 'bilder/ä 3.png': not the one that was ingested",
        "image 'bilder/ä 4.JPG': missing",
    }
    assert not (workspace / "shards-of-data").exists()
    (workspace / "shards-of-data").mkdir()
    (workspace / "shards-of-data/mine.txt").write_text("keep")
    with pytest.raises(DataError, match="never overwrite"):
        shard()


@pytest.mark.parametrize("measured", [True, False])
def test_an_image_that_the_machine_cannot_read_is_not_called_missing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    """Nobody should take a good image out of the label table because a network file system did not answer."""

    def fail(path: Path) -> bytes:
        raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))

    manifest = workspace / "outputs/manifest/manifest.parquet"
    rows = read_manifest(manifest)
    write_manifest(manifest, rows if measured else rows.assign(sha256=None, width=None, height=None))
    monkeypatch.setattr("capnet.data.images.shard_set.read_bytes", fail)
    with pytest.raises(CapnetError, match=os.strerror(errno.EHOSTUNREACH)) as caught:
        shard()
    assert caught.value.exit_code == 1
    assert "run the same command again" in caught.value.problems[0].todo
    assert not (workspace / "shards-of-data").exists()


def test_a_picture_that_ingest_did_not_decode_is_named(workspace: Path) -> None:
    manifest = workspace / "outputs/manifest/manifest.parquet"
    rows = read_manifest(manifest)
    for row, end in ((5, -40), (6, 9)):  # truncated, and not even a header
        path = workspace / "data" / rows["path"].iloc[row]
        path.write_bytes(path.read_bytes()[:end])
        rows.loc[row, "sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_manifest(manifest, rows)
    with pytest.raises(DataError) as caught:
        shard("--shorter", "30")
    assert [problem.what.split(": ")[0] for problem in caught.value.problems] == [
        f"image {rows['path'].iloc[row]!r}" for row in (5, 6)
    ]
    assert not (workspace / "shards-of-data").exists()


def test_a_separator_within_a_class_name_is_refused(workspace: Path) -> None:
    text = (workspace / "params.yaml").read_text()
    (workspace / "params.yaml").write_text(text.replace("separator: '|'", "separator: ' '"))
    with pytest.raises(DataError, match="'red fox' contains the separator"):
        shard()
