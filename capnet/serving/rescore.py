"""A registered version scores rows that it was not tested on, for the gate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capnet.config import Runtime
from capnet.contracts import read_split
from capnet.errors import DataError
from capnet.serving.engine import load_served
from capnet.serving.fetch import download

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def rescorer(champion: ModelVersion, runtime: Runtime, root: Path, split: Path) -> Callable[[pd.DataFrame], np.ndarray]:
    """A function that scores rows with a registered version that was not tested on them.

    Args:
        champion: the version; downloaded when the function is called.
        runtime: the section ``runtime``.
        root: folder of the images.
        split: folder of split.parquet, which has the images' paths by sha256.

    Returns:
        The function: rows with a ``sha256`` to scores float32 [image, class]. It raises DataError where an image is not
        in the split, or its file has changed.
    """
    from capnet.data.images.decode import Unusable, check_sha256, refuse_transient
    from capnet.data.images.views import unusable

    def rescore(rows: pd.DataFrame) -> np.ndarray:
        table = read_split(split / "split.parquet")
        paths = dict(zip(table["sha256"], table["path"], strict=True))
        missing = [key for key in rows["sha256"] if key not in paths]
        if missing:
            what = f"{len(missing)} test images of the candidate are not in this split, e.g. sha256 {missing[0][:16]}"
            raise DataError(what, str(split), "give the split that the candidate was evaluated on (--split)")
        problems = []
        for key in rows["sha256"]:
            try:
                check_sha256(root / paths[key], key)
            except Unusable as error:
                refuse_transient(error, root / paths[key])
                problems.append(unusable(root / paths[key], str(error)))
        if problems:
            raise DataError(problems=problems)
        with TemporaryDirectory() as folder:
            artifacts = download(champion, Path(folder))
            served = load_served(artifacts / "model", artifacts / "thresholds.json", runtime)
            return served.scores([root / paths[key] for key in rows["sha256"]])

    return rescore
