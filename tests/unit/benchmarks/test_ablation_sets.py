"""A set of the ablation: its graph and what it serves are those of the settings, as the stages have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import ablation_sets
from benchmarks.ablation_sets import Set, merged
from capnet.commands.preset import read
from capnet.config import Backbone
from capnet.errors import ConfigError
from capnet.model.towers import Towers
from tests.unit.model import tiny

SPLITS = ("train", "train", "val", "test")
SETTINGS = {
    "backbone": {"name": "tiny-clip", "pretrained": "random"},
    "runtime": {"threads": 1, "device": "cpu", "precision": "fp32", "workers": 0},
    "tte": {"views": 1},
    "train": {"epochs": 1, "views": 1, "refit": False, "prompt": {"enabled": False}},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty images of four classes."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    tiny.register("tiny-clip", tmp_path / "configs")
    ablation_sets.towers_of.cache_clear()
    folder, rng, lines = tmp_path / "set", np.random.default_rng(0), ["path,labels,split"]
    folder.mkdir()
    for image in range(40):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{image}.png")
        lines.append(f"{image}.png,thing {image % 4}|thing {image % 4 // 2},{SPLITS[image // 4 % 4]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def settings(change: dict[str, Any]) -> dict[str, Any]:
    return merged(merged(read("own").model_dump(mode="json", by_alias=True), SETTINGS), change)


def test_the_graph_is_that_of_its_source(folder: Path) -> None:
    graphs = {
        source: Set("made", folder, settings({"graph": {"source": source}})).trainer({}, 0).label_graph.adjacency
        for source in ("text", "cooccurrence", "blend")
    }
    # thing 3 is only seen with thing 1
    assert graphs["cooccurrence"][3].tolist() == pytest.approx([0.0, 0.2, 0.0, 0.8])
    assert not torch.equal(graphs["blend"], graphs["text"])
    assert not torch.equal(graphs["blend"], graphs["cooccurrence"])


def test_a_tower_that_would_be_trained_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="in_blocks = true trains the image tower"):
        Set("made", folder, settings({"train": {"adapter": {"in_blocks": True}}}))


@pytest.mark.slow  # trains
def test_without_a_blend_the_weights_of_the_settings_are_served(folder: Path) -> None:
    change = {"train": {"blend": "none", "zero_shot_weight": 0.25, "class_head": {"enabled": False}}}
    served = Set("made", folder, settings(change)).train({}, 0).blend.weights
    assert served == {"capnet": 0.75, "zero_shot": 0.25}


@pytest.mark.slow  # trains
@pytest.mark.parametrize("refit", [False, True])
def test_a_training_does_not_depend_on_those_before_it(refit: bool, folder: Path) -> None:
    """Adapters in the text tower are hooks on towers that all trainings share."""
    change = {"prompt": {"enabled": True}, "adapter": {"towers": "image+text"}, "refit": refit, "out_of_fold": False}
    data = Set("made", folder, settings({"train": change}))
    first, second = (data.train({}, 0).members["capnet"] for _ in range(2))
    assert torch.equal(first, second)


def test_towers_are_where_the_machine_computes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are sent to the GPU where there is one, whatever the towers are on."""
    towers_of, devices = ablation_sets.towers_of, list[tuple[object, ...]]()

    def recorded(backbone: Backbone, size: int, *device: str) -> Towers:
        devices.append(device)
        return towers_of(backbone, size, *device)

    monkeypatch.setattr(ablation_sets, "towers_of", recorded)
    machine = Set("made", folder, settings({})).trainer({}, 0).machine
    assert devices == [(str(machine.device),)] * 2
