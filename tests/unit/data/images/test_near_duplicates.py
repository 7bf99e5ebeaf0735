"""Look-alikes against brute force, and dhashes against a direct count and real photos: copies, bursts, strangers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.spatial.distance import cdist

from capnet.data.checks.files import open_image_file
from capnet.data.images.decode import Unusable, open_image
from capnet.data.images.near_duplicates import (
    COARSE_DISTANCE,
    FINE_DISTANCE,
    NEIGHBOURS,
    NO_DHASH,
    as_words,
    burst_frames,
    dhash,
    natural_key,
    near_duplicates,
)

pytestmark = pytest.mark.slow


def dhash_of(path: Path) -> bytes:
    with open_image(path) as image:
        return dhash(image)


def save(image: Image.Image, path: Path, quality: int = 80) -> bytes:
    image.save(path, quality=quality)
    return dhash_of(path)


def bits(dhashes: list[bytes], cells: int) -> np.ndarray:
    """bool [picture, bit] of the coarse (8) or fine (16) part."""
    part = slice(0, 8) if cells == 8 else slice(8, 40)
    return np.unpackbits(
        np.frombuffer(b"".join(one[part] for one in dhashes), dtype=np.uint8).reshape(len(dhashes), -1), axis=1
    ).astype(bool)


def distances(one: list[bytes], other: list[bytes], cells: int) -> np.ndarray:
    a, b = bits(one, cells), bits(other, cells)
    return np.rint(cdist(a, b, "hamming") * a.shape[1]).astype(int)


def made_looks(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Looks around a few roots, 0 to 9 coarse and 0 to 80 fine bits off, some equal, some empty; and contents that
    determine them.
    """
    roots = rng.integers(1, 2**63, (8, 5), dtype=np.uint64)
    kinds = rng.choice(roots, n // 2)
    for row in kinds:
        for bit in rng.choice(64, rng.integers(0, 10), replace=False):
            row[0] ^= np.uint64(1) << np.uint64(bit)
        for bit in rng.choice(256, rng.integers(0, 81), replace=False):
            row[1 + bit // 64] ^= np.uint64(1) << np.uint64(bit % 64)
    kinds[rng.random(len(kinds)) < 0.1] = 0
    contents = rng.integers(0, len(kinds) + 40, n)
    return kinds[contents % len(kinds)], contents


@pytest.mark.parametrize("seed", range(4))
def test_look_alikes_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words, contents = made_looks(rng, 300)
    splits = rng.choice(np.array(["train", "val", "test"], dtype=object), 300, p=[0.8, 0.1, 0.1])
    expected = []
    for i in range(300):
        near = [
            j
            for j in range(300)
            if words[i, 0]
            and words[j, 0]
            and splits[i] != splits[j]
            and contents[i] != contents[j]
            and (int(words[i, 0]) ^ int(words[j, 0])).bit_count() <= COARSE_DISTANCE
            and sum((int(a) ^ int(b)).bit_count() for a, b in zip(words[i, 1:], words[j, 1:], strict=True))
            <= FINE_DISTANCE
        ]
        expected.append(near[0] if near else -1)
    assert near_duplicates(words, splits, contents).tolist() == expected
    assert 10 < sum(row >= 0 for row in expected) < 290


def test_many_equal_looks_cost_little() -> None:
    """A camera that sees the same empty scene a hundred thousand times."""
    words = np.full((100_000, 5), 0x0F0F0F0F0F0F0F0F, dtype=np.uint64)
    splits = np.array(["train"] * 99_999 + ["test"], dtype=object)
    assert near_duplicates(words, splits, np.arange(100_000)).tolist() == [99_999] * 99_999 + [0]


def test_many_near_dhashes_cost_little() -> None:
    """The same camera with noise: fifty thousand different frames, each near to all others."""
    rng, frames = np.random.default_rng(5), 50_000
    words = np.full((frames, 5), 0x0F0F0F0F0F0F0F0F, dtype=np.uint64)
    for word in (0, 0, 1, 2, 3, 4):
        words[:, word] ^= np.uint64(1) << rng.integers(0, 64, frames).astype(np.uint64)
    splits = rng.choice(np.array(["train", "val", "test"], dtype=object), frames)
    first = {name: int(np.flatnonzero(splits == name)[0]) for name in ("train", "val", "test")}
    expected = [min(row for name, row in first.items() if name != own) for own in splits]
    assert near_duplicates(words, splits, np.arange(frames)).tolist() == expected


def test_nothing_has_no_look_alike() -> None:
    empty = np.zeros((0, 5), dtype=np.uint64)
    assert near_duplicates(empty, np.array([], dtype=object), np.array([])).tolist() == []
    assert burst_frames(empty, np.array([], dtype=object), np.array([]), []).tolist() == []


def test_a_look_equals_a_direct_count(tmp_path: Path) -> None:
    for seed in range(5):
        cells = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(cells).resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / "x.png")
        expected = ""
        for size in (8, 16):
            with Image.open(tmp_path / "x.png") as image:
                grey = np.asarray(image.convert("L").resize((size + 1, size), Image.Resampling.LANCZOS)).astype(int)
            expected += "".join(
                str(int(grey[row, column + 1] > grey[row, column]))
                for row, column in itertools.product(range(size), range(size))
            )
        assert int.from_bytes(dhash_of(tmp_path / "x.png"), "big") == int(expected, 2)


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted((shared / "data/coco_mini/val2017").glob("*.jpg"))]


