"""Camera traps and hostile files through ingest, split, validate and the loader of training."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.data.hostile import animated_gif, arrow, bomb, truncated_jpeg, turned

from capnet.config import Params, parse
from capnet.contracts import read_split, write_split
from capnet.data.images.decode import read_rgb
from capnet.errors import GateError
from capnet.stages import run

SITES, BURSTS, FRAMES = 10, 3, 3
SETTINGS = {
    "data": {"format": "camera_traps"},
    "split": {"require_positives": {"train": 0}, "validation": {"source": "none"}},
    "validate": {"min_positives": 0},
}


def scene(seed: int, photo: Image.Image) -> list[Image.Image]:
    """A burst: one background, an animal that walks, noise of the sensor."""
    rng = np.random.default_rng(seed)
    background = photo.resize((320, 240))
    frames = []
    for step in range(FRAMES):
        frame = background.copy()
        frame.paste((90, 60, 40), (40 + 70 * step, 120, 100 + 70 * step, 160))
        values = np.asarray(frame).astype(float) + rng.normal(0, 3, (240, 320, 1))
        frames.append(Image.fromarray(values.clip(0, 255).astype(np.uint8)))
    return frames


@pytest.fixture
def traps(shared: Path, tmp_path: Path) -> Path:
    """Ten sites with three bursts of three frames each, 70 % of the bursts blank, as COCO Camera Traps."""
    photos = sorted((shared / "data/coco_mini/train2017").glob("*.jpg"))
    images, annotations = [], []
    (tmp_path / "data").mkdir()
    for burst in range(SITES * BURSTS):
        site = f"site {burst % SITES:02}"
        (tmp_path / "data" / site).mkdir(exist_ok=True)
        with Image.open(photos[burst]) as photo:
            frames = scene(burst, photo.convert("RGB"))
        for number, frame in enumerate(frames):
            name = f"{site}/IMG_{burst:03}{number}.JPG"
            frame.save(tmp_path / "data" / name, "JPEG", quality=85)
            images.append(
                {
                    "id": f"i{burst}-{number}",
                    "file_name": name,
                    "location": site,
                    "seq_id": f"s{burst}",
                    "frame_num": number,
                }
            )
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": images[-1]["id"],
                    "category_id": 0 if burst % 10 < 7 else 1 + burst // 10 % 2,
                }
            )
    categories = [{"id": 0, "name": "empty"}, {"id": 1, "name": "fox"}, {"id": 2, "name": "deer"}]
    (tmp_path / "data/annotations.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return tmp_path


def stages(root: Path, params: Params, first: str = "ingest") -> dict[str, dict]:
    """Run ingest, split and validate; the checks by name."""
    places = {name: root / name for name in ("data", "manifest", "split", "validation")}
    if first == "ingest":
        run("ingest", params, {"data": places["data"]}, {"manifest": places["manifest"]})
        run("split", params, {"manifest": places["manifest"]}, {"split": places["split"]})
    with contextlib.suppress(GateError):
        run(
            "validate", params, {"split": places["split"], "data": places["data"]}, {"validation": places["validation"]}
        )
    return {
        check["name"]: check for check in json.loads((places["validation"] / "validation.json").read_text())["checks"]
    }


def test_a_camera_trap_split_passes_and_no_burst_is_torn(traps: Path) -> None:
    checks = stages(traps, parse(SETTINGS))
    assert [name for name, check in checks.items() if not check["success"]] == []
    assert checks["sequences_in_one_split"]["rows"] == SITES * BURSTS * FRAMES
    frame = read_split(traps / "split/split.parquet")
    assert frame.groupby("group")["split"].nunique().max() == 1
    assert frame["split"].nunique() > 1
    assert (frame["labels"].map(len) == 0).mean() == pytest.approx(0.7)


def test_a_torn_burst_is_found_by_sequence_by_site_and_by_its_looks(traps: Path) -> None:
    params = parse(SETTINGS)
    stages(traps, params)
    path = traps / "split/split.parquet"
    frame = read_split(path)
    torn = frame.index[(frame["sequence"] == "s8") & frame["path"].str.endswith("2.JPG")][0]
    frame.loc[torn, "split"] = "test" if frame.loc[torn, "split"] == "train" else "train"
    write_split(path, frame)
    checks = stages(traps, params, first="validate")
    assert {row["path"] for row in checks["sequences_in_one_split"]["offending"]} == {
        f"site 08/IMG_008{n}.JPG" for n in range(3)
    }
    assert {row["value"] for row in checks["groups_in_one_split"]["offending"]} == {"site 08"}
    assert {checks[name]["severity"] for name in ("sequences_in_one_split", "groups_in_one_split")} == {"critical"}
    # the data may not know its sequences and sites: then the pictures themselves tell
    write_split(path, frame.drop(columns="sequence").assign(group=None))
    blind = stages(traps, params, first="validate")
    assert blind["groups_in_one_split"]["success"]
    alike = {
        row["path"]
        for name in ("near_duplicates_in_one_split", "bursts_in_one_split")
        for row in blind[name]["offending"]
    }
    assert alike == {f"site 08/IMG_008{n}.JPG" for n in range(3)}


def test_hostile_files_are_left_out_with_a_reason_or_read_right(tmp_path: Path) -> None:
    """All of them among a hundred good pictures: one bad file ends nothing, and what is kept reaches the network as it
    was meant.
    """
    data = tmp_path / "data"
    data.mkdir()
    bomb(data / "bomb.png", 60_000)
    truncated_jpeg(data / "cut.jpg")
    (data / "zero.jpg").touch()
    animated_gif(data / "moving.gif")
    turned(data / "turned.jpg", 6, "JPEG")
    arrow().convert("CMYK").save(data / "cmyk.jpg", quality=95)
    grey = np.linspace(0, 65535, 60 * 40).astype(np.uint16).reshape(40, 60)
    Image.fromarray(grey).save(data / "deep.png")
    arrow().save(data / "Füchse im Schnee 狐.png")
    for number in range(100):
        cells = np.random.default_rng(number).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((64, 48), Image.Resampling.BICUBIC).save(data / f"good {number}.png")
    names = sorted(path.name for path in data.iterdir())
    (data / "labels.csv").write_text(
        "path,labels\n" + "".join(f"{name},{'cat' if number % 2 else 'dog'}\n" for number, name in enumerate(names))
    )
    checks = stages(
        tmp_path, parse({"ingest": {"bad_images": 0.1}, "validate": {"images": "full", "min_positives": 0}})
    )
    assert [name for name, check in checks.items() if not check["success"] and check["severity"] == "critical"] == []
    # one picture, turned, in CMYK and as it is: they are told to be the same where they lie on two sides
    assert {row["path"] for row in checks["near_duplicates_in_one_split"]["offending"]} <= {
        "turned.jpg",
        "cmyk.jpg",
        "Füchse im Schnee 狐.png",
    }
    reasons = (tmp_path / "manifest/left_out.csv").read_text()
    for name, reason in (("bomb.png", "178,956,970 pixels"), ("cut.jpg", "truncated"), ("zero.jpg", "empty file")):
        (line,) = (line for line in reasons.splitlines() if name in line)
        assert reason in line
    kept = set(read_split(tmp_path / "split/split.parquet")["path"])
    assert kept == set(names) - {"bomb.png", "cut.jpg", "zero.jpg"}
    for name in ("turned.jpg", "cmyk.jpg", "Füchse im Schnee 狐.png"):
        np.testing.assert_allclose(
            np.asarray(read_rgb(data / name)).astype(int)[5:15, 5:25],
            np.asarray(arrow()).astype(int)[5:15, 5:25],
            atol=12,
        )
    np.testing.assert_allclose(np.asarray(read_rgb(data / "deep.png")).astype(int)[:, :, 0], grey / 257, atol=0.51)
    np.testing.assert_allclose(
        np.asarray(read_rgb(data / "moving.gif")).astype(int), np.broadcast_to([200, 30, 30], (20, 30, 3)), atol=6
    )


def test_a_picture_that_goes_bad_after_ingest_is_named(traps: Path) -> None:
    params = parse(SETTINGS)
    stages(traps, params)
    shutil.copy(traps / "data/site 01/IMG_0010.JPG", traps / "data/site 02/IMG_0020.JPG")
    truncated_jpeg(traps / "data/site 03/IMG_0030.JPG")
    checks = stages(traps, parse({**SETTINGS, "validate": {"min_positives": 0, "images": "full"}}), first="validate")
    assert [row["path"] for row in checks["pictures_unchanged"]["offending"]] == ["site 02/IMG_0020.JPG"]
    assert [row["path"] for row in checks["pictures_decode"]["offending"]] == ["site 03/IMG_0030.JPG"]
