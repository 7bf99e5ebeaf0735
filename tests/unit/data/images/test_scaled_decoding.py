"""Reduced scales of JPEG: fewer pixels are decoded, no view is enlarged, and views look the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from capnet.config import Tte
from capnet.data.images import decode
from capnet.data.images.decode import read_rgb
from capnet.data.images.transform import Item, Transform

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
FIVE = Transform(64, MEAN, STD, "bicubic", tte=Tte(views=5, expand=8, decode="scaled"), decode="scaled")
RANDOM = Transform(64, MEAN, STD, "bicubic", random_views=20, decode="scaled")


def photo(path: Path, size: tuple[int, int], **options: Any) -> Path:
    Image.fromarray(load_sample_image("china.jpg")).resize(size, Image.Resampling.LANCZOS).save(path, **options)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["short", "pad", "squash"])
@pytest.mark.parametrize("size", [(1600, 1200), (1300, 500), (500, 2600), (577, 576), (97, 85), (60, 50)])
@pytest.mark.parametrize("transform", [FIVE, RANDOM], ids=["five views", "random views"])
def test_no_view_is_enlarged_that_was_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transform: Transform, size: tuple[int, int], resize: str
) -> None:
    path = photo(tmp_path / "photo.jpg", size, quality=90)
    scales: list[float] = []
    original = Image.Image.resize

    def watched(image: Image.Image, target: tuple[int, int], *rest: Any, **options: Any) -> Image.Image:
        left, upper, right, lower = options.get("box") or (0, 0, *image.size)
        scales.append(max(target[0] / (right - left), target[1] / (lower - upper)))
        return original(image, target, *rest, **options)

    def largest(decode: Any) -> float:
        scales.clear()
        assert transform.canvas(tmp_path, Item(path.name, (1,))) is not None
        replace(transform, resize=resize, decode=decode).canvas(tmp_path, Item(path.name, (1,)))
        return max(scales)

    monkeypatch.setattr(Image.Image, "resize", watched)
    assert largest("scaled") <= max(1.0, largest("full")) + 1e-6


def test_fewer_pixels_are_decoded_of_large_jpegs_only(tmp_path: Path) -> None:
    def decoded(path: Path) -> tuple[int, int]:
        return read_rgb(path, lambda size: (150, 112)).size

    assert decoded(photo(tmp_path / "large.jpg", (1600, 1200))) == (200, 150)
    assert decoded(photo(tmp_path / "small.jpg", (290, 220))) == (290, 220)
    assert decoded(photo(tmp_path / "large.png", (1600, 1200))) == (1600, 1200)
    assert read_rgb(tmp_path / "large.jpg").size == (1600, 1200)


def test_an_image_on_its_side_is_turned_after_it_was_reduced(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(tmp_path / "side.jpg", (1600, 1200), quality=95, exif=exif)
    photo(tmp_path / "upright.jpg", (1600, 1200), quality=95)
    side, upright = (FIVE.canvas(tmp_path, Item(name)).pixels for name in ("side.jpg", "upright.jpg"))
    np.testing.assert_allclose(side.astype(int), np.rot90(upright, -1), atol=2)  # resized before or after the turn


def test_views_differ_by_little(tmp_path: Path) -> None:
    path = photo(tmp_path / "photo.jpg", (2400, 1600), quality=92)
    full, scaled = (replace(FIVE, decode=decode).canvas(tmp_path, Item(path.name)) for decode in ("full", "scaled"))
    assert full.cuts == scaled.cuts
    difference = np.abs(full.pixels.astype(int) - scaled.pixels)
    assert 0 < difference.mean() < 3  # of 255


def test_the_key_tells_the_two_apart() -> None:
    for transform in (FIVE, RANDOM):
        assert transform.key() != replace(transform, decode="full").key()


def test_a_jpeg_that_is_too_large_is_halved_though_all_of_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photo(tmp_path / "large.jpg", (160, 120))
    monkeypatch.setattr(decode, "MOST_PIXELS", 160 * 120 - 1)
    assert read_rgb(path).size == read_rgb(path, lambda size: (81, 61)).size == (80, 60)
