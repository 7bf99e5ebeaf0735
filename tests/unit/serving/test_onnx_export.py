"""One ONNX file: the scores of capnet, in another runtime, with all that a program needs to know beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from capnet.config import Runtime, Tte
from capnet.errors import ConfigError, ContractError, DataError
from capnet.serving import onnx_export
from capnet.serving.engine import Served, load_served
from capnet.serving.onnx_export import export

pytestmark = pytest.mark.slow

Make = Callable[..., dict[str, Path]]


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    random = np.random.default_rng(0)
    places = [tmp_path / f"{number}.png" for number in range(3)]
    for workspace, size in zip(places, ((50, 40), (64, 64), (33, 90)), strict=True):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(workspace)
    return places


def load(paths: dict[str, Path]) -> Served:
    return load_served(paths["model"], paths["evaluation"] / "thresholds.json", Runtime(precision="fp32", threads=1))


@pytest.mark.parametrize(
    "weighted",
    [
        {},
        {"capnet": 0.7, "zero_shot": 0.3},
        {"capnet": 0.4, "class_head": 0.3, "linear_probe": 0.2, "zero_shot": 0.1},
        {"class_head": 1.0},
    ],
)
def test_a_program_that_reads_only_the_two_files_gets_the_served_scores(
    make_outputs: Make,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weighted: dict[str, float],
) -> None:
    """With adapters in the blocks; the mixed score runs the tower twice, once without them."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    served, out = load(make_outputs(weighted=weighted)), tmp_path / "there" / "model.onnx"
    measured = export(served, "capnet version 1", out, pictures)
    assert max(measured.single, measured.averaged) < 1e-5
    assert sorted(path.name for path in out.parent.iterdir()) == ["model.json", "model.onnx"]
    about = json.loads((out.parent / "model.json").read_text())
    (note,) = onnx.load(str(out)).metadata_props
    assert (note.key, json.loads(note.value)) == ("capnet", about)
    assert b"onnx_export.py" not in out.read_bytes(), "no stack trace, and so no path of this machine"

    # from here on nothing of capnet: resize, crops, mean and threshold as the file says
    entry, views = about["input"], about["views"]
    side, session = entry["shape"][-1], onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert (views["views"], views["average"], views["resize"]) == (5, "logits", "short")
    decoded, resized, cut = about["steps"]
    assert "transparency on white" in decoded
    assert "shorter edge = input width + views.expand" in resized
    assert "input.interpolation and antialiasing" in resized, "without it scores of photos differ by up to a half"
    assert entry["interpolation"] == "bicubic"
    assert "the four corners of the resized picture and its centre" in cut
    result = []
    for workspace in pictures:
        picture = Image.open(workspace).convert("RGB")
        scale = (side + views["expand"]) / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
        )
        right, bottom = picture.width - side, picture.height - side
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), (right // 2, bottom // 2)]
        crops = (
            np.stack([np.asarray(picture.crop((x, y, x + side, y + side)), dtype=np.float32) for x, y in corners]) / 255
        )
        values = ((crops - np.array(entry["mean"])) / np.array(entry["std"])).transpose(0, 3, 1, 2).astype(np.float32)
        logits = session.run([about["output"]["name"]], {entry["name"]: values})[0]
        result.append(1 / (1 + np.exp(-logits.mean(axis=0))))
    expected = served.scores(pictures)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    assert [item["name"] for item in about["classes"]] == served.names
    assert (np.stack(result) >= [item["threshold"] for item in about["classes"]]).tolist() == (
        expected >= served.class_thresholds
    ).tolist()


def test_at_most_a_hundred_images_of_all_parts_are_compared_and_those_that_cannot_be_read_are_not(
    pictures: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_text("no image")
    assert onnx_export.sample([broken, *pictures]) == pictures
    many = [tmp_path / f"many {number}.png" for number in range(250)]
    for path in many:
        path.symlink_to(pictures[0])
    for count in (101, 150, 199, 250):
        result = onnx_export.sample(many[:count])
        assert len(result) == len(set(result)) == 100
        assert result[0] == many[0]
        assert result[-1] in many[count - 3 : count]
    with pytest.raises(DataError, match="no image to compare on"):
        onnx_export.sample([broken])


def other_order(features: torch.Tensor) -> torch.Tensor:
    return torch.roll(features, 1, dims=0)


def no_numbers(features: torch.Tensor) -> torch.Tensor:
    return torch.full_like(features, torch.nan)


@pytest.mark.parametrize("changed", [other_order, no_numbers])
def test_a_graph_that_scores_otherwise_is_not_written(
    changed: Callable[[torch.Tensor], torch.Tensor],
    make_outputs: Make,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    served, write = load(make_outputs()), onnx_export.write_graph

    def wrong(*arguments: object) -> None:
        features = served.scorer.class_features
        before = features.refined.clone()
        features.refined.copy_(changed(before))
        write(*arguments)
        features.refined.copy_(before)

    monkeypatch.setattr(onnx_export, "write_graph", wrong)
    out = tmp_path / "there" / "model.onnx"
    with pytest.raises(ContractError, match="scores of the ONNX graph differ by"):
        export(served, "capnet version 1", out, pictures)
    assert list(out.parent.iterdir()) == []
    with pytest.raises(ConfigError, match=r"end it in \.onnx"):
        export(served, "capnet version 1", tmp_path / "model.pt", pictures)


@pytest.mark.parametrize("moved", [0, 1])
def test_an_export_that_is_killed_leaves_no_description_without_its_graph(
    make_outputs: Make, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    """Killed before it moves a file to its own name, the first or the second."""
    monkeypatch.setenv("CAPNET_STATE", str(tmp_path / "state"))
    served, out = load(make_outputs()), tmp_path / "there" / "model.onnx"
    out.parent.mkdir()
    for path in (out, out.with_suffix(".json")):
        path.write_text("of an earlier export")
    done, replace = [], os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).parent == out.parent:
            if len(done) == moved:
                raise KeyboardInterrupt
            done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        export(served, "capnet version 1", out, pictures)
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    assert (out.read_bytes() == b"of an earlier export") == (not moved)


SESSION = """
import sys
from pathlib import Path
import onnx
from onnx import TensorProto, helper
from capnet.serving.onnx_export import session
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "graph", ends[:1], ends[1:])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), sys.argv[1])
session(Path(sys.argv[1]), 1)
"""


def test_the_runtime_sends_no_reports_to_its_maker(tmp_path: Path) -> None:
    """What would send them begins with a file of its own among the temporary ones."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", SESSION, str(tmp_path / "model.onnx")]
    subprocess.run(command, check=True, env={**environment, "TMPDIR": str(temporary)})
    assert not list(temporary.iterdir())


def test_every_setting_of_views_has_its_step_in_words() -> None:
    assert set(onnx_export.RESIZED) == set(get_args(Tte.model_fields["resize"].annotation))
    for views in onnx_export.CUTS:
        assert Tte(views=views).views == views
    others = set(range(-1, 30)) - set(onnx_export.CUTS)
    for views in others:
        with pytest.raises(ValidationError):
            Tte(views=views)
