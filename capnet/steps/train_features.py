"""Which features of the image tower a training needs, before its first step."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from capnet.data.images.stored_features import StoredFeatures, join_views
from capnet.data.images.transform import Transform
from capnet.model.capnet import CapNet
from capnet.training.trainer import Trainer


class TrainFeatures(NamedTuple):
    """[row, view, pooled] in the tower without adapters, None for what nothing needs: ``plain`` of training rows under
    the test-time views, ``views`` of them under all views that are trained on, ``validation`` of the validation rows.
    Where only a tower's last blocks are trained, ``views`` are the tokens [row, view, token, width] before these.
    """

    plain: StoredFeatures | None
    views: StoredFeatures | None
    validation: StoredFeatures | None


def train_features(trainer: Trainer, model: CapNet, rows: pd.DataFrame, val: pd.DataFrame) -> TrainFeatures:
    """Those that this training needs, from the feature store where it has them.

    Args:
        trainer: with settings and tower.
        model: that is trained.
        rows, val: training and validation rows.
    """
    settings, test_time = trainer.params.train, trainer.features.transform()
    frozen, blended = model.tower_is_frozen, settings.blend == "held_out"
    plain = views = validation = None
    if frozen or blended or settings.class_head.enabled or settings.head.start == "data":
        plain = trainer.features.pooled(rows, test_time, "training", model)
    if frozen and plain is not None:
        random = trainer.features.pooled(rows, trainer.features.transform(settings.views), "training (random views of)")
        views = join_views([plain, random])
    elif model.blocks_behind_tokens:
        views = trainer.features.tokens(rows, views_of_tokens(trainer), model.blocks_behind_tokens, "training")
    if len(val) and (frozen or blended):
        validation = trainer.features.pooled(val, test_time, "validation", model)
    return TrainFeatures(plain, views, validation)


def views_of_tokens(trainer: Trainer) -> list[Transform]:
    """The views whose tokens are stored."""
    return [trainer.features.transform(), trainer.features.transform(trainer.params.train.views)]
