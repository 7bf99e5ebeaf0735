"""Stage train: fit CapNet on the training rows, choose an epoch on validation rows, write the model folder."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Params, settings_hash
from capnet.contracts import Classes, LabelGraph, label_matrix, read_classes, read_graph, read_json, read_split, replace_file, sha256_file, write_predictions
from capnet.data.features import Look, live_features, pooled_features
from capnet.data.roots import local_root
from capnet.data.sides import group_codes
from capnet.data.stratify import stratified_holdout
from capnet.errors import DataError
from capnet.evaluation.metrics import average_precision, bucket_masks, mean_over
from capnet.model.capnet import CapNet
from capnet.model.folder import check_graph, save_model
from capnet.model.towers import Towers, load_towers
from capnet.runtime import Machine, prepare
from capnet.state import state_dir
from capnet.training.distributed import ALONE, Group, joined
from capnet.training.loop import Fit, Labels, Pictures, fit
from capnet.training.pictures import CachedViews, DecodedPictures

Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[CapNet], dict[str, float]]
HISTORY = ("epoch", "step", "loss", "val_mAP", "val_head", "val_medium", "val_tail")


@dataclass(frozen=True)
class Job:
    """Everything a fit needs, built once."""

    params: Params
    classes: Classes
    graph: LabelGraph
    towers: Towers
    machine: Machine
    root: Path
    group: Group = ALONE

    def model(self) -> CapNet:
        torch.manual_seed(self.params.runtime.seed)
        return CapNet(self.towers, self.classes.prompt_names, self.graph.adjacency, self.graph.text_features, self.params.train).to(self.machine.device)

    def look(self, random_views: int = 0) -> Look:
        preprocess = self.towers.preprocess
        tte = None if random_views else self.params.tte
        seed, resize = self.params.runtime.seed, self.params.tte.resize
        return Look(preprocess.size, preprocess.mean, preprocess.std, preprocess.interpolation, tte, random_views, seed, resize)

    def features(self, rows: pd.DataFrame, look: Look, what: str) -> Tensor:
        """Features of ``rows``; of several processes the first one makes them, and the others find them in a state folder that they share."""
        if not self.group.leads:
            self.group.told(b"")
        threads = self.params.runtime.threads
        tower = self.towers.image
        found = pooled_features(
            tower.pooled, self.towers.weight_hash, rows, self.root, look, self.machine, threads, what, side_by_side=tower.stands_several_callers
        )
        if self.group.leads:
            self.group.told(b"")
        return found

    def labels(self, rows: pd.DataFrame) -> Labels:
        unknown = label_matrix(rows["unknown"], len(self.classes))
        targets = label_matrix(rows["labels"], len(self.classes)) & ~unknown
        return Labels(torch.from_numpy(targets), torch.from_numpy(~unknown), rows["image_id"].tolist())

    def pictures(self, model: CapNet, rows: pd.DataFrame, views: Tensor | None) -> Pictures:
        """Training pictures of ``rows``: their cached views for a frozen tower, else decoded pictures."""
        seed = self.params.runtime.seed
        if views is not None:
            return CachedViews(views, self.machine.device, seed)
        return DecodedPictures(model, rows, self.root, self.look(random_views=1), self.machine, seed, self.params.runtime.threads)

    def fit(
        self,
        model: CapNet,
        rows: pd.DataFrame,
        views: Tensor | None,
        folder: Path,
        validate: Validate | None = None,
        what: str = "training",
        log: Log | None = None,
    ) -> Fit:
        """Train ``model`` on ``rows`` with checkpoints in ``folder``; ``views`` [row, view, pooled] are cached features of a frozen tower."""
        if views is not None:
            model.prepare_for(views)
        runtime, pictures = self.params.runtime, self.pictures(model, rows, views)
        return fit(model, pictures, self.labels(rows), self.params.train, runtime.seed, folder, validate, what, self.machine.autocast, log, self.group)

    def served(self, model: CapNet, rows: pd.DataFrame, frozen: Tensor | None, what: str) -> np.ndarray:
        """Served scores [row, class] under the test-time views; ``frozen`` are cached features of a frozen tower."""
        adapted = plain = frozen
        if adapted is None:
            adapted = self._live(model, rows, what, adapted=True)
            plain = self._live(model, rows, what, adapted=False) if self.params.train.zero_shot_weight > 0 else adapted
        device = self.machine.device
        with torch.no_grad():
            scores, _ = model.ensemble(adapted.to(device), model.class_features(), self.params.tte.average, None if plain is None else plain.to(device))
        return scores.cpu().numpy()

    def _live(self, model: CapNet, rows: pd.DataFrame, what: str, adapted: bool) -> Tensor:
        return live_features(lambda images: model.pooled(images, adapted), rows, self.root, self.look(), self.machine, self.params.runtime.threads, what)


def train(params: Params, inputs: dict[str, Path], outputs: dict[str, Path], log: Log | None = None) -> dict[str, float]:
    """Fit CapNet; without validation rows also score every training row out of fold, for thresholds.

    ``log`` gets the values of every epoch of the model that is kept, while it is trained. Started by torchrun, all processes train one
    model, and the first one writes it.
    """
    machine = prepare(params.runtime)
    with joined(machine.device) as group:
        return _train(params, inputs, outputs, machine, group, log)


def _train(params: Params, inputs: dict[str, Path], outputs: dict[str, Path], machine: Machine, group: Group, log: Log | None) -> dict[str, float]:
    classes = read_classes(inputs["split"] / "classes.json")
    table = read_split(inputs["split"] / "split.parquet")
    graph = read_graph(inputs["graph"] / "graph.safetensors", classes)
    rows, val = (table[table["split"] == side].reset_index(drop=True) for side in ("train", "val"))
    if rows.empty:
        raise DataError("no training rows", str(inputs["split"] / "split.parquet"), "look at the settings in section split")
    towers = load_towers(params.backbone, params.tte.size).to(machine.device)
    check_graph(graph, classes, towers, str(inputs["graph"] / "graph.safetensors"))
    root = local_root(params.data, inputs["data"], table[table["split"] != "test"])
    job = Job(params, classes, graph, towers, machine, root, group)
    folder = state_dir("train") / settings_hash(
        params.subset(("backbone", "runtime", "train", "tte")),
        {"split": sha256_file(inputs["split"] / "split.parquet"), "graph": sha256_file(inputs["graph"] / "graph.safetensors"), "weights": towers.weight_hash},
    )
    model = job.model()
    frozen = model.tower_is_frozen
    crops = job.features(rows, job.look(), "training") if frozen else None  # the test-time views, which the probe needs too
    views = None if crops is None else torch.cat([crops, job.features(rows, job.look(params.train.views), "training (random views of)")], dim=1)
    result = job.fit(model, rows, views, folder / "main", validate=validator(job, val, frozen), log=log)
    metrics = {"epoch": float(result.selected_epoch), "loss": result.history[-1]["loss"]}
    metrics |= {name: value for name, value in result.history[result.selected_epoch - 1].items() if name == "val_mAP"}
    model.release_towers()
    out = outputs["model"]
    if group.leads:
        save_model(out, result.tensors, graph, classes, config(job, result, val, inputs["split"]))
        replace_file(out / "history.csv", history_csv(result))
    if val.empty:
        out_of_fold(job, rows, views, crops, folder, out / "out_of_fold.parquet")
    group.wait()  # nobody removes what another one still reads
    if group.leads:
        shutil.rmtree(folder)
    group.wait()
    shutil.rmtree(folder, ignore_errors=True)  # of a process with a state folder of its own
    return metrics


def validator(job: Job, val: pd.DataFrame, frozen: bool) -> Validate | None:
    """Mean AP of the served scores on the validation rows, in all and per bucket; None without such rows."""
    if val.empty:
        return None
    features = job.features(val, job.look(), "validation") if frozen else None
    labels = job.labels(val)
    masks = bucket_masks([item.bucket for item in job.classes.items])

    def validate(model: CapNet) -> dict[str, float]:
        ap = average_precision(labels.targets.numpy(), job.served(model, val, features, "validation"), labels.known.numpy())
        found = {"val_mAP": float(mean_over(ap))} | {f"val_{name}": float(mean_over(ap, mask)) for name, mask in masks.items()}
        if not math.isfinite(found["val_mAP"]):
            raise DataError("no class has a positive validation row", "split.parquet", "set split.validation.source: none, or give more validation rows")
        return {name: value for name, value in found.items() if math.isfinite(value)}

    return validate


def out_of_fold(job: Job, rows: pd.DataFrame, views: Tensor | None, crops: Tensor | None, folder: Path, path: Path) -> None:
    """Score each training row by a model that never saw its fold (groups stay together), for thresholds without validation rows."""
    folds = stratified_folds(job.labels(rows).targets.numpy(), group_codes(rows["group"]), job.params.train.folds, job.params.runtime.seed)
    scores = np.zeros((len(rows), len(job.classes)), dtype=np.float32)
    for fold in range(job.params.train.folds):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        if not len(inside) or not len(outside):
            continue
        part, held = rows.iloc[inside].reset_index(drop=True), rows.iloc[outside].reset_index(drop=True)
        part_views = None if views is None else views[torch.from_numpy(inside)]
        model = job.model()
        job.fit(model, part, part_views, folder / f"fold{fold}", what=f"fold {fold + 1} of {job.params.train.folds}")
        if job.group.leads:
            scores[outside] = job.served(model, held, None if crops is None else crops[torch.from_numpy(outside)], "held-out")
        model.release_towers()
    if not job.group.leads:
        return
    frame = rows[["image_id", "slice"]].assign(split="train", variant="capnet", scores=list(scores))
    write_predictions(path, frame)


def stratified_folds(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold of every row, int64 [row]: labels spread evenly, groups kept together."""
    fold = np.zeros(len(labels), dtype=np.int64)
    left = np.arange(len(labels))
    for number in range(folds - 1, 0, -1):
        chosen = stratified_holdout(labels[left], len(left) // (number + 1), seed, groups[left])
        fold[left[chosen]] = number
        left = left[~chosen]
    return fold


def config(job: Job, result: Fit, val: pd.DataFrame, split_dir: Path) -> dict[str, Any]:
    """config.json: everything needed to load the model, and how its epoch was chosen."""
    note = split_dir / "split.json"
    return {
        **job.params.subset(("backbone", "tte", "train")),
        "weight_hash": job.towers.weight_hash,
        "precision": "bf16" if job.machine.bf16 else "fp32",
        "selected_epoch": result.selected_epoch,
        "validation_rows": len(val),
        "validation_extra_labels": bool(read_json(note).get("extra_labels", False)) if note.is_file() else False,
        "trained_parameters": sum(tensor.numel() for tensor in result.tensors.values()),
    }


def history_csv(result: Fit) -> str:
    """One line an epoch; empty where a value was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    for row in result.history:
        writer.writerow({name: int(row[name]) if name in ("epoch", "step") else f"{row[name]:.6f}" for name in HISTORY if name in row})
    return text.getvalue()
