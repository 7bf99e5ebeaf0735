"""Adapters in the last blocks of a tower train on stored tokens as they do on the images themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from capnet import progress
from capnet.config import Params, parse
from capnet.config.train import Head
from capnet.contracts import LabelGraph, make_classes
from capnet.errors import ConfigError
from capnet.model.backbones import load_towers
from capnet.model.capnet import CapNet
from capnet.runtime import prepare
from capnet.state import state_dir
from capnet.steps.train_features import train_features
from capnet.training import scoring, trainer
from capnet.training.distributed import ProcessGroup
from capnet.training.trainer import Fit, Trainer
from tests.unit.model import tiny

NAMES = ["red", "green", "blue"]
COLOURS = np.array([(220, 30, 30), (30, 200, 40), (40, 60, 220)])


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """20 images in the folder data/ of ``tmp_path``, whose labels are the colours in them; a state folder."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    tiny.register("tiny-clip", tmp_path / "configs")
    rng, result = np.random.default_rng(0), []
    (tmp_path / "data").mkdir()
    for number in range(20):
        labels = np.flatnonzero(rng.random(3) < 0.5)
        pixels = rng.integers(90, 160, (48, 60, 3), dtype=np.uint8)
        for c in labels:
            x, y = rng.integers(0, 30), rng.integers(0, 20)
            pixels[y : y + 24, x : x + 24] = COLOURS[c]
        path = tmp_path / "data" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        result.append({"image_id": str(number), "path": path.name, "labels": labels, "unknown": [], "sha256": sha256})
    return pd.DataFrame(result)


def make_trainer(folder: Path, precision: str = "fp32", name: str = "tiny-clip", **runtime: float) -> Trainer:
    params: Params = parse(
        {
            "backbone": {"name": name, "pretrained": "random"},
            "tte": {"expand": 8},
            "runtime": {"threads": 1, "precision": precision, **runtime},
            "train": {
                "epochs": 3,
                "batch_size": 5,
                "views": 2,
                "adapter": {"blocks": 1},
                "head": {"start": "settings"},
                "optimiser": {"lr_adapter": 0.01},
            },
        }
    )
    towers, machine = load_towers(params.backbone, 0), prepare(params.runtime)
    with torch.no_grad():
        graph = LabelGraph(torch.eye(3), towers.text(NAMES), {})
    return Trainer(params, make_classes(NAMES), graph, towers, machine, folder / "data")


def transforms(fitted: Trainer) -> list[trainer.Transform]:
    return [fitted.features.transform(), fitted.features.transform(fitted.params.train.views)]


class Direct:
    """The same views of the same rows, through the whole tower in every step."""

    def __init__(self, fitted: Trainer, model: CapNet, rows: pd.DataFrame) -> None:
        self.fitted, self.model = fitted, model
        self.views = [
            torch.cat([item.tensor(fitted.root, path, sha256) for item in transforms(fitted)])
            for path, sha256 in zip(rows["path"], rows["sha256"], strict=True)
        ]

    def announce(self, batches: Sequence[np.ndarray], epoch: int) -> None:
        """All views are there."""

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor:
        view = np.random.default_rng([self.fitted.params.runtime.seed, epoch, 3]).integers(7, size=len(self.views))
        with self.fitted.machine.autocast():
            return self.model.pooled(torch.stack([self.views[row][view[row]] for row in rows]))


