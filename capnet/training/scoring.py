"""Scores of rows by a model in training, for validation, the blend and out-of-fold thresholds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.data.images.stored_features import Features
from capnet.data.images.stream import passes, stream, without_faults
from capnet.model.capnet import CapNet
from capnet.model.members import average_views, weighted_sum
from capnet.progress import bar
from capnet.training.distributed import SINGLE_PROCESS
from capnet.training.trainer import Trainer

BATCH = 256  # rows of stored features at once
BATCH_OF_TOKENS = 8


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
    parts: dict[str, list[Tensor]] = {}
    classes = model.class_features()
    for both in _features(trainer, model, rows, plain, what):
        views, plain_views = (item.to(trainer.machine.device) for item in both)
        for name, logits in model.members_of_views(views, classes, plain_views).items():
            parts.setdefault(name, []).append(logits.float().cpu())
    return {name: torch.cat(logits) for name, logits in parts.items()}


def combine(members: Mapping[str, Tensor], weights: Mapping[str, float], average: str) -> np.ndarray:
    """Served scores: the members' logits blended, then averaged over views as test-time ensembling does.

    Args:
        members: logits [row, view, class] by member.
        weights: of the members; one of weight 0 may be missing.
        average: as in ``average_views``.

    Returns:
        float32 [row, class] in [0, 1].
    """
    exact = {name: members[name].double() for name, weight in weights.items() if weight}
    return average_views(weighted_sum(exact, weights), average).numpy()


def served_scores(trainer: Trainer, model: CapNet, rows: pd.DataFrame, plain: Features | None, what: str) -> np.ndarray:
    """``combine`` of ``member_logits`` with the model's own weights.

    Args:
        trainer, model, rows, plain, what: as in ``member_logits``.

    Returns:
        float32 [row, class] in [0, 1].
    """
    return combine(member_logits(trainer, model, rows, plain, what), model.weights, trainer.params.tte.average)


def _features(
    trainer: Trainer, model: CapNet, rows: pd.DataFrame, plain: Features | None, what: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Features [row, view, pooled] of some rows after the other: of the tower as it is, and without its adapters."""
    if model.tower_is_frozen:
        assert plain is not None
        for start in range(0, len(rows), BATCH):
            some = plain[start : start + BATCH]
            yield some, some
        return
    both = plain is None and model.needs_plain_features
    if model.blocks_behind_tokens and not both:
        # only the main process scores: nobody else would wait
        alone = replace(trainer.features, process_group=SINGLE_PROCESS)
        tokens = alone.tokens(rows, [trainer.features.transform()], model.blocks_behind_tokens, what)
        for start in range(0, len(rows), BATCH_OF_TOKENS):
            some = tokens[start : start + BATCH_OF_TOKENS].to(trainer.machine.device)  # [image, view, token, width]
            adapted = trainer.features.pooled_of_tokens(model, some.flatten(0, 1)).view(*some.shape[:2], -1)
            yield adapted, adapted if plain is None else plain[start : start + BATCH_OF_TOKENS]
        return
    encode = passes(model.pooled, *([partial(model.pooled, adapted=False)] if both else []))
    transform, threads = trainer.features.transform(), trainer.params.runtime.threads
    parts = stream(encode, transform.items(rows), trainer.root, transform, trainer.machine, threads, len(rows))
    start = 0
    with bar(f"scores of {what} pictures", len(rows), stays=False) as advance:  # one an epoch
        for part in without_faults(parts, trainer.root):
            end = start + len(part.features)
            yield part.features[:, :, 0], part.features[:, :, -1] if plain is None else plain[start:end]
            start = end
            advance(len(part.features))
