"""Test-time ensembling: the mean over crops of a picture, with the single view and zero-shot beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Runtime
from capnet.data.images.features import Transform, live_features, pooled_features
from capnet.data.images.views import centre_index
from capnet.model.folder import LoadedModel, load_model
from capnet.runtime import Machine, prepare


@dataclass(frozen=True)
class Scored:
    """``scores``: variant -> float32 [picture, class] in [0, 1]; ``features``: float32 [picture, view, pooled] of the
    frozen tower.
    """

    scores: dict[str, np.ndarray]
    features: np.ndarray


class Scorer:
    """A loaded model with its device; scores any number of tables."""

    def __init__(self, model_dir: Path, runtime: Runtime) -> None:
        self.machine: Machine = prepare(runtime)
        self.threads = runtime.threads
        self.loaded: LoadedModel = load_model(model_dir, self.machine)
        preprocess = self.loaded.model.towers.preprocess
        self.transform = Transform(
            preprocess.size,
            preprocess.mean,
            preprocess.std,
            preprocess.interpolation,
            tte=self.loaded.tte,
            resize=self.loaded.tte.resize,
        )
        with torch.no_grad():
            self.class_features = self.loaded.model.class_features()

    def frozen(self, rows: pd.DataFrame, root: Path, what: str) -> Tensor:
        """Features [picture, view, pooled] of the tower without adapters, from the cache where they are there."""
        model = self.loaded.model
        return pooled_features(
            lambda images: model.pooled(images, adapted=False),
            model.towers.weight_hash,
            rows,
            root,
            self.transform,
            self.machine,
            self.threads,
            what,
            concurrent=model.towers.image.thread_safe,
        )

    def score(self, rows: pd.DataFrame, root: Path, what: str) -> Scored:
        """All variants of the model and of zero-shot for each row."""
        plain = self.frozen(rows, root, what)
        model = self.loaded.model
        adapted = (
            plain
            if model.tower_is_frozen
            else live_features(model.pooled, rows, root, self.transform, self.machine, self.threads, what)
        )
        centre = centre_index(self.loaded.tte.views)
        scores = self._variants(adapted, plain, "capnet", "zero_shot")
        scores |= self._variants(
            adapted[:, centre : centre + 1], plain[:, centre : centre + 1], "single_view", "zero_shot_single_view"
        )
        return Scored(scores, plain.numpy())

    def _variants(self, adapted: Tensor, plain: Tensor, served: str, zero_shot: str) -> dict[str, np.ndarray]:
        outputs: tuple[list[Tensor], list[Tensor]] = ([], [])
        for start in range(0, len(adapted), 1024):
            part, part_plain = (tensor[start : start + 1024].to(self.machine.device) for tensor in (adapted, plain))
            for bucket, scores in zip(
                outputs,
                self.loaded.model.ensemble(part, self.class_features, self.loaded.tte.average, part_plain),
                strict=True,
            ):
                bucket.append(scores.cpu())
        return {name: torch.cat(bucket).numpy() for name, bucket in zip((served, zero_shot), outputs, strict=True)}
