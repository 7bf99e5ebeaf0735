"""A made-up run: every file the report reads, written through capnet.contracts from a seed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from unit.evaluation.made_results import average_precisions, measures, reliability, write_per_class, write_thresholds

from capnet import contracts

NAMES = [
    "dog",
    "cat",
    "horse",
    "cow",
    "sheep",
    "pig",
    "chicken",
    "tractor",
    "barn",
    "wheat",
    "car",
    "bus",
    "bicycle",
    "truck",
    "traffic_light",
    "person",
    "tree",
    "house",
    "bench",
    "bird",
    "lion",
    "elephant",
    "giraffe",
    "zebra",
    "hippo",
    "sailboat",
    "whale",
    "dolphin",
    "crab",
    "umbrella",
    "sofa",
    "lamp",
    "television",
    "book",
    "clock",
    "cup",
    "pizza",
    "banana",
    "football",
    "trophy",
]


VARIANTS = {"capnet": 2.6, "single_view": 2.5, "zero_shot": 0.9, "zero_shot_single_view": 0.85, "linear_probe": 2.55}


@dataclass(frozen=True)
class MadeRun:
    """Folders of the run, with the arrays they were written from ([test picture, class])."""

    evaluation: Path
    model: Path
    split: Path
    data: Path
    names: list[str]
    labels: np.ndarray
    unknown: np.ndarray
    train_labels: np.ndarray
    adjacency: np.ndarray
    scores: dict[str, np.ndarray]
    buckets: list[str]


def make_run(
    root: Path,
    classes: int = 40,
    pictures: int = 300,
    *,
    names: list[str] | None = None,
    probe: bool = True,
    validation: bool = True,
    slices: bool = True,
    images: bool = False,
    backbone: str = "lit-efflite0-minilm",
    empty: tuple[int, ...] = (),
    unknown_share: float = 0.02,
    seed: int = 0,
) -> MadeRun:
    """Write one run below ``root``; classes in ``empty`` have no test positives."""
    rng = np.random.default_rng(seed)
    names = names or [(NAMES[i] if i < len(NAMES) else f"class {i}").replace("_", " ") for i in range(classes)]
    scene = np.arange(classes) // max(2, min(5, classes // 2))
    kinship = 0.25 * (scene[:, None] == scene[None, :]) + rng.uniform(0, min(0.12, 4.8 / classes), (classes, classes))
    frequency = rng.permutation(0.4 * np.linspace(1, 2.15, classes) ** -5 + 0.012)

    def draw(count: int) -> np.ndarray:
        seeds = rng.random((count, classes)) < frequency
        pulled = rng.random((count, classes)) < (seeds @ kinship) * np.sqrt(frequency) * 0.3
        return seeds | pulled

    train_labels, labels = draw(530), draw(pictures)
    for column in range(classes):
        train_labels[column % 530, column] = True
        if not labels[:, column].any():
            labels[rng.integers(pictures), column] = True
    labels[:, list(empty)] = False
    val_labels = draw(100 if validation else 0)
    unknown = (rng.random(labels.shape) < unknown_share) & ~labels
    made = contracts.make_classes(names).with_counts(train_labels.sum(axis=0).tolist(), (100, 20))
    buckets = [item.bucket for item in made.items]

    split, model, evaluation, data = (root / name for name in ("split", "model", "evaluation", "data"))
    frames = [
        _rows("train", train_labels, np.zeros_like(train_labels), slices),
        _rows("val", val_labels, np.zeros_like(val_labels), slices),
    ]
    frames.append(_rows("test", labels, unknown, slices))
    contracts.write_split(split / "split.parquet", pd.concat(frames, ignore_index=True))
    contracts.write_classes(split / "classes.json", made)
    contracts.write_json(
        split / "split.json", {"method": "pareto", "buckets": [100, 20], "rows": {"train": 530, "test": pictures}}
    )
    contracts.write_classes(model / "classes.json", made)

    adjacency = kinship + rng.uniform(0, 0.2, kinship.shape)
    np.fill_diagonal(adjacency, 0)
    keep = np.argsort(-adjacency, axis=1, kind="stable")[:, : max(1, int(classes * 0.775) - 1)]
    sparse = np.zeros_like(adjacency)
    np.put_along_axis(sparse, keep, np.take_along_axis(adjacency, keep, axis=1), axis=1)
    adjacency = 0.2 * sparse / np.maximum(sparse.sum(axis=1, keepdims=True), 1e-9)
    np.fill_diagonal(adjacency, 0.8)
    metadata = {
        "source": "text",
        "top_k": 0.775,
        "s": 0.2,
        "tau": 0.2,
        "class_fingerprint": made.fingerprint,
        "template": "a photo of a {}.",
    }
    contracts.write_graph(
        model / "graph.safetensors", contracts.LabelGraph(torch.tensor(adjacency), torch.zeros(classes, 8), metadata)
    )

    scores = {
        name: _scores(rng, labels, quality, frequency)
        for name, quality in VARIANTS.items()
        if probe or name != "linear_probe"
    }
    rows = frames[-1]
    contracts.write_predictions(
        evaluation / "predictions.parquet",
        pd.concat(
            [
                pd.DataFrame(
                    {
                        "image_id": rows["image_id"],
                        "split": "test",
                        "slice": rows["slice"],
                        "variant": name,
                        "scores": list(values),
                    }
                )
                for name, values in scores.items()
            ],
            ignore_index=True,
        ).sample(frac=1.0, random_state=1),
    )
    ap = {name: average_precisions(labels, unknown, values) for name, values in scores.items()}
    thresholds = np.clip(0.3 + rng.normal(0, 0.08, classes), 0.05, 0.9).astype(np.float32)
    metrics = (
        {"schema": contracts.SCHEMA}
        | measures(ap, buckets, names, rows["slice"] if slices else None)
        | {"test_rows": pictures}
    )
    metrics["calibration"] = reliability(labels, unknown, scores["capnet"], buckets)
    contracts.write_json(evaluation / "evaluation.json", metrics)
    write_thresholds(evaluation / "thresholds.json", made, thresholds, train_labels.sum(axis=0), validation)
    write_per_class(evaluation / "per_class.csv", made, labels, ap, thresholds, rng)
    _write_model(model, made, backbone, validation, rng)
    if images:
        for name in rows["path"]:
            (data / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((320, 240)).save(data / name)
    return MadeRun(evaluation, model, split, data, names, labels, unknown, train_labels, adjacency, scores, buckets)


def _rows(split: str, labels: np.ndarray, unknown: np.ndarray, slices: bool) -> pd.DataFrame:
    count = len(labels)
    return pd.DataFrame(
        {
            "image_id": [f"{split}-{i:05d}" for i in range(count)],
            "path": [f"images/{split}-{i:05d}.jpg" for i in range(count)],
            "labels": [np.flatnonzero(row).tolist() for row in labels],
            "unknown": [np.flatnonzero(row).tolist() for row in unknown],
            "width": 320,
            "height": 240,
            "sha256": "0" * 64,
            "group": None,
            "slice": [("known artwork" if i % 2 else "unseen artwork") if slices else None for i in range(count)],
            "given_split": None,
            "split": split,
        }
    )


def _scores(rng: np.random.Generator, labels: np.ndarray, quality: float, frequency: np.ndarray) -> np.ndarray:
    logits = quality * labels + rng.normal(0, 1, labels.shape) + np.log(frequency / (1 - frequency)) * 0.4
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def _write_model(
    model: Path, made: contracts.Classes, backbone: str, validation: bool, rng: np.random.Generator
) -> None:
    contracts.write_json(
        model / "config.json",
        {
            "schema": 1,
            "class_fingerprint": made.fingerprint,
            "prompt_fingerprint": "0" * 64,
            "backbone": {"name": backbone, "pretrained": "wheels", "centre": True},
            "weight_hash": "1" * 64,
            "tte": {"views": 5, "expand": 24, "average": "logits"},
            "train": {"epochs": 30, "loss": {"name": "db_focal", "alpha": 0.1}},
            "graph": {"source": "text"},
            "selected_epoch": 24 if validation else 30,
            "validation_rows": 100 if validation else 0,
            "validation_extra_labels": validation,
            "trained_parameters": 1_234_567,
        },
    )
    with open(model / "history.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "loss", "val_mAP", "val_head", "val_medium", "val_tail"])
        for epoch in range(1, 31):
            rise = 1 - np.exp(-epoch / 7)
            means = (
                [round(float(base * rise + rng.normal(0, 0.008)), 5) for base in (0.64, 0.72, 0.7, 0.57)]
                if validation
                else [""] * 4
            )
            writer.writerow([epoch, epoch * 5, round(float(0.35 * np.exp(-epoch / 6) + 0.06), 5), *means])
