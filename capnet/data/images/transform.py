"""What is fed to a tower: preprocessing, and either test-time views of an image or a number of random ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor, from_numpy

from capnet.config import Tte, settings_hash
from capnet.data.images.decode import Unusable, check_sha256, read_rgb
from capnet.data.images.views import Canvas, Cut, needed_size, random_view, test_canvas, to_tensor, unusable
from capnet.errors import DataError


class Item(NamedTuple):
    """An image: its path below a root, what its random views are drawn from, and the sha256 that its file must have."""

    path: str
    draw: tuple[int, ...] = ()
    sha256: str = ""


@dataclass(frozen=True)
class Transform:
    """Views of ``size`` px: those of ``tte``, else ``random_views`` of the image, which is first reduced to ``reduce``
    times ``size`` where that is given.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    tte: Tte | None = None
    random_views: int = 0
    seed: int = 0
    resize: str = "short"
    decode: Literal["full", "scaled"] = "full"
    reduce: float = 0.0

    @property
    def views(self) -> int:
        """How many views of an image there are."""
        return self.random_views if self.tte is None else self.tte.views

    def item(self, path: str, sha256: str) -> Item:
        """The image of a row; its random views depend on seed and content only."""
        return Item(path, () if self.tte is not None else (self.seed, int(sha256[:15], 16)))

    def items(self, rows: pd.DataFrame) -> Iterator[Item]:
        """The images of rows with ``path`` and ``sha256``; None where ingest opened no image."""
        for path, sha256 in zip(rows["path"], rows["sha256"].fillna(""), strict=True):
            yield self.item(path, sha256)._replace(sha256=sha256)

    def canvas(self, root: Path, item: Item) -> Canvas:
        """Decode an image and lay out its views.

        Raises:
            Unusable: its file cannot be used.
        """
        if item.sha256:
            check_sha256(root / item.path, item.sha256)
        image = read_rgb(root / item.path, self._needed if self.decode == "scaled" else None)
        brightest = image.info["brightest"]
        if self.tte is not None:
            canvas = test_canvas(image, self.size, self.views, self.tte.expand, self.interpolation, self.resize)
            return replace(canvas, brightest=brightest)
        scale = self.reduce * self.size / min(image.size)
        if 0 < scale < 1:
            reduced = round(image.width * scale), round(image.height * scale)
            image = image.resize(reduced, Image.Resampling.BICUBIC, reducing_gap=3.0)
        rng = np.random.default_rng(item.draw)
        drawn = [random_view(image, self.size, self.interpolation, rng, self.resize) for _ in range(self.random_views)]
        cuts = tuple(Cut(0, number * self.size) for number in range(self.random_views))
        return Canvas(np.concatenate([np.asarray(view) for view in drawn]), cuts, self.size)

    def tensor(self, root: Path, path: str, sha256: str) -> Tensor:
        """Views of one image as a tower takes them.

        Args:
            root: folder of the images.
            path: of the image below it.
            sha256: that random views are drawn from; test-time views do not need it.

        Returns:
            Normalised float32 [view, 3, size, size].

        Raises:
            DataError: its file cannot be used.
        """
        try:
            canvas = self.canvas(root, self.item(path, sha256))
        except Unusable as error:
            raise DataError(problems=[unusable(root / path, str(error))]) from None
        return to_tensor(canvas.views(from_numpy(canvas.pixels)), self.mean, self.std)

    def key(self) -> str:
        """Of what a tower is fed: a seed counts for random views only, and how scores are averaged does not."""
        fields: dict[str, Any] = {
            "transform": [self.size, self.mean, self.std, self.interpolation, self.resize, self.decode],
            "random": [self.random_views, self.seed] if self.tte is None else [],
            "test_time": [] if self.tte is None else [self.tte.views, self.tte.expand],
        }
        return settings_hash(fields)

    def _needed(self, image_size: tuple[int, int]) -> tuple[int, int]:
        expand = 0 if self.tte is None else self.tte.expand
        return needed_size(image_size, self.size + expand, self.resize, random=self.tte is None)
