"""Cached features equal those computed directly, and are made again when anything they depend on changes."""

import hashlib
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch import nn

from capnet.config import Runtime, Tte
from capnet.data.images import features, stream
from capnet.data.images.features import pooled_features
from capnet.data.images.store import write_segment
from capnet.data.images.transform import Transform
from capnet.errors import DataError
from capnet.runtime import prepare

LOOK = Transform(16, (0.5,) * 3, (0.5,) * 3, "bicubic", tte=Tte(views=5, expand=4))


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    rng = np.random.default_rng(0)
    for number in range(7):
        Image.fromarray(rng.integers(0, 255, (20 + number, 30, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    hashes = [hashlib.sha256((tmp_path / f"{number}.png").read_bytes()).hexdigest() for number in range(7)]
    return pd.DataFrame({"path": [f"{number}.png" for number in range(7)], "sha256": hashes}), tmp_path


class Tower:
    calls = 0

    def __call__(self, images):
        self.calls += len(torch.unique_consecutive(images, dim=0))  # without repetitions that fill a pass
        return images.mean(dim=(2, 3))


def compute(tower, pictures, transform=LOOK, weights="w"):
    rows, root = pictures
    return pooled_features(tower, weights, rows, root, transform, prepare(Runtime(precision="fp32")), 2, "test")[:]


def test_features_are_those_of_each_view_in_order(pictures):
    rows, root = pictures
    result = compute(Tower(), pictures)
    assert result.shape == (7, 5, 3)
    for number, (path, sha256) in enumerate(zip(rows["path"], rows["sha256"], strict=True)):
        assert torch.equal(result[number], LOOK.tensor(root, path, sha256).mean(dim=(2, 3)).half().float())
    machine = prepare(Runtime(precision="fp32"))
    parts = list(stream.stream(Tower(), LOOK.items(rows), root, LOOK, machine, 2, len(rows)))
    assert torch.equal(torch.cat([part.features for part in parts]).half().float(), result)


def test_the_cache_answers_until_pictures_weights_or_views_change(pictures):
    rows, root = pictures
    tower = Tower()
    first = compute(tower, pictures)
    assert tower.calls == 35
    assert torch.equal(compute(tower, pictures), first)
    assert tower.calls == 35
    compute(tower, pictures, weights="other")
    assert tower.calls == 70
    compute(tower, pictures, Transform(16, (0.5,) * 3, (0.5,) * 3, "bicubic", tte=Tte(views=1, expand=4)))
    assert tower.calls == 77
    assert torch.equal(compute(tower, (rows.iloc[[4, 1, 4]], root)), first[[4, 1, 4]])
    assert tower.calls == 77


@pytest.mark.parametrize("kernels", [3, 4])  # before transparent PNGs of 16 bits, and before TIFFs in planes
def test_features_from_before_pixels_were_read_right_are_computed_again(pictures, monkeypatch, kernels):
    tower = Tower()
    with monkeypatch.context() as earlier:
        earlier.setattr(features, "KERNELS", kernels)
        compute(tower, pictures)
    compute(tower, pictures)
    assert tower.calls == 70


@pytest.mark.parametrize(
    "damage",
    [
        np.zeros((7, 4, 3), np.float16),
        np.zeros((7, 15), np.float16),
        np.full((7, 5, 3), np.nan, np.float16),
        np.zeros((7, 5, 3), np.int64),
        np.zeros((7, 5, 3), np.float32),
        pa.table({"x": [1] * 7}),
        pa.table({"sha256": [], "check": [], "features": []}),
        b"",
        b"x" * 1000,
    ],
)
def test_a_damaged_store_is_made_again(pictures, tmp_path, damage):
    first = compute(Tower(), pictures)
    (path,) = (tmp_path / "state").rglob("*.arrow")
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif isinstance(damage, pa.Table):
        with pa.ipc.new_file(path, damage.schema) as file:
            file.write_table(damage)
    else:
        write_segment(path, pictures[0]["sha256"].tolist(), damage)
    tower = Tower()
    assert torch.equal(compute(tower, pictures), first)
    assert tower.calls == 35
    assert torch.equal(compute(tower, pictures), first)
    assert tower.calls == 35


def test_random_views_depend_on_seed_and_content_not_on_order(pictures):
    rows, root = pictures
    transform = Transform(16, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=3, seed=5)
    result = compute(Tower(), pictures, transform)
    backwards = compute(Tower(), (rows.iloc[::-1], root), transform)
    assert torch.allclose(result, backwards.flip(0))
    other = compute(Tower(), pictures, Transform(16, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=3, seed=6))
    assert not torch.allclose(result, other)


def test_only_new_images_are_computed_and_seeds_share_test_time_views(pictures):
    rows, root = pictures
    tower = Tower()
    compute(tower, (rows.iloc[:4], root))
    before = tower.calls
    everything = compute(tower, pictures, replace(LOOK, seed=7, tte=Tte(views=5, expand=4, average="probabilities")))
    assert tower.calls - before == 3 * 5
    assert torch.equal(everything, compute(Tower(), pictures, weights="elsewhere"))


def test_equal_images_are_computed_once(pictures):
    rows, root = pictures
    tower = Tower()
    assert compute(tower, (pd.concat([rows] * 3, ignore_index=True), root)).shape == (21, 5, 3)
    assert tower.calls == 35


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 70_000.0])
def test_features_that_16_bits_cannot_hold_name_the_picture_and_are_not_kept(pictures, value):
    def tower(images):
        return torch.full((len(images), 2), value)

    with pytest.raises(DataError, match=r"0\.png"):
        compute(tower, pictures)
    with pytest.raises(DataError, match=r"0\.png"):
        compute(tower, pictures)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batches_side_by_side_give_the_bits_of_one_after_the_other(pictures, monkeypatch, precision):
    rows, root = pictures
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).requires_grad_(False)
    seen = []

    def tower(images):
        seen.append((threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled(), len(images)))
        time.sleep(0.02 if images.sum() > 0 else 0.001)  # the first are not the first to be ready
        return network(images)

    monkeypatch.setattr(stream, "BATCH_VIEWS", 4)
    machine = prepare(Runtime(precision=precision, threads=2))
    first = pooled_features(tower, "w", rows, root, LOOK, machine, 2, "test")[:]
    assert {(threads, grad) for _, threads, grad, _ in seen} == {(2, False)}
    assert [size for *_, size in seen] == [4] * 9
    seen.clear()
    second = pooled_features(tower, "of another folder", rows, root, LOOK, machine, 2, "test", concurrent=True)[:]
    assert torch.equal(first, second)
    assert {(threads, grad) for _, threads, grad, _ in seen} == {(1, False)}
    assert len({workspace for workspace, *_ in seen}) == 2
    assert [size for *_, size in seen] == [4] * 9
    assert torch.get_num_threads() == 2


