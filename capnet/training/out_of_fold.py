"""Scores of training rows by models that never saw them, for thresholds and blends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.contracts import sampling_units
from capnet.data.images.stored_features import Features
from capnet.data.splits.stratify import stratified_folds
from capnet.model.capnet import CapNet
from capnet.training.scoring import member_logits
from capnet.training.trainer import Trainer


def scores_out_of_fold(trainer: Trainer, model: CapNet, val: pd.DataFrame) -> bool:
    """Whether scores out of fold serve better than those of the validation rows: without any, or where a refit takes
    seconds, because nothing is trained but what lies behind stored features: no tower, and no prompt, which every step
    would encode.
    """
    in_seconds = model.tower_is_frozen and model.prompt is None and model.text_adapters is None
    settings = trainer.params.train
    return settings.out_of_fold and (val.empty or (settings.refit and in_seconds))


def folds_of(trainer: Trainer, rows: pd.DataFrame) -> np.ndarray | None:
    """The fold of each of ``rows``, int64 [row], as the settings ask for it; ``sampling_units`` stay together. None
    where that leaves a single fold.
    """
    targets, units = trainer.labels(rows).targets.numpy(), sampling_units(rows)
    folds = stratified_folds(targets, units, trainer.params.train.folds, trainer.params.runtime.seed)
    return folds if len(np.unique(folds)) > 1 else None


def out_of_fold_logits(
    trainer: Trainer,
    rows: pd.DataFrame,
    folds: np.ndarray,
    views: Features | None,
    plain: Features | None,
    folder: Path,
    last_epoch: int | None,
) -> dict[str, Tensor]:
    """Train one model for each fold on all other folds, and score the fold with it.

    Args:
        trainer: whose towers no other model adapts at the same time.
        rows: training rows.
        folds: the fold of each, int [row].
        views: their features [row, view, pooled] for a frozen tower; without them images are decoded.
        plain: their features [row, view, pooled] under the test-time views in the tower without adapters.
        folder: for checkpoints.
        last_epoch: as in ``Trainer.fit``.

    Returns:
        Logits [row, view, class] by member, without the linear probe, which is fitted elsewhere; empty but in the main
        process.
    """
    result: dict[str, Tensor] = {}
    numbers = np.unique(folds)
    for fold in numbers:
        inside, outside = (torch.from_numpy(np.flatnonzero(mask)) for mask in (folds != fold, folds == fold))
        seen, held_out = (rows.iloc[chosen.numpy()].reset_index(drop=True) for chosen in (inside, outside))
        seen_views, seen_plain = (None if item is None else item.index_select(0, inside) for item in (views, plain))
        model = trainer.new_model()
        what = f"fold {fold + 1} of {numbers.max() + 1}"
        trainer.fit(model, seen, seen_views, folder / f"fold{fold}", seen_plain, what=what, last_epoch=last_epoch)
        if trainer.process_group.is_main_process:
            held_out_plain = None if plain is None else plain.index_select(0, outside)
            for name, logits in member_logits(trainer, model, held_out, held_out_plain, "held-out").items():
                result.setdefault(name, torch.zeros(len(rows), *logits.shape[1:]))[outside] = logits
        model.release_towers()
    result.pop("linear_probe", None)
    return result
