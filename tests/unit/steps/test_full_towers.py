"""ViT-B-16 and RN50 of full size with random weights: with every part they train, resume and leave as ONNX."""

import json

import numpy as np
import onnxruntime
import pytest

from capnet.config import parse
from capnet.contracts import read_tensors
from capnet.serving.engine import load_served
from capnet.serving.onnx_export import export
from capnet.stages import STAGES, run
from capnet.training import checkpoint, trainer
from tests.unit.steps import small_training
from tests.unit.steps.small_training import write_inputs

pytestmark = pytest.mark.slow

made = small_training.made


@pytest.mark.parametrize(("backbone", "adapter_of"), [("ViT-B-16", "block_adapters"), ("RN50", "adapter")])
def test_every_part_trains_on_is_resumed_and_exported(backbone, adapter_of, made, monkeypatch):
    folder, frame = made
    frame = frame.iloc[:10].assign(split=["test"] + ["train"] * 4 + ["val"] * 4 + ["test"])
    write_inputs(folder, frame)
    params = parse(
        {
            "backbone": {"name": backbone, "pretrained": "random"},
            "tte": {"views": 1, "size": 64, "expand": 0},
            "runtime": {"threads": 1, "precision": "fp32"},
            "train": {
                "epochs": 2,
                "batch_size": 2,
                "views": 1,
                "validate_every": 2,
                "class_head": {"enabled": True},
                "blend": "held_out",
            },
            "evaluate": {"bootstrap": 100},
        }
    )

    def stage(name):
        described = STAGES[name]
        inputs, outputs = ({key: folder / key for key in keys} for keys in (described.inputs, described.outputs))
        run(name, params, inputs, outputs)

    stage("graph")
    losses, step = [], trainer.Trainer.step

    def killed(self, *arguments):
        if len(losses) == 3:
            raise KeyboardInterrupt
        losses.append(step(self, *arguments))
        return losses[-1]

    monkeypatch.setattr(checkpoint, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(checkpoint, "SAVE_PAUSE", 0.0)
    monkeypatch.setattr(trainer.Trainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        stage("train")
    monkeypatch.setattr(trainer.Trainer, "step", lambda *arguments: losses.append(step(*arguments)) or losses[-1])
    stage("train")
    assert len(losses) == 4, "one step was left of two epochs of two"
    assert np.isfinite([float(loss.detach()) for loss, _ in losses]).all()
    tensors, _ = read_tensors(folder / "model" / "model.safetensors")
    assert {name.split(".")[0] for name in tensors} == {
        "prompt",
        "gcn",
        adapter_of,
        "class_head",
        "linear_probe",
        "logit_scale",
        "logit_bias",
    }
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    path = folder / "model" / "config.json"
    thirds = {"weights": {"capnet": 0.4, "class_head": 0.3, "linear_probe": 0.3}}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"blend": thirds}))
    stage("evaluate")
    served = load_served(folder / "model", folder / "evaluation" / "thresholds.json", params.runtime)
    pictures = [folder / "data" / path for path in frame["path"][frame["split"] == "test"]]
    measured = export(served, "capnet version 1", folder / "there" / "model.onnx", pictures)
    assert max(measured.single, measured.averaged) < 1e-4
    session = onnxruntime.InferenceSession(str(folder / "there" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[-2:] == [64, 64]