def test_one_new_image_is_computed_in_one_thread_as_all_of_an_empty_store_are(pictures):
    """Threads that share a batch round in another way: a store that was filled in two runs had other bits."""
    rows, root = pictures
    machine, seen = prepare(Runtime(precision="fp32", threads=2)), []

    def tower(images):
        seen.append(torch.get_num_threads())
        return images.mean(dim=(2, 3))

    for some in (rows.iloc[:6], rows):
        pooled_features(tower, "w", some, root, LOOK, machine, 2, "test", concurrent=True)
    assert len(seen) == 5
    assert set(seen) == {1}
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("concurrent", [False, True])
def test_features_do_not_depend_on_how_many_images_were_missing(pictures, monkeypatch, concurrent):
    """A vision transformer rounds by the size of a pass: here every number depends on it."""
    rows, root = pictures
    machine = prepare(Runtime(precision="fp32", threads=2))

    def tower(images):
        return images.mean(dim=(2, 3)) + len(images)

    def state(name):
        monkeypatch.setenv("CAPNET_STATE", str(root.parent / name))

    state("at once")
    whole = pooled_features(tower, "w", rows, root, LOOK, machine, 2, "test", concurrent)[:]
    state("in three runs")
    for some in (rows.iloc[:1], rows.iloc[:6], rows):
        parts = pooled_features(tower, "w", some, root, LOOK, machine, 2, "test", concurrent)[:]
    assert torch.equal(whole, parts)


def test_an_error_in_one_of_the_threads_is_raised_and_nothing_is_kept(pictures, tmp_path):
    def tower(images):
        raise ValueError("no kernel for this")

    rows, root = pictures
    machine = prepare(Runtime(precision="fp32", threads=2))
    with pytest.raises(ValueError, match="no kernel"):
        pooled_features(tower, "w", rows, root, LOOK, machine, 2, "test", concurrent=True)
    assert torch.get_num_threads() == 2
    assert not list((tmp_path / "state").rglob("*.arrow"))


def test_an_image_that_is_another_one_than_its_row_says_is_refused_and_its_features_are_not_kept(pictures):
    """Else the features of the wrong picture would be those of the right one, for every project on this machine."""
    _, root = pictures
    right = (root / "3.png").read_bytes()
    Image.new("RGB", (30, 23), "red").save(root / "3.png")
    with pytest.raises(DataError, match=r"another file than ingest saw(.|\n)*3\.png"):
        compute(Tower(), pictures)
    (root / "3.png").write_bytes(right)
    rows = pictures[0]
    expected = LOOK.tensor(root, "3.png", rows["sha256"][3]).mean(dim=(2, 3)).half().float()
    assert torch.equal(compute(Tower(), pictures)[3], expected)
