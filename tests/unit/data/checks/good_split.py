"""A small split without a fault, its pictures, and what the data gate says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from capnet.config import Validate
from capnet.contracts import Classes, make_classes
from capnet.contracts.tables import MANIFEST_COLUMNS
from capnet.data.checks.gate import check_split as findings_of
from capnet.data.checks.rules import Check

CLASSES = make_classes(["cat", "dog", "bird"])
SETTINGS = Validate(min_positives=1)


def draw(path: Path, seed: int) -> None:
    """A picture with coarse structure, unlike that of any other seed."""
    cells = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(cells).resize((96, 96), Image.Resampling.BICUBIC).save(path, quality=95)


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """Nine good rows, three in each split, and their pictures under tmp_path."""
    rows = []
    for number, split in enumerate(("train", "val", "test") * 3):
        draw(tmp_path / f"images/{number}.png", number)
        labels = [[0, 1], [1, 2], [0, 2]][number // 3]
        unknown = [2] if number == 0 else []
        rows.append(
            (
                f"p{number}",
                f"images/{number}.png",
                labels,
                unknown,
                96,
                96,
                f"{number:064x}",
                f"g{split}{number // 6}" if number else None,
                None,
                None,
                split,
            )
        )
    columns = [*MANIFEST_COLUMNS, "split"]
    return pd.DataFrame(rows, columns=columns)


def check_split(frame: pd.DataFrame, classes: Classes, root: Path, settings: Validate) -> list[Check]:
    return findings_of(frame, classes, root, settings)[0]


USUALLY_LEFT_OUT = {
    "sequences_in_one_split": "the data names no sequences",
    "no_drift": "no file reference/validation.json: `capnet validate --save-reference` writes it",
}


def not_checked(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.why for check in checks if check.status == "not checked"}


def failed(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if not check.success}
