"""Everything that fitting a model takes, built once: towers, graph, classes, machine, and where images lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Params
from capnet.contracts import Classes, LabelGraph, label_matrix
from capnet.data.images.features import Transform, live_features, pooled_features
from capnet.model.capnet import CapNet
from capnet.model.towers import Towers
from capnet.runtime import Machine
from capnet.training.distributed import ALONE, ProcessGroup
from capnet.training.loop import Fit, Labels, Pictures, fit
from capnet.training.pictures import CachedViews, DecodedImages

Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[CapNet], dict[str, float]]


@dataclass(frozen=True)
class Job:
    """Everything a fit needs, built once."""

    params: Params
    classes: Classes
    graph: LabelGraph
    towers: Towers
    machine: Machine
    root: Path
    group: ProcessGroup = ALONE

    def model(self) -> CapNet:
        torch.manual_seed(self.params.runtime.seed)
        return CapNet(
            self.towers, self.classes.prompt_names, self.graph.adjacency, self.graph.text_features, self.params.train
        ).to(self.machine.device)

    def transform(self, random_views: int = 0) -> Transform:
        preprocess = self.towers.preprocess
        tte = None if random_views else self.params.tte
        seed, resize = self.params.runtime.seed, self.params.tte.resize
        return Transform(
            preprocess.size, preprocess.mean, preprocess.std, preprocess.interpolation, tte, random_views, seed, resize
        )

    def features(self, rows: pd.DataFrame, transform: Transform, what: str) -> Tensor:
        """Features of ``rows``; of several processes the first one makes them, and the others find them in a state
        folder that they share.
        """
        if not self.group.is_main_process:
            self.group.broadcast(b"")
        threads = self.params.runtime.threads
        tower = self.towers.image
        found = pooled_features(
            tower.pooled,
            self.towers.weight_hash,
            rows,
            self.root,
            transform,
            self.machine,
            threads,
            what,
            concurrent=tower.thread_safe,
        )
        if self.group.is_main_process:
            self.group.broadcast(b"")
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
        return DecodedImages(
            model, rows, self.root, self.transform(random_views=1), self.machine, seed, self.params.runtime.threads
        )

    def fit(
        self,
        model: CapNet,
        rows: pd.DataFrame,
        views: Tensor | None,
        folder: Path,
        plain: Tensor | None = None,
        validate: Validate | None = None,
        what: str = "training",
        log: Log | None = None,
    ) -> Fit:
        """Train ``model`` on ``rows`` with checkpoints in ``folder``; ``views`` [row, view, pooled] are cached features
        of a frozen tower.

        ``plain`` are those of a tower without its adapters, from which statistics and start values come where they are
        trained.
        """
        labels, prepared = self.labels(rows), plain if views is None else views
        if prepared is not None:
            model.prepare_for(prepared, labels.targets, labels.known)
        runtime, pictures = self.params.runtime, self.pictures(model, rows, views)
        return fit(
            model,
            pictures,
            labels,
            self.params.train,
            runtime.seed,
            folder,
            validate,
            what,
            self.machine.autocast,
            log,
            self.group,
        )

    def member_logits(self, model: CapNet, rows: pd.DataFrame, plain: Tensor | None, what: str) -> dict[str, Tensor]:
        """Logits of each member under the test-time views, float32 [row, view, class].

        ``plain`` [row, view, pooled] are features of the tower without its adapters: all that a frozen tower needs.
        """
        adapted = plain
        if not model.tower_is_frozen:
            adapted = self._live(model, rows, what, adapted=True)
            if plain is None:
                plain = self._live(model, rows, what, adapted=False) if model.needs_plain_features else adapted
        assert adapted is not None
        assert plain is not None
        found: dict[str, list[Tensor]] = {}
        with torch.no_grad():
            classes = model.class_features()
            for start in range(0, len(adapted), 256):
                part, part_plain = (item[start : start + 256].to(self.machine.device) for item in (adapted, plain))
                for name, logits in model.members(part.flatten(0, 1), classes, part_plain.flatten(0, 1)).items():
                    found.setdefault(name, []).append(logits.view(*part.shape[:2], -1).float().cpu())
        return {name: torch.cat(parts) for name, parts in found.items()}

    def combine(self, members: Mapping[str, Tensor], weights: Mapping[str, float]) -> np.ndarray:
        """Served scores float32 [row, class] of logits [row, view, class]: blended, then averaged over views as
        test-time ensembling does.
        """
        logits = torch.stack([weight * members[name].double() for name, weight in weights.items() if weight]).sum(dim=0)
        scores = logits.mean(dim=1).sigmoid() if self.params.tte.average == "logits" else logits.sigmoid().mean(dim=1)
        return scores.float().numpy()

    def served(self, model: CapNet, rows: pd.DataFrame, plain: Tensor | None, what: str) -> np.ndarray:
        """Served scores [row, class] under the test-time views."""
        return self.combine(self.member_logits(model, rows, plain, what), model.weights)

    def _live(self, model: CapNet, rows: pd.DataFrame, what: str, adapted: bool) -> Tensor:
        return live_features(
            lambda images: model.pooled(images, adapted),
            rows,
            self.root,
            self.transform(),
            self.machine,
            self.params.runtime.threads,
            what,
        )
