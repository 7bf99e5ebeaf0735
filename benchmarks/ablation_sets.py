"""A folder of images, divided and with stored features: what every row of the ablation trains on."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.graph_training import read_folder
from capnet.config import Backbone, Params, parse, read_sections
from capnet.contracts import Classes, LabelGraph, sampling_units, sha256_file
from capnet.data.splits.assign import assign_splits
from capnet.errors import ConfigError
from capnet.evaluation.blend import Blend
from capnet.model.adapters import trains_blocks
from capnet.model.backbones import load_towers
from capnet.model.members import start_weights
from capnet.model.towers import Towers
from capnet.runtime import Machine, prepare
from capnet.steps.graph import graph_of
from capnet.steps.held_out import HeldOut, load_probe, train_probe, validator
from capnet.training.out_of_fold import folds_of, out_of_fold_logits, scores_out_of_fold
from capnet.training.scoring import member_logits
from capnet.training.trainer import Trainer

SETTINGS = "settings.yaml"  # optional in a set's folder: sections of the settings, such as how it is divided


@dataclass(frozen=True)
class Trained:
    """One training: logits of each member [row, view, class] on test rows and on ``held_rows``, the latter by models
    that had not seen them, and the blend that these chose or that the settings give.
    """

    members: dict[str, torch.Tensor]
    held: dict[str, torch.Tensor]
    held_rows: pd.DataFrame
    blend: Blend


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` put over it, section by section; a loss of another name takes its own defaults."""
    result = dict(base)
    for key, value in change.items():
        old: Any = result.get(key)
        mergeable = isinstance(value, Mapping) and isinstance(old, Mapping)
        if not mergeable or (key == "loss" and value.get("name", old["name"]) != old["name"]):
            result[key] = value
        else:
            result[key] = merged(old, value)
    return result