def test_other_photos_are_far_apart(shared: Path) -> None:
    dhashes = [dhash_of(path) for path in sorted((shared / "data/coco_mini").glob("*/*.jpg"))]
    above = np.triu_indices(len(dhashes), 1)
    assert len(dhashes) == 310
    assert NO_DHASH not in dhashes
    assert distances(dhashes, dhashes, 8)[above].min() > COARSE_DISTANCE + 2
    assert distances(dhashes, dhashes, 16)[above].min() > FINE_DISTANCE + 4


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], float]] = {
    "half the size": (lambda image: image.resize((image.width // 2, image.height // 2)), 0.97),
    "brighter, more contrast": (
        lambda image: ImageEnhance.Contrast(ImageEnhance.Brightness(image).enhance(1.2)).enhance(1.1),
        0.95,
    ),
    "grey": (lambda image: image.convert("L"), 0.97),
    "one per cent cut off": (
        lambda image: image.crop((image.width // 100, image.height // 100, image.width, image.height)),
        0.9,
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_photos_are_found(photos: list[Image.Image], tmp_path: Path, name: str) -> None:
    change, share = COPIES[name]
    dhashes = [save(image, tmp_path / "a.jpg", 95) for image in photos] + [
        save(change(image), tmp_path / "b.jpg", 65) for image in photos
    ]
    splits = np.repeat(np.array(["train", "test"], dtype=object), len(photos))
    twins = near_duplicates(as_words(dhashes), splits, np.arange(len(dhashes)))
    partner = np.concatenate([np.arange(len(photos)) + len(photos), np.arange(len(photos))])
    assert set(twins[twins != partner]) <= {-1}, "another photo was taken for a copy"
    assert (twins == partner).mean() >= share


def frames(photo: Image.Image, animal: Image.Image, rng: np.random.Generator) -> list[Image.Image]:
    """A burst: the camera stands still, an animal of a sixteenth of the frame walks, light changes, the sensor has
    noise.
    """
    width, height = photo.size
    animal = animal.resize((width // 4, height // 4))
    result = []
    for step in range(3):
        frame = photo.copy()
        frame.paste(animal, (int(width * (0.1 + 0.25 * step)), height // 2))
        values = np.asarray(ImageEnhance.Brightness(frame).enhance(1 - 0.05 * step)).astype(float)
        values += rng.normal(0, 4, (*values.shape[:2], 1))
        result.append(Image.fromarray(values.clip(0, 255).astype(np.uint8)))
    return result


def test_bursts_across_sides_are_found_and_strangers_are_not(photos: list[Image.Image], tmp_path: Path) -> None:
    """Made bursts on real photos: the last of three frames lies on the test side; another photo comes between bursts on
    the test side, too.
    """
    rng = np.random.default_rng(0)
    dhashes, splits, paths, burst = [], [], [], []
    for number, photo in enumerate(photos[:60]):
        shots = [*frames(photo, photos[(number * 7 + 3) % len(photos)], rng), photos[-1 - number % 40]]
        for shot, split in zip(shots, ("train", "train", "test", "test"), strict=True):
            dhashes.append(save(shot, tmp_path / "a.jpg"))
            splits.append(split)
            paths.append(f"site/IMG_{len(paths)}.JPG")
            burst.append(number if shot is not shots[-1] else -1)
    twins = burst_frames(as_words(dhashes), np.array(splits, dtype=object), np.arange(len(dhashes)), paths)
    burst_of = np.array(burst)
    hits = twins >= 0
    assert (burst_of[hits] == burst_of[twins[hits]]).all(), "a stranger was taken for a frame"
    assert not hits[burst_of < 0].any()
    assert len(set(burst_of[hits])) / 60 >= 0.95


def test_only_neighbours_by_name_are_frames_of_a_burst() -> None:
    words = np.tile(np.arange(1, 6, dtype=np.uint64) * 0x0F0F0F0F0F, (20, 1))
    splits = np.array(["test"] + ["train"] * 19, dtype=object)
    twins = burst_frames(words, splits, np.arange(20), [f"a{number}" for number in range(20)])
    assert twins.tolist() == [1, *[0] * NEIGHBOURS, *[-1] * (19 - NEIGHBOURS)]


def test_names_are_sorted_as_people_do() -> None:
    names = ["b/1.jpg", "a/10.jpg", "a/9.jpg", "a/9b.jpg", "10", "9", "a"]
    assert sorted(names, key=natural_key) == ["9", "10", "a", "a/9.jpg", "a/9b.jpg", "a/10.jpg", "b/1.jpg"]


def test_flat_and_nearly_flat_pictures_have_no_look(tmp_path: Path) -> None:
    flat = Image.new("RGB", (90, 80), "white")
    flat.save(tmp_path / "flat.png")
    flat.paste("black", (42, 42, 48, 48))
    flat.save(tmp_path / "dot.png")
    assert [dhash_of(tmp_path / name) for name in ("flat.png", "dot.png")] == [NO_DHASH, NO_DHASH]


def test_a_file_that_does_not_decode_has_a_fault_and_no_look(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:5000])
    with pytest.raises(Unusable):
        dhash_of(tmp_path / "a.jpg")
    seen = open_image_file("a.jpg", str(tmp_path), full=False, dhashes=True)
    assert "truncated" in seen.fault
    assert not seen.dhash
