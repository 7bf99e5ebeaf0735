"""The equations of docs/method.md, written out in NumPy from the tensors of a trained model, against the scores that
stage evaluate writes.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from capnet.config import parse
from capnet.contracts import read_json, read_predictions, read_tensors
from capnet.evaluation.tte import Scorer
from capnet.stages import run
from tests.unit.model import tiny
from tests.unit.steps import small_training
from tests.unit.steps.small_training import NAMES, write_inputs

made = small_training.made
S, TAU, PHRASE = 0.2, 0.3, "a photo of a"


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def label_graph(z):
    """Of two entries kept in a row, as a softmax."""
    r, a = unit(z) @ unit(z).T, np.zeros((len(z), len(z)))
    for c, row in enumerate(r):
        neighbour = max((d for d in range(len(z)) if d != c), key=row.__getitem__)
        a[c, neighbour], a[c, c] = S, 1 - S
    s = np.where(a > 0, np.exp(a / TAU), 0.0)
    return s / s.sum(axis=1, keepdims=True)


def learned_text(tower, tokenizer, context):
    """open_clip's own way through its text tower, at full length, with learned vectors instead of the phrase."""
    tokens = tokenizer([f"{PHRASE} {name}." for name in NAMES])
    with torch.no_grad():
        x = tower.token_embedding(tokens)
        x[:, 1 : 1 + context.shape[1]] = torch.from_numpy(context).float()
        x = tower.transformer(x + tower.positional_embedding, attn_mask=tower.attn_mask)
        x = tower.ln_final(x)[torch.arange(len(tokens)), tokens.argmax(dim=1)] @ tower.text_projection
    return x.double().numpy()


def gcn(adjacency, text, weights):
    h = text
    for number, weight in enumerate(weights):
        h = adjacency @ (h @ weight)
        h = np.where(h > 0, h, 0.2 * h) if number < 2 else h
    return text + h


def member_logits(tensors, x, z, f):
    """By member, [image, view, class], of pooled features ``x`` [image, view, pooled], which lie in the joint space."""
    t, v = tensors, unit(x)
    hidden = (x - t["adapter.mean"]) / t["adapter.spread"] @ t["adapter.down_proj.weight"].T
    hidden = np.maximum(hidden + t["adapter.down_proj.bias"], 0)
    added = t["adapter.scale"] * (hidden @ t["adapter.up_proj.weight"].T + t["adapter.up_proj.bias"])
    visual = (x - t["class_head.mean"]) / t["class_head.spread"] @ t["class_head.weight"].T
    head = np.exp(t["class_head.logit_scale"]) * v @ unit(z).T + t["class_head.logit_bias"]
    scale, bias = np.exp(t["logit_scale"]), t["logit_bias"]
    return {
        "capnet": scale * unit(v + added) @ unit(f).T + bias,
        "class_head": head + visual,
        "linear_probe": unit(x - t["linear_probe.centre"]) @ t["linear_probe.weight"].T + t["linear_probe.bias"],
        "zero_shot": scale * v @ unit(z).T + bias,
    }


@pytest.mark.slow
def test_scores_are_the_written_equations(made, tmp_path):
    folder, frame = made
    write_inputs(folder, frame)
    tiny.register("tiny-resnet", tmp_path / "configs")
    train = {
        "epochs": 4,
        "batch_size": 8,
        "folds": 2,
        "views": 1,
        "blend": "held_out",
        "class_head": {"enabled": True},
        "gcn": {"zero_init": False, "hidden": 16},
        "optimiser": {"lr_adapter": 0.05, "lr_class_head": 0.05},
    }
    settings = {
        "backbone": {"name": "tiny-resnet", "pretrained": "random"},
        "tte": {"expand": 8},
        "runtime": {"threads": 1, "precision": "fp32", "workers": 0},
        "graph": {"top_k": 2, "s": S, "tau": TAU, "normalisation": "softmax"},
        "train": train,
        "evaluate": {"bootstrap": 100},
    }
    params, out = parse(settings), {name: folder / name for name in ("graph", "model", "evaluation")}
    inputs = {name: folder / name for name in ("split", "validation", "data")}
    run("graph", params, {name: inputs[name] for name in ("split", "validation")}, {"graph": out["graph"]})
    run("train", params, {**inputs, "graph": out["graph"]}, {"model": out["model"]})
    evaluated = {"split": inputs["split"], "data": inputs["data"], "model": out["model"]}
    run("evaluate", params, evaluated, {"evaluation": out["evaluation"]})

    scorer = Scorer(out["model"], params.runtime)
    test = frame[frame["split"] == "test"].reset_index(drop=True)
    x = scorer.frozen(test, inputs["data"], "test").numpy().astype(np.float64)
    tensors = {
        name: item.double().numpy() for name, item in read_tensors(out["model"] / "model.safetensors")[0].items()
    }
    stored, _ = read_tensors(out["graph"] / "graph.safetensors")
    z, text = stored["text_features"].double().numpy(), scorer.loaded.model.towers.text
    adjacency = label_graph(z)
    np.testing.assert_allclose(stored["adjacency"], adjacency, atol=1e-6)
    learned = learned_text(text.tower, text.tokenizer, tensors["prompt.context"])
    f = gcn(adjacency, learned, [tensors[f"gcn.weights.{number}"] for number in range(3)])
    members = member_logits(tensors, x, z, f)
    assert all(np.abs(tensors[name]).max() > 1e-3 for name in ("adapter.up_proj.weight", "class_head.weight"))
    assert not np.allclose(unit(f), unit(z), atol=1e-3)

    weights = read_json(out["model"] / "config.json")["blend"]["weights"]
    served = sum(weight * members[name] for name, weight in weights.items())
    expected = {
        "capnet": served.mean(axis=1),
        "single_view": served[:, 4],
        "zero_shot": members["zero_shot"].mean(axis=1),
        "zero_shot_single_view": members["zero_shot"][:, 4],
        "linear_probe": members["linear_probe"].mean(axis=1),
    }
    scores = read_predictions(out["evaluation"] / "predictions.parquet").query("split == 'test'")
    for variant, logits in expected.items():
        own = scores[scores["variant"] == variant].set_index("image_id").loc[test["image_id"], "scores"]
        np.testing.assert_allclose(np.stack(own.tolist()), expit(logits), atol=1e-5, err_msg=variant)