def settings_of(folder: Path, base: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the settings.yaml of a set's folder over it, where there is one.

    Raises ConfigError where it cannot be read.
    """
    path = folder / SETTINGS
    return merged(base, read_sections(path) if path.is_file() else {})


@lru_cache
def towers_of(backbone: Backbone, size: int, device: str = "cpu") -> Towers:
    """The towers of a backbone on a device, loaded once a process."""
    return load_towers(backbone, size).to(torch.device(device))


class Set:
    """Rows, classes, division and features of one folder with labels.csv.

    Args:
        name: of the set, in tables.
        folder: with labels.csv, the images and optionally classes.csv and settings.yaml.
        base: settings of the preset that is measured.
        share: of the training and validation rows, taken at random; 1.0 keeps all.

    Raises:
        ConfigError: the settings leave no validation rows, on which the rows of the table make their choices, or train
            the image tower, whose features are stored.
    """

    def __init__(self, name: str, folder: Path, base: Mapping[str, Any], share: float = 1.0) -> None:
        self.name = name if share == 1 else f"{name} {100 * share:g} %"
        self.folder, self.settings = folder, settings_of(folder, base)
        params = parse(self.settings)
        frame, classes, labels = read_folder(folder, params.ingest)
        frame = frame.assign(given_split=frame["split"]) if "split" in frame else frame
        order = np.argsort(frame["image_id"].to_numpy(), kind="stable")
        frame = frame.iloc[order].reset_index(drop=True)
        divided = assign_splits(frame, labels[order], params.split)
        frame["sha256"] = [sha256_file(folder / path) for path in frame["path"]]
        rng = np.random.default_rng(params.split.seed)
        parts = {part: np.array(getattr(divided, part), dtype=np.int64) for part in ("train", "val", "test")}
        if share < 1:
            for part in ("train", "val"):
                parts[part] = np.sort(rng.choice(parts[part], max(1, round(share * len(parts[part]))), replace=False))
        if not len(parts["val"]):
            todo = "--set split.validation.source=train"
            raise ConfigError(f"{name} has no validation rows, on which rows of the ablation choose", str(folder), todo)
        self.rows = {part: frame.iloc[rows].reset_index(drop=True) for part, rows in parts.items()}
        machine, towers = self._machine_and_towers(params)
        if trains_blocks(towers.image, params.train.adapter):
            what = "train.adapter.in_blocks = true trains the image tower, and the ablation takes stored features"
            raise ConfigError(what, str(folder), "--set train.adapter.in_blocks=false")
        texts = [params.graph.template.format(item) for item in classes.prompt_names]
        with torch.no_grad():
            self.text = towers.text(texts).float().cpu()
        plain = Trainer(params, classes, LabelGraph(torch.eye(len(classes)), self.text, {}), towers, machine, folder)
        counts = (plain.labels(self.rows["train"]).targets).sum(dim=0).tolist()
        self.classes: Classes = classes.with_counts(counts, params.split.buckets)
        random = plain.features.transform(params.train.views)
        crops = plain.features.pooled(frame, plain.features.transform(), name)[:]
        features = torch.cat([crops, plain.features.pooled(frame, random, f"{name} (random views)")[:]], dim=1)
        self.crops = {part: features[rows, : params.tte.views] for part, rows in parts.items()}
        self.views = {part: features[rows] for part, rows in parts.items() if part != "test"}
        self.units = sampling_units(self.rows["test"])

    def trainer(self, change: Mapping[str, Any], seed: int) -> Trainer:
        """With these settings over those of the set."""
        params = parse(merged(merged(self.settings, change), {"runtime": {"seed": seed}}))
        matrix = graph_of(self.text, self.classes, self.rows["train"], params.graph)
        machine, towers = self._machine_and_towers(params)
        return Trainer(params, self.classes, LabelGraph(matrix, self.text, {}), towers, machine, self.folder)

    def _machine_and_towers(self, params: Params) -> tuple[Machine, Towers]:
        """What the settings say to compute on, and the towers there."""
        machine = prepare(params.runtime)
        return machine, towers_of(params.backbone, params.tte.size, str(machine.device))

    def train(self, change: Mapping[str, Any], seed: int) -> Trained:
        """Train with ``change``, choose the blend as stage train does, or take the weights that it serves where
        train.blend is none, refit where the settings say so, give the members' logits on the test rows.
        """
        trainer = self.trainer(merged(change, {"train": {"blend": "held_out"}}), seed)
        model, rows, what = trainer.new_model(), self.rows, f"{self.name}, seed {seed}"
        width = trainer.towers.pooled_dim + trainer.towers.stage_dim  # features of earlier stages come last
        crops, views = ({part: item[..., :width] for part, item in kept.items()} for kept in (self.crops, self.views))
        own, refits = self.trainer(change, seed).params.train, trainer.params.train.refit
        model.weights = start_weights(own)
        validate = validator(trainer, rows["val"], crops["val"])
        everything = pd.concat([rows["train"], rows["val"]], ignore_index=True)
        all_crops, all_views = (torch.cat([item["train"], item["val"]]) for item in (crops, views))
        folds = folds_of(trainer, everything) if scores_out_of_fold(trainer, model, rows["val"]) else None
        with tempfile.TemporaryDirectory() as folder:
            fit = trainer.fit(model, rows["train"], views["train"], Path(folder), validate=validate, what=what)
        last = fit.selected_epoch
        probe = train_probe(trainer, rows["train"], crops["train"], rows["val"], crops["val"], folds)
        load_probe(model, probe)
        held_out = HeldOut(rows["val"] if folds is None else everything, folds)
        if folds is None:
            held_out.logits = member_logits(trainer, model, rows["val"], crops["val"], "val")
        else:
            with tempfile.TemporaryDirectory() as folder:
                held_out.logits = out_of_fold_logits(
                    trainer, everything, folds, all_views, all_crops, Path(folder), last
                )
        held_out.add_probe(probe)
        blend = Blend(model.weights, "settings", {}, {}) if own.blend == "none" else held_out.choose_blend(trainer)
        if refits:
            model.release_towers()  # all trainings share the towers
            model = trainer.new_model()
            with tempfile.TemporaryDirectory() as folder:
                trainer.fit(model, everything, all_views, Path(folder), what=what, last_epoch=last)
            load_probe(model, probe)
        members = member_logits(trainer, model, rows["test"], crops["test"], "test")
        model.release_towers()
        return Trained(members, held_out.logits, held_out.rows, blend)
