"""Scores of rows by a model in training: what validation, the blend and out-of-fold thresholds look at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.data.images.features import live_features
from capnet.data.images.stored_features import Features
from capnet.model.capnet import CapNet
from capnet.training.trainer import Trainer

BATCH = 256  # rows of cached features at once


@torch.no_grad()
def member_logits(
    trainer: Trainer, model: CapNet, rows: pd.DataFrame, plain: Features | None, what: str
) -> dict[str, Tensor]:
    """Logits of each member of ``model`` under the test-time views.

    Args:
        trainer: with the images and the views.
        model: in training, on the trainer's towers.
        rows: to score.
        plain: their features [row, view, pooled] in the tower without adapters, which are all that a frozen tower
            needs; of a trained tower they are computed where the model needs them.
        what: names the rows in the log.

    Returns:
        float32 [row, view, class] by member.
    """
    adapted: Features | None = plain
    if not model.tower_is_frozen:
        adapted = _live_features(trainer, model, rows, what, adapted=True)
        if plain is None:
            plain = adapted
            if model.needs_plain_features:
                plain = _live_features(trainer, model, rows, what, adapted=False)
    assert adapted is not None
    assert plain is not None
    parts: dict[str, list[Tensor]] = {}
    classes = model.class_features()
    for start in range(0, len(adapted), BATCH):
        views, plain_views = (item[start : start + BATCH].to(trainer.machine.device) for item in (adapted, plain))
        for name, logits in model.members(views.flatten(0, 1), classes, plain_views.flatten(0, 1)).items():
            parts.setdefault(name, []).append(logits.view(*views.shape[:2], -1).float().cpu())
    return {name: torch.cat(logits) for name, logits in parts.items()}


def combine(members: Mapping[str, Tensor], weights: Mapping[str, float], average: str) -> np.ndarray:
    """Served scores: the members' logits blended, then averaged over views as test-time ensembling does.

    Args:
        members: logits [row, view, class] by member.
        weights: of the members; one of weight 0 may be missing.
        average: setting tte.average, logits or probabilities.

    Returns:
        float32 [row, class] in [0, 1].
    """
    logits = torch.stack([weight * members[name].double() for name, weight in weights.items() if weight]).sum(dim=0)
    scores = logits.mean(dim=1).sigmoid() if average == "logits" else logits.sigmoid().mean(dim=1)
    return scores.float().numpy()


def served_scores(trainer: Trainer, model: CapNet, rows: pd.DataFrame, plain: Features | None, what: str) -> np.ndarray:
    """``combine`` of ``member_logits`` with the model's own weights: float32 [row, class]."""
    return combine(member_logits(trainer, model, rows, plain, what), model.weights, trainer.params.tte.average)


def _live_features(trainer: Trainer, model: CapNet, rows: pd.DataFrame, what: str, adapted: bool) -> Tensor:
    if adapted and model.blocks_behind_tokens:
        tokens = trainer.tokens(rows, [trainer.transform()], model.blocks_behind_tokens, what)
        parts = (tokens[start : start + 1][0].to(trainer.machine.device) for start in range(len(tokens)))
        return torch.stack([trainer.pooled_of_tokens(model, part).cpu() for part in parts])
    return live_features(
        lambda images: model.pooled(images, adapted),
        rows,
        trainer.root,
        trainer.transform(),
        trainer.machine,
        trainer.params.runtime.threads,
        what,
    )
