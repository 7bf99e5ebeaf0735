"""Does a better graph give better tail AP? CapNet with several graphs, one of them made from the test labels."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.differences import Compare, Draws
from benchmarks.graph_rows import CUTS, Curve, counted
from capnet.config import Ingest, Params, parse
from capnet.contracts import Classes, LabelGraph, label_matrix, sampling_units, sha256_file
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers import csv
from capnet.data.splits.stratify import stratified_holdout
from capnet.errors import DataError
from capnet.model.backbones import load_towers
from capnet.model.graph import adjacency, blend, cosine_similarity
from capnet.runtime import prepare
from capnet.training.scoring import served_scores
from capnet.training.trainer import Trainer

TEST_SHARE = 0.2
STRONG = 0.5  # weight of the neighbours in the row "oracle, 0.5"; the default is graph.s
ROWS = ("none", "text", "permuted", "counted", "blend", "oracle", "oracle, 0.5")


@dataclass(frozen=True)
class Set:
    """A folder of images with labels.csv, divided: ``labels`` bool [image, class], ``train`` and ``test`` int [row]."""

    name: str
    folder: Path
    rows: Any  # one row an image: path, sha256, image_id, labels, unknown, group
    classes: Classes
    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray

    @property
    def images(self) -> np.ndarray:
        """Training images of each class, int [class]."""
        return self.labels[self.train].sum(axis=0)


def read_folder(folder: Path, settings: Ingest | None = None) -> tuple[Any, Classes, np.ndarray]:
    """Rows, classes and labels bool [image, class] of a folder with labels.csv, read with the ``settings`` of section
    ingest, by default the usual ones; no image is opened.

    Raises DataError with every mistake in the tables.
    """
    read = csv.read(DataFolder(folder), settings or Params().ingest)
    if read.problems:
        raise DataError(problems=read.problems)
    return read.rows.reset_index(drop=True), read.classes, label_matrix(read.rows["labels"], len(read.classes))


def read_known(folder: Path) -> tuple[Any, Classes, np.ndarray]:
    """``read_folder`` of a folder without unknown labels; raises DataError where some are: no graph and no figure here
    leaves them out, so they would count as absent.
    """
    rows, classes, labels = read_folder(folder)
    if number := int((rows["unknown"].map(len) > 0).sum()):
        what = f"unknown labels, which would count as absent: {number:,} of {len(rows):,} images have some"
        raise DataError(what, str(folder), "take their rows out of the table, or say which labels are absent")
    return rows, classes, labels


def read_set(name: str, folder: Path, curve: Curve) -> Set:
    """Hold a fifth of the images out at random (labels spread evenly, groups whole), draw ``curve`` from the rest."""
    rows, classes, labels = read_known(folder)
    rows["sha256"] = [sha256_file(folder / path) for path in rows["path"]]
    groups = sampling_units(rows)
    held = stratified_holdout(labels, round(TEST_SHARE * len(rows)), 0, groups)
    free = np.flatnonzero(~held)
    return Set(name, folder, rows, classes, labels, free[curve.draw(labels[free], 0)], np.flatnonzero(held))


def graphs(text: torch.Tensor, labels: np.ndarray, test: np.ndarray, settings: Any) -> dict[str, torch.Tensor]:
    """The graph of each row as the GCN uses it.

    Args:
        text: features of the class names [class, embed].
        labels: of the training rows, bool [image, class].
        test: labels of the test rows, bool [image, class]; only the oracle uses them.
        settings: section ``graph`` of the settings.

    Returns:
        Adjacency [class, class] by row; "none" has the identity, and its GCN is off.
    """
    similarity, rates = cosine_similarity(text), torch.from_numpy(counted(labels)).float()
    names = torch.from_numpy(np.random.default_rng(0).permutation(len(text)))
    oracle = torch.from_numpy(counted(test)).float()
    matrices = {
        "text": similarity,
        "permuted": similarity[names][:, names],
        "counted": rates,
        "blend": blend(similarity, rates, torch.from_numpy(labels.sum(axis=0)).float(), settings.blend_count),
        "oracle": oracle,
        "oracle, 0.5": oracle,
    }
    weight = {"oracle, 0.5": STRONG}
    made = {"none": torch.eye(len(text))}
    for name, matrix in matrices.items():
        s = weight.get(name, settings.s)
        made[name] = adjacency(matrix, settings.top_k, s, settings.tau, settings.normalisation)
    return made


def scores(data: Set, settings: Mapping[str, Any], seeds: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Train every row of ROWS with every seed and score the test images.

    Args:
        data: the divided set.
        settings: sections of the settings (backbone, train, runtime) that all rows have.
        seeds: of the training; features are those of seed 0 for all.

    Returns:
        Served scores float32 [test image, class] of each seed, by row.
    """
    params = parse(settings)
    machine = prepare(params.runtime)
    towers = load_towers(params.backbone, params.tte.size).to(machine.device)
    with torch.no_grad():
        text = towers.text([params.graph.template.format(name) for name in data.classes.prompt_names]).float().cpu()
    made = graphs(text, data.labels[data.train], data.labels[data.test], params.graph)
    first = Trainer(params, data.classes, LabelGraph(made["text"], text, {}), towers, machine, data.folder)
    train, test = (data.rows.iloc[part].reset_index(drop=True) for part in (data.train, data.test))
    crops = first.features.pooled(data.rows, first.features.transform(), data.name)[:]
    views = None  # of a tower with adapters in its blocks, which is trained on the images themselves
    if not towers.image.blocks:
        random = first.features.pooled(data.rows, first.features.transform(params.train.views), data.name)[:]
        views = torch.cat([crops, random], dim=1)[data.train]
    start, crops = crops[data.train], crops[data.test]
    scores_by_row: dict[str, list[np.ndarray]] = {}
    for row in ROWS:
        section = {**settings["train"], "gcn": {"enabled": row != "none"}}
        for seed in seeds:
            chosen = parse({**settings, "train": section, "runtime": {**settings["runtime"], "seed": seed}})
            trainer = Trainer(chosen, data.classes, LabelGraph(made[row], text, {}), towers, machine, data.folder)
            model = trainer.new_model()
            with tempfile.TemporaryDirectory() as folder:
                trainer.fit(model, train, views, Path(folder), start, what=f"{data.name}, {row}, seed {seed}")
            scores_by_row.setdefault(row, []).append(served_scores(trainer, model, test, crops, "test"))
            model.release_towers()
    return scores_by_row


def compare(data: Set, scores_by_row: Mapping[str, list[np.ndarray]], draws: int = 1000) -> dict[str, Draws]:
    """Mean AP of every row over seeds, with draws of the test images: the same for all rows, groups whole."""
    targets = data.labels[data.test]
    units = sampling_units(data.rows.iloc[data.test])
    buckets = data.classes.with_counts(data.images.tolist(), CUTS).buckets
    means = Compare(targets, np.ones_like(targets), buckets, units, draws).means
    return {row: means(seeds) for row, seeds in scores_by_row.items()}
