"""docs/results.md says how its sets are divided: the settings there give its numbers of photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.ablation_sets import merged
from benchmarks.graph_training import read_folder
from capnet.commands.preset import read
from capnet.config import parse
from capnet.data.splits.assign import assign_splits


@pytest.mark.parametrize(
    ("folder", "group", "settings", "sizes"),
    [
        ("corel5k", "", {}, (2875, 719, 899)),
        ("corel5k", "series", {}, (2966, 631, 896)),
        ("ucmerced", "", {"split": {"method": "exponential"}}, (329, 82, 420)),
    ],
)
def test_a_set_is_divided_as_the_page_says(
    shared: Path, tmp_path: Path, folder: str, group: str, settings: dict[str, object], sizes: tuple[int, ...]
) -> None:
    table = pd.read_csv(shared / "data" / folder / "labels.csv", dtype=str)
    table.rename(columns={group: "group"}).to_csv(tmp_path / "labels.csv", index=False)
    (tmp_path / "classes.csv").write_bytes((shared / "data" / folder / "classes.csv").read_bytes())
    params = parse(merged(read("own").model_dump(mode="json", by_alias=True), settings))
    frame, _, labels = read_folder(tmp_path, params.ingest)
    order = np.argsort(frame["image_id"].to_numpy(), kind="stable")
    divided = assign_splits(frame.iloc[order].reset_index(drop=True), labels[order], params.split)
    assert (len(divided.train), len(divided.val), len(divided.test)) == sizes
