"""A tower with CLIP's geometry trains about as well as the same tower without it: real photos, start values from the
data.
"""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from benchmarks import ablation_sets
from benchmarks.ablation_sets import Set
from capnet.commands.preset import read
from capnet.config import override
from capnet.evaluation.metrics import average_precision, mean_over
from capnet.model.towers import Towers
from capnet.model.towers.text import TextTower
from capnet.training.scoring import combine

pytestmark = pytest.mark.slow

ALLOWED = {"own": 1.0, "voc-lt": 2.0, "coco-lt": 2.0}  # points
# two seeds of the benchmark presets differ by up to 3 points on these photos, and roundings of another kind of CPU are
# like another seed: the mean of two was once 2.4 lower where that of six was not
SEEDS = {"own": range(2), "voc-lt": range(6), "coco-lt": range(6)}
SPLITS = {"train2017": "train", "val2017": "test"}
# of a unit vector that still tells images and texts apart; their cosine without it
IMAGE_SHARE, TEXT_SHARE, OVERLAP = (0.6, 0.5, 0.2)


class Shifted(nn.Module):
    """An image tower whose joint features share a constant direction, as all of CLIP's images do."""

    def __init__(self, image: Any) -> None:
        super().__init__()
        self.image = image
        self.blocks, self.is_convolutional = image.blocks, image.is_convolutional

    def pooled(self, images: Tensor) -> Tensor:
        return self.image.pooled(images)

    def project(self, pooled: Tensor) -> Tensor:
        first = OVERLAP / (1 - TEXT_SHARE**2) ** 0.5
        constant = torch.tensor([first, (1 - IMAGE_SHARE**2 - first**2) ** 0.5])
        v = IMAGE_SHARE * normalize(self.image.project(pooled), dim=-1)
        return torch.cat([v, constant.expand(len(v), 2)], dim=1)


class ShiftedText(TextTower):
    """A text tower whose features share a constant direction, as all of CLIP's texts do."""

    def __init__(self, towers: Towers) -> None:
        super().__init__(towers.text.tokenizer)
        self.text, self.centre = towers.text, towers.centre
        self.used_length = towers.text.used_length

    @property
    def word_embedding(self) -> nn.Module:
        return self.text.word_embedding

    def encode(self, embeddings: Tensor, tokens: Tensor) -> Tensor:
        t = TEXT_SHARE * normalize(self.centre(self.text.encode(embeddings, tokens)), dim=-1)
        return torch.cat([t, torch.tensor([(1 - TEXT_SHARE**2) ** 0.5, 0.0]).expand(len(t), 2)], dim=1)


def clip_like(towers: Towers) -> Towers:
    """The same towers in another geometry: ranks of zero-shot stay, cosines lie near 0.2 and texts near 0.75 to each
    other.
    """
    return replace(
        towers, image=Shifted(towers.image), text=ShiftedText(towers), embed_dim=towers.embed_dim + 2, centring=None
    )


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """coco_mini as a folder with labels.csv."""
    source, target = shared / "data" / "coco_mini", tmp_path_factory.mktemp("coco-mini")
    with open(source / "class_counts.csv", newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    (target / "classes.csv").write_text("\n".join(["name", *names]) + "\n")
    lines = ["path,labels,split"]
    with open(source / "images.csv", newline="") as file:
        for row in csv.DictReader(file):
            labels = "|".join(names[int(label)] for label in row["labels"].split())
            lines.append(f"{row['split']}/{row['image']}.jpg,{labels},{SPLITS[row['split']]}")
    (target / "labels.csv").write_text("\n".join(lines) + "\n")
    for name in ("train2017", "val2017"):
        (target / name).symlink_to(source / name)
    return target


@pytest.fixture(scope="module")
def sets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Set]]:
    """Of each preset, the photos with the plain tower and with CLIP's geometry; features of the tower are the same."""
    result: dict[str, dict[str, Set]] = {}
    plain = ablation_sets.towers_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPNET_STATE", str(tmp_path_factory.mktemp("state")))
        for preset in ("own", "voc-lt", "coco-lt"):
            more = [
                "backbone.name=lit-efflite0-minilm",
                "backbone.pretrained=wheels",
                "backbone.centre=true",
                "backbone.stages=true",  # one set of features for all; only the class head of own takes those of stages
                "runtime.threads=1",
                "train.views=1",
            ]
            more += [
                "split.method=natural",
                "split.validation.source=train",
                "split.benchmark=none",
                "train.prompt.enabled=false",
            ]
            if preset != "own":  # which selects an epoch; for the others the last one is all that counts
                more.append("train.validate_every=1000")
            base = override(read(preset).model_dump(mode="json", by_alias=True), more)
            result[preset] = {}
            for geometry in ("plain", "clip"):
                patch.setattr(
                    ablation_sets,
                    "towers_of",
                    plain if geometry == "plain" else lambda *arguments: clip_like(plain(*arguments)),
                )
                result[preset][geometry] = Set("coco-mini", folder, base)
            # features in front of the geometry are the same
            assert torch.equal(result[preset]["plain"].crops["train"], result[preset]["clip"].crops["train"])
    return result


def test_the_geometry_is_that_of_clip_and_zero_shot_ranks_as_before(sets: dict[str, dict[str, Set]]) -> None:
    data = sets["own"]
    settings = data["plain"].trainer({}, 0).params
    towers = ablation_sets.towers_of(settings.backbone, settings.tte.size)
    pooled = data["plain"].crops["test"].mean(dim=1)[:, : towers.pooled_dim]  # without those of earlier stages
    cosines = {}
    for name, tower in (("plain", towers), ("clip", clip_like(towers))):
        t = normalize(tower.centre(data[name].text), dim=-1)
        cosines[name] = normalize(tower.image.project(pooled), dim=-1) @ t.T
        if name == "clip":
            between = (t @ t.T)[~torch.eye(len(t), dtype=torch.bool)]
            assert between.mean().item() == pytest.approx(0.75, abs=0.05)
    assert cosines["clip"].mean().item() == pytest.approx(0.2, abs=0.02)
    assert cosines["clip"].std().item() == pytest.approx(0.03, abs=0.01)
    # the same order, up to cosines that are equal but for their rounding, which differs between builds of torch
    in_order = cosines["plain"].double().gather(0, cosines["clip"].argsort(dim=0))
    assert in_order.diff(dim=0).min() >= -1e-6


@pytest.mark.parametrize("preset", ["own", "voc-lt", "coco-lt"])
def test_presets_reach_with_clips_geometry_what_they_reach_without(
    preset: str, sets: dict[str, dict[str, Set]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ablation_sets.towers_of
    reached = {}
    for geometry, data in sets[preset].items():
        monkeypatch.setattr(
            ablation_sets,
            "towers_of",
            plain if geometry == "plain" else lambda *arguments: clip_like(plain(*arguments)),
        )
        trainer = data.trainer({}, 0)
        labels = trainer.labels(data.rows["test"])
        values = []
        for seed in SEEDS[preset]:
            trained = data.train({}, seed)
            weights = trained.blend.weights if preset == "own" else {"capnet": 1.0}
            scores = combine(trained.members, weights, trainer.params.tte.average)
            values.append(mean_over(average_precision(labels.targets.numpy(), scores, labels.known.numpy())))
        reached[geometry] = 100 * float(np.mean(values))
    assert reached["clip"] > reached["plain"] - ALLOWED[preset]
