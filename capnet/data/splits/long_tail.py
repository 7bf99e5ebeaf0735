"""Which rows form a training list: long-tailed constructions (Pareto, exponential), and published id lists."""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from capnet.contracts import reading, replace_file
from capnet.data.annotations.plain_files import read_lines
from capnet.errors import MOST, SHOWN, Problem

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

LAST_TAIL = 0.01  # the last class stands for the 0.99-quantile of the Pareto distribution
LISTS = ("train", "test")
LABELLED = re.compile(r"(\S+)\.(?:jpe?g|png)(?:\s+\d+)+", re.IGNORECASE)  # path of an image, numbers of its labels


@dataclass(frozen=True)
class LongTailedDraw:
    """A long-tailed list: drawn ``rows`` in list order; per visited class its index, reference count and rows added (or
    removed, below 0).
    """

    rows: list[int]
    class_order: list[int]
    reference: list[int]
    steps: list[int]


def reference_curve(n_classes: int, maximum: int, minimum: int, shape: float) -> np.ndarray:
    """Reference counts that fall like a Pareto density.

    Source: Wu et al., ECCV 2020 (distribution-balanced loss), split tool: floor((max - min) x^-(b + 1) + min) at
    evenly spaced x from the 0-quantile (1) to the 0.99-quantile of Pareto(b).

    Args:
        n_classes: of the data.
        maximum: images of the first class.
        minimum: what counts fall towards.
        shape: b, the exponent of the Pareto distribution.

    Returns:
        int64 [class].
    """
    x = np.linspace(1.0, LAST_TAIL ** (-1.0 / shape), n_classes)
    return np.floor((maximum - minimum) * x ** -(shape + 1.0) + minimum).astype(np.int64)


def exponential_curve(n_classes: int, maximum: int, ratio: float) -> np.ndarray:
    """Reference counts that fall by one factor from class to class.

    Source: Cui et al., CVPR 2019 (class-balanced loss), the long-tailed CIFAR sets.

    Args:
        n_classes: of the data.
        maximum: images of the first class.
        ratio: maximum over the images of the last class.

    Returns:
        int64 [class], 1 at least.
    """
    share = np.arange(n_classes) / max(n_classes - 1, 1)
    return np.maximum(np.floor(maximum * ratio**-share + 1e-9), 1).astype(np.int64)


def dragged_in(labels: csr_array | np.ndarray) -> np.ndarray:
    """Per class the sum over i of P(class | i), float64 [class]: how much the other classes drag it in; ``labels`` bool
    [row, class].
    """
    from scipy.sparse import csr_array

    counts = csr_array(labels, dtype=np.int32)
    together = (counts.T @ counts).toarray().astype(np.float64)  # [class, class]
    return (together / np.maximum(np.diag(together), 1.0)[:, None]).sum(axis=0)


def class_order(labels: csr_array | np.ndarray) -> np.ndarray:
    """Classes in the order in which the draw visits them, int64 [class]: the most dragged in first, ties by index."""
    return np.argsort(-dragged_in(labels), kind="stable")


def long_tailed_draw(
    labels: csr_array | np.ndarray, reference: Sequence[int] | np.ndarray, seed: int
) -> LongTailedDraw:
    """Draw a long-tailed list of rows.

    One greedy pass from the most to the least dragged-in class: each class is filled up to its reference count from the
    rows not yet drawn (as far as they reach), or cut down to it; earlier classes are not visited again, so final counts
    differ from the reference. Source: Wu et al., ECCV 2020.

    The published lists hang on CPython's iteration order of sets of small integers, here and in the order of the
    result: the sets below are grown and shrunk one element at a time for that reason, and must stay sets of plain ints.

    Args:
        labels: known positives, sparse or dense bool [row, class], rows in ascending order of their ids.
        reference: int [class in visiting order].
        seed: of the draw.

    Returns:
        The drawn rows in list order, and what was done for each class.
    """
    from scipy.sparse import csc_array, csr_array

    order = [int(c) for c in class_order(labels)]
    counts = [int(n) for n in reference]
    by_row, by_class = csr_array(labels), csc_array(labels)
    by_row.sort_indices()
    by_class.sort_indices()
    drawn: set[int] = set()
    drawn_of_class: list[set[int]] = [set() for _ in order]
    generator = random.Random(seed)
    steps = []

    for c, count in zip(order, counts, strict=True):
        step = count - len(drawn_of_class[c])
        if step > 0:
            left = tuple(set(_entries(by_class, c)) - drawn_of_class[c])
            step = min(step, len(left))
            for row in generator.sample(left, step):
                drawn.add(row)
                for other in _entries(by_row, row):
                    drawn_of_class[other].add(row)
        elif step < 0:
            for row in generator.sample(tuple(drawn_of_class[c]), -step):
                drawn.remove(row)
                for other in _entries(by_row, row):
                    drawn_of_class[other].remove(row)
        steps.append(step)
    return LongTailedDraw(list(drawn), order, counts, steps)


