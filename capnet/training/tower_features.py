"""Tower features of the images of one data set, from the feature store; several processes divide the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Params
from capnet.data.images.features import pooled_features
from capnet.data.images.stored_features import StoredFeatures, join_views
from capnet.data.images.transform import Transform
from capnet.errors import ConfigError
from capnet.model.capnet import CapNet
from capnet.model.towers import Towers
from capnet.runtime import Machine
from capnet.training.distributed import ProcessGroup


@dataclass(frozen=True)
class TowerFeatures:
    """Features and tokens of images that lie in ``root``."""

    params: Params
    towers: Towers
    machine: Machine
    root: Path
    process_group: ProcessGroup

    def transform(self, random_views: int = 0) -> Transform:
        """The test-time views of an image, or that many random ones."""
        p, tte, seed = self.towers.preprocess, self.params.tte, self.params.runtime.seed
        views = None if random_views else tte
        return Transform(p.size, p.mean, p.std, p.interpolation, views, random_views, seed, tte.resize, tte.decode)

    def pooled(
        self, rows: pd.DataFrame, transform: Transform, what: str, model: CapNet | None = None
    ) -> StoredFeatures:
        """Features of rows in the tower without adapters, from the feature store.

        Args:
            rows: with ``path`` and ``sha256``.
            transform: the views.
            what: names the rows in the log.
            model: whose adapters are in the towers; they are off meanwhile, because under bf16 even adapters that add
                zero make other roundings. None where none are.

        Returns:
            [row, view, pooled].
        """
        function = self.towers.image.pooled if model is None else partial(model.pooled, adapted=False)
        return self._stored(function, "", rows, transform, what)

    def tokens(self, rows: pd.DataFrame, transforms: Sequence[Transform], blocks: int, what: str) -> StoredFeatures:
        """Tokens [row, view, token, width] before the image tower's last ``blocks`` blocks, from the feature store.

        Args:
            rows, what: as in ``pooled``.
            transforms: the views of all of these.

        Raises:
            ConfigError: they need more than the feature store may hold.
        """
        self.refuse_tokens(rows, transforms, blocks, what)
        tower = self.towers.image
        before = f" before {blocks} blocks"
        function = partial(tower.tokens, blocks=blocks)
        return join_views([self._stored(function, before, rows, item, f"{what} (tokens of)") for item in transforms])

    def refuse_tokens(self, rows: pd.DataFrame, transforms: Sequence[Transform], blocks: int, what: str) -> None:
        """Refuse tokens, as ``tokens`` makes them of these arguments, that need more than the feature store may hold.

        Args:
            rows, transforms, blocks, what: as in ``tokens``.

        Raises:
            ConfigError: with their size.
        """
        tower, size, device = self.towers.image, self.towers.preprocess.size, self.machine.device
        with torch.no_grad():
            one = tower.tokens(torch.zeros(1, 3, size, size, device=device), blocks)
        # the store keeps two bytes a number, and equal images once
        gigabytes = 2e-9 * one.numel() * rows["sha256"].nunique() * sum(item.views for item in transforms)
        if gigabytes > self.params.runtime.feature_gigabytes:
            raise ConfigError(
                f"the tokens of {len(rows)} {what} images take {gigabytes:.1f} GB, and runtime.feature_gigabytes is"
                f" {self.params.runtime.feature_gigabytes:g}",
                "train.adapter.blocks",
                "raise runtime.feature_gigabytes, lower train.views, or set train.adapter.blocks: 0",
            )

    def pooled_of_tokens(self, model: CapNet, tokens: Tensor) -> Tensor:
        """Pooled features [image, pooled] of ``tokens`` [image, token, width] in ``model``."""
        with self.machine.autocast():
            is_bf16 = self.machine.bf16 and not model.towers.image.keeps_fp32
            stream = tokens.bfloat16() if is_bf16 else tokens  # as the blocks before left it
            return model.towers.image.pooled_of_tokens(stream, model.blocks_behind_tokens).float()

    def _stored(
        self, function: Callable[[Tensor], Tensor], before: str, rows: pd.DataFrame, transform: Transform, what: str
    ) -> StoredFeatures:
        group, towers, machine, threads = self.process_group, self.towers, self.machine, self.params.runtime.threads
        weights, concurrent = towers.feature_key + before, towers.image.is_convolutional

        def compute(rows: pd.DataFrame, what: str) -> StoredFeatures:
            return pooled_features(function, weights, rows, self.root, transform, machine, threads, what, concurrent)

        if group.size == 1:
            return compute(rows, what)
        own = compute(rows.iloc[group.share(np.arange(len(rows)))], what)  # in use, so that nobody removes it
        group.wait()
        everything = compute(rows, f"{what} (where processes share no state folder)")
        del own
        return everything
