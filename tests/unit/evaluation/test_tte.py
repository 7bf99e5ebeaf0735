"""Scores of a tower with adapters: many images a forward pass, one encode of the classes, the scores of one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from capnet import progress
from capnet.config import Runtime
from capnet.data.images.stream import BATCH_VIEWS
from capnet.evaluation.tte import Scorer
from capnet.model.prompts import PromptLearner
from capnet.model.towers import ImageTower

pytestmark = pytest.mark.slow


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(13)]
    for number, path in enumerate(paths):
        Image.fromarray(random.integers(0, 256, (40 + number, 60, 3), dtype=np.uint8)).save(path)
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    return pd.DataFrame({"path": [path.name for path in paths], "sha256": hashes})


def test_a_trained_tower_scores_many_images_at_once_and_encodes_its_classes_once(
    make_outputs: Callable[..., dict[str, Path]], rows: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    encoded, passes = [], []
    prompts, pooled = PromptLearner.forward, ImageTower.pooled

    def count_encodes(learner: PromptLearner, *arguments: Any) -> torch.Tensor:
        encoded.append(1)
        return prompts(learner, *arguments)

    def count_passes(tower: ImageTower, images: torch.Tensor) -> torch.Tensor:
        passes.append(len(images))
        return pooled(tower, images)

    monkeypatch.setattr(PromptLearner, "forward", count_encodes)
    scorer = Scorer(make_outputs()["model"], Runtime(precision="fp32"))
    model, tte = scorer.loaded.model, scorer.loaded.tte
    assert not model.tower_is_frozen
    monkeypatch.setattr(ImageTower, "pooled", count_passes)
    result = [scorer.score(part, tmp_path, "test").scores for part in (rows[:9], rows[9:].reset_index(drop=True))]
    assert len(encoded) == 1
    views = [9 * tte.views, 4 * tte.views]
    full = sum(-(-count // BATCH_VIEWS) for count in views)
    assert len(passes) == 2 * full  # with adapters and without
    assert sum(passes) == sum(views) + full * BATCH_VIEWS  # those for the feature store are filled up

    centre = {1: 0, 5: 4, 10: 4}[tte.views]
    for number, (path, sha256) in enumerate(zip(rows["path"], rows["sha256"], strict=True)):
        images = scorer.transform.tensor(tmp_path, path, sha256)
        with torch.no_grad():
            adapted, plain = model.pooled(images), model.pooled(images, adapted=False)
            plain = plain.half().float()  # as the feature store keeps them
            members = model.members(adapted, model.class_features(), plain)
        served, zero_shot = (item.double() for item in (model.served(members), members["zero_shot"]))
        expected = {
            "capnet": served.mean(dim=0),
            "zero_shot": zero_shot.mean(dim=0),
            "single_view": served[centre],
            "zero_shot_single_view": zero_shot[centre],
        }
        part, row = (result[0], number) if number < 9 else (result[1], number - 9)
        for name, logits in expected.items():
            np.testing.assert_allclose(part[name][row], logits.sigmoid().numpy(), atol=2e-6, err_msg=name)


def test_scores_of_a_trained_tower_say_how_far_they_are(
    make_outputs: Callable[..., dict[str, Path]],
    rows: pd.DataFrame,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    caplog.set_level("INFO", progress.__name__)
    scorer = Scorer(make_outputs()["model"], Runtime(precision="fp32"))
    assert not scorer.loaded.model.tower_is_frozen
    scorer.score(rows, tmp_path, "test")
    assert "scores of test pictures: 13 of 13, about 0 s left" in caplog.messages


@pytest.mark.parametrize("trained", ["bf16", "fp32"])
def test_a_model_is_measured_in_the_precision_it_was_trained_in(make_outputs: Any, trained: str) -> None:
    model = make_outputs()["model"]
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"precision": trained}))
    assert Scorer(model, Runtime(threads=1)).machine.bf16 == (trained == "bf16")
    assert not Scorer(model, Runtime(threads=1, precision="fp32")).machine.bf16
