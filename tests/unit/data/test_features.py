"""Cached features equal those computed directly, and are made again when anything they depend on changes."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from capnet.config import Runtime, Tte
from capnet.data.features import Look, live_features, pooled_features
from capnet.errors import DataError
from capnet.runtime import prepare

LOOK = Look(16, (0.5,) * 3, (0.5,) * 3, "bicubic", tte=Tte(views=5, expand=4))


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
        self.calls += len(images)
        return images.mean(dim=(2, 3))


def compute(tower, pictures, look=LOOK, weights="w"):
    rows, root = pictures
    return pooled_features(tower, weights, rows, root, look, prepare(Runtime(precision="fp32")), 2, "test")


def test_features_are_those_of_each_view_in_order(pictures):
    rows, root = pictures
    found = compute(Tower(), pictures)
    assert found.shape == (7, 5, 3)
    for number, (path, sha256) in enumerate(zip(rows["path"], rows["sha256"], strict=True)):
        assert torch.allclose(found[number], LOOK.tensor(root, path, sha256).mean(dim=(2, 3)), atol=1e-6)
    assert torch.equal(live_features(Tower(), rows, root, LOOK, prepare(Runtime(precision="fp32")), 2, "test"), found)


def test_the_cache_answers_until_pictures_weights_or_views_change(pictures):
    rows, root = pictures
    tower = Tower()
    first = compute(tower, pictures)
    assert tower.calls == 35
    assert torch.equal(compute(tower, pictures), first)
    assert tower.calls == 35
    compute(tower, pictures, weights="other")
    assert tower.calls == 70
    compute(tower, pictures, Look(16, (0.5,) * 3, (0.5,) * 3, "bicubic", tte=Tte(views=1, expand=4)))
    assert tower.calls == 77
    compute(tower, (rows.iloc[:3], root))
    assert tower.calls == 92


def test_random_views_depend_on_seed_and_content_not_on_order(pictures):
    rows, root = pictures
    look = Look(16, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=3, seed=5)
    found = compute(Tower(), pictures, look)
    backwards = compute(Tower(), (rows.iloc[::-1], root), look)
    assert torch.allclose(found, backwards.flip(0))
    other = compute(Tower(), pictures, Look(16, (0.5,) * 3, (0.5,) * 3, "bicubic", random_views=3, seed=6))
    assert not torch.allclose(found, other)


def test_features_that_are_not_finite_name_the_picture_and_are_not_kept(pictures):
    def tower(images):
        return torch.full((len(images), 2), float("inf"))

    with pytest.raises(DataError, match=r"0\.png"):
        compute(tower, pictures)
    with pytest.raises(DataError, match=r"0\.png"):
        compute(tower, pictures)
