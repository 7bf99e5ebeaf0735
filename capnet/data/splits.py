"""Which rows form a training list: the long-tailed Pareto construction, and published id lists."""

from __future__ import annotations

import difflib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from capnet.errors import SHOWN, Problem

if TYPE_CHECKING:
    import numpy as np

LAST_TAIL = 0.01  # the last class stands for the 0.99-quantile of the Pareto distribution


@dataclass(frozen=True)
class ParetoDraw:
    """A long-tailed list: drawn ``rows`` in list order; per visited class its index, reference count and rows added (or removed, below 0)."""

    rows: list[int]
    class_order: list[int]
    reference: list[int]
    steps: list[int]


def reference_curve(n_classes: int, maximum: int, minimum: int, shape: float) -> np.ndarray:
    """Reference counts, int64 [class], falling from ``maximum`` towards ``minimum`` like a Pareto density.

    Source: Wu et al., ECCV 2020 (distribution-balanced loss), split tool: floor((max - min) x^-(b + 1) + min) at
    evenly spaced x from the 0-quantile (1) to the 0.99-quantile of Pareto(b).
    """
    import numpy as np

    x = np.linspace(1.0, LAST_TAIL ** (-1.0 / shape), n_classes)
    return np.floor((maximum - minimum) * x ** -(shape + 1.0) + minimum).astype(np.int64)


def dragged_in(labels: np.ndarray) -> np.ndarray:
    """Per class the sum over i of P(class | i), float64 [class]: how much the other classes drag it in; ``labels`` bool [row, class]."""
    import numpy as np

    together = labels.T.astype(np.float64) @ labels.astype(np.float64)  # [class, class], exact: counts below 2^53
    return (together / np.maximum(np.diag(together), 1.0)[:, None]).sum(axis=0)


def class_order(labels: np.ndarray) -> np.ndarray:
    """Classes in the order in which the draw visits them, int64 [class]: the most dragged in first, ties by index."""
    import numpy as np

    return np.argsort(-dragged_in(labels), kind="stable")


def pareto_draw(labels: np.ndarray, maximum: int, minimum: int, shape: float, seed: int) -> ParetoDraw:
    """Draw a long-tailed list from ``labels``, bool [row, class], rows in ascending order of their ids.

    One greedy pass from the most to the least dragged-in class: each class is filled up to its reference count from the
    rows not yet drawn (as far as they reach), or cut down to it; earlier classes are not visited again, so final counts
    differ from the reference. Source: METHOD 3.1; Wu et al., ECCV 2020.

    The published lists hang on CPython's iteration order of sets of small integers, here and in the order of the result:
    the sets below are grown and shrunk one element at a time for that reason, and must stay sets of plain ints.
    """
    order = [int(c) for c in class_order(labels)]
    reference = [int(n) for n in reference_curve(labels.shape[1], maximum, minimum, shape)]
    of_row: list[list[int]] = [row.nonzero()[0].tolist() for row in labels]
    drawn: set[int] = set()
    drawn_of_class: list[set[int]] = [set() for _ in order]
    generator = random.Random(seed)
    steps = []
    for c, wanted in zip(order, reference, strict=True):
        step = wanted - len(drawn_of_class[c])
        if step > 0:
            left = tuple(set(labels[:, c].nonzero()[0].tolist()) - drawn_of_class[c])
            step = min(step, len(left))
            for row in generator.sample(left, step):
                drawn.add(row)
                for other in of_row[row]:
                    drawn_of_class[other].add(row)
        elif step < 0:
            for row in generator.sample(tuple(drawn_of_class[c]), -step):
                drawn.remove(row)
                for other in of_row[row]:
                    drawn_of_class[other].remove(row)
        steps.append(step)
    return ParetoDraw(list(drawn), order, reference, steps)


def read_id_list(path: Path, known: Sequence[str], setting: str) -> tuple[list[str], list[Problem]]:
    """Ids of a published list, one a line, in its order, and every mistake in it: unknown and repeated ids, unreadable file."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        return [], [Problem(f"not UTF-8 text: {error.reason} at byte {error.start}", str(path), "save the list as UTF-8, one image id a line")]
    except OSError as error:
        return [], [Problem(f"cannot read the id list: {error.strerror}", str(path), f"correct {setting} in params.yaml")]
    ids, problems, first_line = [], [], dict[str, int]()
    by_name: dict[str, str] = {PurePosixPath(image).name: image for image in known}
    existing = set(known)
    for number, line in enumerate(lines, start=1):
        image = line.strip()
        if not image:
            continue
        if image in first_line:
            problems.append(
                Problem(f"image id {image!r} is listed twice", f"{path} line {number}, first in line {first_line[image]}", "remove one of the lines")
            )
            continue
        first_line[image] = number
        if image in existing:
            ids.append(image)
        else:
            problems.append(Problem(f"image id {image!r} is not in the data", f"{path} line {number}", _advice(image, known, by_name, len(problems))))
    if not first_line and not problems:
        problems.append(Problem("the id list is empty", str(path), f"correct {setting} in params.yaml: a text file with one image id a line"))
    return ids, problems


def _advice(image: str, known: Sequence[str], by_name: dict[str, str], number: int) -> str:
    if image in by_name:
        return f"the data has {by_name[image]!r}: give labels.csv an image_id column that holds the list's ids"
    close = difflib.get_close_matches(image, known, n=1, cutoff=0.8) if number < SHOWN else []  # slow: only for what is shown
    return f"did you mean {close[0]!r}?" if close else "add the picture to the data, or use the list that belongs to this data"