def _entries(matrix: csr_array | csc_array, number: int) -> list[int]:
    """Positions of what is stored in a row of a CSR matrix, or in a column of a CSC matrix."""
    return matrix.indices[matrix.indptr[number] : matrix.indptr[number + 1]].tolist()


def write_id_list(folder: Path, split: str, ids: Sequence[str]) -> None:
    """Keep a published list with the manifest, so that whoever reads the manifest reads the list that belongs to it.

    Args:
        folder: of the manifest.
        split: train or test.
        ids: image ids in the list's order.
    """
    replace_file(folder / f"{split}_list.txt", "\n".join(ids) + "\n")


def read_kept_list(folder: Path, split: str) -> list[str]:
    """The list that ingest kept; empty where there is none. Raises ContractError where it is damaged."""
    path = folder / f"{split}_list.txt"
    if not path.is_file():
        return []
    with reading(path):
        return list(read_lines(path))


def read_id_list(path: Path, known: Sequence[str], setting: str) -> tuple[list[str], list[Problem]]:
    """Read a published list of image ids, one a line.

    A line may also be the path of an image and the numbers of its labels, which are not read: so LMPT (Xia et al., ALVR
    2024) publishes its lists.

    Args:
        path: of the list.
        known: image ids of the data.
        setting: that names the list, for messages.

    Returns:
        Ids in the list's order, and every mistake in it: unknown and repeated ids, an unreadable or empty file.
    """
    try:
        return _listed(read_lines(path), known, path, setting)
    except UnicodeDecodeError as error:
        what = f"not UTF-8 text: {error.reason} at byte {error.start}"
        return [], [Problem(what, str(path), "save the list as UTF-8, one image id a line")]
    except OSError as error:
        what = f"cannot read the id list: {error.strerror}"
        return [], [Problem(what, str(path), f"correct {setting} in params.yaml")]


def _listed(lines: Iterable[str], known: Sequence[str], path: Path, setting: str) -> tuple[list[str], list[Problem]]:
    ids, problems, first_line = [], list[Problem](), dict[str, int]()
    by_name: dict[str, str] = {PurePosixPath(image).name: image for image in known}
    same = _spellings(known)
    for number, line in enumerate(lines, start=1):
        if len(problems) >= MOST:
            break
        listed = line if line in same else line.strip()
        if not listed:
            continue
        name = _named(listed, same)
        image = same.get(name, name)
        if image in first_line:
            where = f"{path} line {number}, first in line {first_line[image]}"
            problems.append(Problem(f"image id {listed!r} is listed twice", where, "remove one of the lines"))
            continue
        first_line[image] = number
        if name in same:
            ids.append(image)
        else:
            todo = _advice(listed, known, by_name, len(problems))
            problems.append(Problem(f"image id {listed!r} is not in the data", f"{path} line {number}", todo))
    if not first_line and not problems:
        todo = f"correct {setting} in params.yaml: a text file with one image id a line"
        problems.append(Problem("the id list is empty", str(path), todo))
    return ids, problems


def _named(line: str, known: Container[str]) -> str:
    """The image id in a line: all of it, or the path in front of labels, with or without its folder."""
    match = LABELLED.fullmatch(line)
    if match is None or line in known:
        return line
    path = match[1].replace("\\", "/")
    return next((name for name in (path, PurePosixPath(path).name) if name in known), line)


def _spellings(known: Sequence[str]) -> dict[str, str]:
    """The image id that a line of a list stands for: itself, or COCO's 000000000009 for 9 where that says one image
    only.
    """
    numbers = [image for image in known if image.isdigit()]
    short = {image.lstrip("0"): image for image in numbers}
    return (short if len(short) == len(numbers) else {}) | {image: image for image in known}


def _advice(image: str, known: Sequence[str], by_name: dict[str, str], number: int) -> str:
    if number < SHOWN:  # slow: only for what is shown
        if image in by_name:
            other = "or give labels.csv an image_id column that holds the list's ids"
            return f"the data has {by_name[image]!r}: write that, {other}"
        bare = PurePosixPath(image.replace("\\", "/"))
        spellings = (str(bare.with_suffix("")) if bare.name else "", bare.stem)
        if inside := next((name for name in spellings if name in by_name.values()), ""):
            return f"did you mean {inside!r}? write image ids, without folder or ending where the data's ids have none"
        if close := difflib.get_close_matches(image, known, n=1, cutoff=0.8):
            return f"did you mean {close[0]!r}?"
    example = f" (ids there are such as {known[0]!r})" if known else ""
    return f"add the image to the data{example}, or use the list that belongs to this data"
