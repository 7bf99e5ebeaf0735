"""What stage train chooses on held-out rows: the epoch, the linear probe and the blend of what is served."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.contracts import sampling_units
from capnet.data.images.stored_features import Features, last_stage
from capnet.errors import DataError
from capnet.evaluation.baselines import FittedProbe, ProbeRows, fit_linear_probe
from capnet.evaluation.blend import PREFERRED, Blend, choose_blend
from capnet.evaluation.metrics import average_precision, bucket_masks, mean_over, measurable
from capnet.model.adapters import trains_blocks
from capnet.model.capnet import CapNet
from capnet.training.scoring import combine, served_scores
from capnet.training.trainer import Trainer, Validate


def validator(trainer: Trainer, val: pd.DataFrame, plain: Features | None) -> Validate | None:
    """A function that measures a model on the validation rows.

    Args:
        trainer: with the images and their views.
        val: validation rows.
        plain: their features [row, view, pooled] in the tower without adapters.

    Returns:
        Gives ``val_mAP`` of the served scores, and ``val_head`` and so on for each bucket that has a mean; None without
        validation rows. Raises DataError where no class has a positive and a negative.
    """
    if val.empty:
        return None
    labels = trainer.labels(val)
    if not measurable(labels.targets.numpy(), labels.known.numpy()).any():
        kind = "negative" if labels.targets.any() else "positive"
        todo = "set split.validation.source: none, or give more validation rows"
        if (val["given_split"] == "val").any():  # these stay, whatever the settings say
            todo = (
                f"give rows with a {kind} the split 'val' (column split), or leave that column empty instead of 'val'"
                " and set split.validation.source: none"
            )
        more = " and a negative one" if kind == "negative" else ""
        raise DataError(f"no class has a positive validation row{more}", "split.parquet", todo)
    masks = bucket_masks(trainer.classes.buckets)

    def validate(model: CapNet) -> dict[str, float]:
        scores = served_scores(trainer, model, val, plain, "validation")
        ap = average_precision(labels.targets.numpy(), scores, labels.known.numpy())
        means = {f"val_{name}": float(mean_over(ap, mask)) for name, mask in masks.items()}
        return {name: value for name, value in means.items() if math.isfinite(value)}

    return validate


def train_probe(
    trainer: Trainer,
    rows: pd.DataFrame,
    plain: Features,
    val: pd.DataFrame,
    val_plain: Features | None,
    folds: np.ndarray | None,
) -> FittedProbe:
    """The linear probe under the test-time views.

    Args:
        trainer: with the classes.
        rows: training rows.
        plain: their features [row, view, pooled] in the tower without adapters.
        val: validation rows.
        val_plain: their features; without them the probe is of the training rows.
        folds: the fold of each row that it is fitted on, int [row], for held-out scores of all of them; or None.

    Returns:
        The probe, with ``train.refit`` fitted on training and validation rows.
    """

    def part(rows: pd.DataFrame, features: Features) -> ProbeRows:
        labels = trainer.labels(rows)
        features = last_stage(features, trainer.towers.pooled_dim)
        return ProbeRows(features, labels.targets.numpy(), labels.known.numpy())

    refits = trainer.params.train.refit
    return fit_linear_probe(
        part(rows, plain), part(val, val_plain) if refits and val_plain is not None else None, folds
    )


def load_probe(model: CapNet, fitted: FittedProbe) -> dict[str, Tensor]:
    """Put the probe into ``model``; returns its tensors by their names there."""
    assert model.linear_probe is not None
    probe = fitted.probe
    arrays = {"weight": probe.weight.T.copy(), "bias": probe.bias, "centre": probe.centre}
    tensors = {name: torch.from_numpy(item).float() for name, item in arrays.items()}
    model.linear_probe.load_state_dict(tensors)
    return {f"linear_probe.{name}": tensor for name, tensor in tensors.items()}


@dataclass
class HeldOut:
    """Rows with logits by models that had not seen them: blend, thresholds and calibration are chosen on these."""

    rows: pd.DataFrame
    folds: np.ndarray | None  # int [row]; None for validation rows, which one model scored
    logits: dict[str, Tensor] = field(default_factory=dict)  # [row, view, class] by member; main process only

    def add_probe(self, probe: FittedProbe) -> None:
        """Use the probe's held-out scores, where it has them: by fits that had not seen the row. They are the same in
        every view, because the probe sees the views' mean.
        """
        if probe.held_out is not None:
            logits = torch.logit(torch.from_numpy(probe.held_out).double(), eps=1e-7).float()
            views = self.logits["capnet"].shape[1]
            self.logits["linear_probe"] = logits.unsqueeze(1).expand(-1, views, -1)

    def choose_blend(self, trainer: Trainer) -> Blend:
        """The blend of the members that ranks these rows best.

        Args:
            trainer: with the classes and the towers.

        Returns:
            Its weights, and what each member gains.
        """
        labels = trainer.labels(self.rows)
        means = {name: logits.double().mean(dim=1).numpy() for name, logits in self.logits.items()}
        # a tower with adapters gives these members' features in one pass; the others would take a second one
        adapted = trains_blocks(trainer.towers.image, trainer.params.train.adapter)
        preferred = ("capnet", "class_head") if adapted else PREFERRED
        units = sampling_units(self.rows)
        where = "val" if self.folds is None else "out_of_fold"
        targets, known, average = labels.targets.numpy(), labels.known.numpy(), trainer.params.tte.average
        # the mean over views of blended logits is the blend of the means; for probabilities it is not
        score = None if average == "logits" else partial(combine, self.logits, average=average)
        return choose_blend(means, targets, known, units, where, preferred, self.folds, score)

    def scores(self, weights: Mapping[str, float], average: str) -> pd.DataFrame:
        """What a blend with ``weights`` would have served for these rows, as a table of predictions.

        Args:
            weights: of the members.
            average: of the views, as in ``average_views``.
        """
        scores = combine(self.logits, weights, average)
        return self.rows[["image_id", "slice", "split"]].assign(variant="capnet", scores=list(scores))
