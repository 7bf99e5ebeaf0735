"""Published long-tailed benchmarks: how many training images every class must have, so that figures compare with the
papers'.

Source: counted from the lists of Wu et al., ECCV 2020 (distribution-balanced loss); numbers in the order of VOC's and
    COCO's classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from capnet.contracts import Classes
from capnet.errors import DataError, Problem


@dataclass(frozen=True)
class Benchmark:
    """Training rows, test rows, and training images per class."""

    train: int
    test: int
    counts: tuple[int, ...]


_VOC = "6 34 8 14 154 17 249 29 479 4 240 48 11 20 775 100 5 82 7 64"
_COCO = """
1128 37 276 32 9 41 18 87 20 50 11 13 8 97 19 49 70 17 7 10 8 6 7 7 100 39 189 31 24 11 12 8 35 10 25 21 17 10
20 460 84 498 126 207 173 366 39 35 44 36 29 25 14 45 16 73 585 153 164 44 624 25 200 137 70 89 73 127 91 175
9 237 119 292 87 113 15 21 6 11
"""
BENCHMARKS = {
    "voc-lt": Benchmark(1142, 4952, tuple(map(int, _VOC.split()))),
    "coco-lt": Benchmark(1909, 5000, tuple(map(int, _COCO.split()))),
}


def check_benchmark(name: str, classes: Classes, counts: np.ndarray, rows: Mapping[str, int]) -> None:
    """Compare a split with the published counts of a benchmark.

    Args:
        name: of the benchmark; none checks nothing.
        classes: in the order of the published counts.
        counts: training positives, int [class].
        rows: number of rows by split.

    Raises:
        DataError: counts differ; names every class.
    """
    if name == "none":
        return
    expected = BENCHMARKS[name]
    where = f"split.benchmark = {name}"
    todo = (
        "use the published pictures with the preset's settings, or the published list as ingest.train_list with"
        " split.method: published; for a split of your own set split.benchmark: none"
    )
    problems = [
        Problem(f"{rows[split]} {split} rows, published are {number}", where, todo)
        for split, number in (("train", expected.train), ("test", expected.test))
        if rows[split] != number
    ]
    if len(classes) != len(expected.counts):
        problems.append(Problem(f"{len(classes)} classes, published are {len(expected.counts)}", where, todo))
    else:
        pairs = zip(classes.names, counts.tolist(), expected.counts, strict=True)
        different = [f"{label}: {count} instead of {number}" for label, count, number in pairs if count != number]
        if different:
            what = f"{len(different)} of {len(classes)} training counts are not the published ones"
            problems.append(Problem(what, "; ".join(different), todo))
    if problems:
        raise DataError(problems=problems)
