"""Test-time ensembling: the mean over crops of an image, with the single view and zero-shot beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Runtime
from capnet.contracts import read_document
from capnet.data.images.features import pooled_features
from capnet.data.images.stored_features import Features, StoredFeatures, last_stage
from capnet.data.images.stream import stream, without_faults
from capnet.data.images.transform import Transform
from capnet.data.images.views import centre_index
from capnet.model.folder import load_model
from capnet.progress import bar
from capnet.runtime import prepare

MODEL_VARIANTS = ("capnet", "zero_shot", "single_view", "zero_shot_single_view")
BATCH = 1024  # images


@dataclass(frozen=True)
class Scored:
    """``scores``: variant -> float32 [image, class] in [0, 1]; ``features``: float32 [image, view, pooled] of the
    frozen tower, without those of earlier stages.
    """

    scores: dict[str, np.ndarray]
    features: np.ndarray


class Scorer:
    """A loaded model with its device; scores any number of tables.

    ``runtime.precision`` auto is the precision that the model was trained in, wherever it is: thresholds that are
    chosen on one machine hold on another.
    """

    def __init__(self, model_dir: Path, runtime: Runtime) -> None:
        config = read_document(model_dir / "config.json")
        if runtime.precision == "auto":
            runtime = runtime.model_copy(update={"precision": config.get("precision", "auto")})
        self.machine = prepare(runtime)
        self.threads = runtime.threads
        self.loaded = load_model(model_dir, self.machine)
        p, tte = self.loaded.model.towers.preprocess, self.loaded.tte
        self.transform = Transform(p.size, p.mean, p.std, p.interpolation, tte, resize=tte.resize, decode=tte.decode)
        with torch.no_grad():
            self.class_features = self.loaded.model.class_features()

    def frozen(self, rows: pd.DataFrame, root: Path, what: str) -> StoredFeatures:
        """Features of the tower without adapters, from the feature store.

        Args:
            rows: with ``path`` and ``sha256``.
            root: folder that the paths are relative to.
            what: names the rows in the log.

        Returns:
            [image, view, pooled (+ stages)].

        Raises:
            DataError: images cannot be used; names them.
        """
        model = self.loaded.model
        return pooled_features(
            lambda images: model.pooled(images, adapted=False),
            model.towers.feature_key,
            rows,
            root,
            self.transform,
            self.machine,
            self.threads,
            what,
            concurrent=model.towers.image.is_convolutional,
        )

    def score(self, rows: pd.DataFrame, root: Path, what: str) -> Scored:
        """All variants of the model and of zero-shot for each row.

        Args:
            rows, root, what: as in ``frozen``.

        Returns:
            Scores of MODEL_VARIANTS, and the features of ``frozen``.

        Raises:
            DataError: images cannot be used; names them.
        """
        plain = self.frozen(rows, root, what)
        parts: dict[str, list[np.ndarray]] = {}
        for adapted, some in self._features(rows, root, plain, what):
            for name, scores in self._variants(adapted.to(self.machine.device), some.to(self.machine.device)).items():
                parts.setdefault(name, []).append(scores)
        features = last_stage(plain, self.loaded.model.towers.pooled_dim).numpy()
        return Scored({name: np.concatenate(scores) for name, scores in parts.items()}, features)

    def _features(self, rows: pd.DataFrame, root: Path, plain: Features, what: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Features [image, view, pooled], some images at a time: as the model sees them, and without adapters, which is
        what ``plain`` holds.
        """
        model = self.loaded.model
        if model.tower_is_frozen:
            for start in range(0, len(rows), BATCH):
                some = plain[start : start + BATCH]
                yield some, some
            return
        items = self.transform.items(rows)
        batches = stream(model.pooled, items, root, self.transform, self.machine, self.threads, len(rows))
        start = 0
        with bar(f"scores of {what} pictures", len(rows)) as advance:
            for batch in without_faults(batches, root):
                yield batch.features, plain[start : start + len(batch.features)]
                start += len(batch.features)
                advance(len(batch.features))

    def _variants(self, adapted: Tensor, plain: Tensor) -> dict[str, np.ndarray]:
        """Scores [image, class] by variant of features [image, view, pooled]."""
        centre = centre_index(self.loaded.tte.views)
        result: dict[str, np.ndarray] = {}
        for views, names in ((slice(None), MODEL_VARIANTS[:2]), (slice(centre, centre + 1), MODEL_VARIANTS[2:])):
            scores = self.loaded.model.ensemble(
                adapted[:, views], self.class_features, self.loaded.tte.average, plain[:, views]
            )
            result |= {name: item.cpu().numpy() for name, item in zip(names, scores, strict=True)}
        return result
