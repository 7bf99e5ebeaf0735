"""Look-alikes against brute force, and the hash against a direct count and real photos saved again."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capnet.data.near_duplicates import DISTANCE, difference_hash, look_alikes


def brute_force(codes: np.ndarray, sides: np.ndarray, contents: np.ndarray, distance: int) -> list[int]:
    result = []
    for i in range(len(codes)):
        near = [
            j
            for j in range(len(codes))
            if codes[i] and codes[j] and sides[i] != sides[j] and contents[i] != contents[j] and (int(codes[i]) ^ int(codes[j])).bit_count() <= distance
        ]
        result.append(near[0] if near else -1)
    return result


@pytest.mark.parametrize("distance", [0, 1, 3, 6])
def test_look_alikes_equal_brute_force(distance: int) -> None:
    rng = np.random.default_rng(distance)
    roots = rng.integers(1, 2**63, 12, dtype=np.uint64)
    codes = rng.choice(roots, 250)
    for row in range(250):  # flip 0 to 7 bits
        for bit in rng.choice(64, rng.integers(0, 8), replace=False):
            codes[row] ^= np.uint64(1) << np.uint64(bit)
    codes[rng.random(250) < 0.1] = 0
    sides = rng.choice(np.array(["train", "val", "test"], dtype=object), 250)
    contents = rng.integers(0, 60, 250)
    found = look_alikes(codes, sides, contents, distance)
    assert found.tolist() == brute_force(codes, sides, contents, distance)
    assert (found >= 0).sum() > 10
    assert (found < 0).sum() > 10


def test_many_equal_codes_are_compared_in_blocks() -> None:
    codes = np.full(3000, 0x0F0F0F0F0F0F0F0F, dtype=np.uint64)
    sides = np.array(["train"] * 2999 + ["test"], dtype=object)
    found = look_alikes(codes, sides, np.arange(3000))
    assert found.tolist() == [2999] * 2999 + [0]


def test_hash_equals_a_direct_count(tmp_path: Path) -> None:
    for seed in range(5):
        cells = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as image:
            grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.LANCZOS)).astype(int)
        number = 0
        for row, column in itertools.product(range(8), range(8)):
            number = number * 2 + int(grey[row, column + 1] > grey[row, column])
        assert difference_hash(tmp_path / "x.png") == number


def test_photos_saved_again_are_found_and_other_photos_are_not(shared: Path, tmp_path: Path) -> None:
    photos = sorted((shared / "data/coco_mini/val2017").glob("*.jpg"))[:50]
    codes = [difference_hash(path) for path in photos]
    apart = min((a ^ b).bit_count() for a, b in itertools.combinations(codes, 2))
    assert apart > 2 * DISTANCE
    found = 0
    for path, code in zip(photos, codes, strict=True):
        with Image.open(path) as image:
            image.convert("RGB").resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS).save(tmp_path / "half.jpg", quality=75)
        found += (code ^ difference_hash(tmp_path / "half.jpg")).bit_count() <= DISTANCE
    assert found >= 47


def test_flat_nearly_flat_and_broken_pictures_have_no_hash(tmp_path: Path) -> None:
    flat = Image.new("RGB", (90, 80), "white")
    flat.save(tmp_path / "flat.png")
    flat.paste("black", (42, 42, 48, 48))
    flat.save(tmp_path / "dot.png")
    (tmp_path / "broken.png").write_bytes(b"broken")
    assert [difference_hash(tmp_path / name) for name in ("flat.png", "dot.png", "broken.png", "missing.png")] == [0, 0, 0, 0]