def fit(fitted: Trainer, rows: pd.DataFrame, folder: Path) -> tuple[CapNet, Fit]:
    model = fitted.new_model()
    views = fitted.features.tokens(rows, transforms(fitted), model.blocks_behind_tokens, "training")
    return model, fitted.fit(model, rows, views, folder)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_curve_is_that_of_the_whole_tower(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    fitted = make_trainer(tmp_path, precision)
    model, stored = fit(fitted, rows, tmp_path / "stored")
    model.release_towers()
    other = fitted.new_model()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_images", lambda self, model, rows, views: Direct(self, model, rows))
        direct = fitted.fit(other, rows, None, tmp_path / "direct")
    curves = [[row["loss"] for row in item.history] for item in (stored, direct)]
    assert curves[0] == pytest.approx(curves[1], abs=1e-3)
    assert curves[0][-1] < 0.98 * curves[0][0]
    assert any(name.startswith("block_adapters.adapters.0.up_proj") for name in stored.tensors)
    assert all(stored.tensors[name].abs().sum() > 0 for name in stored.tensors if "block_adapters" in name)
    assert not any(name.startswith("block_adapters.adapters.1") for name in stored.tensors)


def test_images_go_through_the_first_blocks_once_whatever_the_epochs(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, seen = make_trainer(tmp_path), []
    patches = fitted.towers.image.visual.conv1
    patches.register_forward_hook(lambda module, arguments, output: seen.append(len(output)))
    model, first = fit(fitted, rows, tmp_path / "a")
    scores = scoring.served_scores(fitted, model, rows.iloc[:6], None, "validation")
    # the last pass is filled up to 8, and one image each time for the size of its tokens
    assert sum(seen) == 20 * 7 + 4 + 2
    model.release_towers()
    _, second = fit(make_trainer(tmp_path), rows, tmp_path / "b")
    assert first.history == second.history
    assert all(torch.equal(tensor, second.tensors[name]) for name, tensor in first.tensors.items())
    views = torch.stack(
        [fitted.features.transform().tensor(fitted.root, *row) for row in rows.iloc[:6][["path", "sha256"]].to_numpy()]
    )
    whole = fitted.new_model()
    whole.load_trained(first.tensors, "")
    with torch.no_grad():
        logits = torch.stack([whole(item).mean(dim=0) for item in views])
    np.testing.assert_allclose(scores, logits.sigmoid(), atol=1e-3)


def test_tokens_that_the_store_may_not_hold_are_refused_with_their_size(rows: pd.DataFrame, tmp_path: Path) -> None:
    fitted = make_trainer(tmp_path, feature_gigabytes=1e-4)
    with pytest.raises(ConfigError, match=r"20 training images take 0\.0 GB.*is 0\.0001") as caught:
        fitted.features.tokens(rows, transforms(fitted), 1, "training")
    assert "train.views" in str(caught.value)
    assert not list(state_dir("features").rglob("*.arrow"))


def test_the_main_process_scores_without_waiting_for_the_others(rows: pd.DataFrame, tmp_path: Path) -> None:
    fitted = make_trainer(tmp_path)
    model = fitted.new_model()
    expected = scoring.served_scores(fitted, model, rows.iloc[:3], None, "validation")
    one_of_two = replace(fitted, process_group=ProcessGroup(0, 2))  # a barrier would raise: there is no group
    scores = scoring.served_scores(one_of_two, model, rows.iloc[3:6], None, "validation")
    assert scores.shape == expected.shape


def test_scores_by_a_whole_tower_in_training_say_how_far_they_are(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    caplog.set_level("INFO", progress.__name__)
    fitted = make_trainer(tmp_path)
    adapter = fitted.params.train.adapter.model_copy(update={"blocks": 0})
    train = fitted.params.train.model_copy(update={"adapter": adapter})
    fitted = replace(fitted, params=fitted.params.model_copy(update={"train": train}))
    scoring.served_scores(fitted, fitted.new_model(), rows, None, "held-out")
    assert "scores of held-out pictures: 20 of 20, about 0 s left" in caplog.messages


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-not-causal"])
def test_stored_tokens_are_handed_on_in_the_precision_of_the_blocks_before(tmp_path: Path, name: str) -> None:
    tiny.register(name, tmp_path / name)
    fitted = make_trainer(tmp_path, "bf16", name)
    model, size = fitted.new_model(), fitted.towers.preprocess.size
    with torch.no_grad():
        with fitted.machine.autocast():
            tokens = fitted.towers.image.tokens(torch.randn(2, 3, size, size), 1)
            stored = tokens.half()
            expected = fitted.towers.image.pooled_of_tokens(stored.to(tokens.dtype), 1).float()
        assert torch.equal(fitted.features.pooled_of_tokens(model, stored.float()), expected)


def test_features_without_adapters_are_the_towers_own_also_where_adapters_are_in_it(
    rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = make_trainer(tmp_path, "bf16")
    settings = fitted.params.train.model_copy(update={"head": Head(), "blend": "held_out"})
    fitted = replace(fitted, params=fitted.params.model_copy(update={"train": settings}))
    expected = fitted.features.pooled(rows, fitted.features.transform(), "training")[:]
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "another"))
    stored = train_features(fitted, fitted.new_model(), rows.iloc[:15], rows.iloc[15:])
    assert stored.plain is not None
    assert stored.validation is not None
    assert torch.equal(torch.cat([stored.plain[:], stored.validation[:]]), expected)
