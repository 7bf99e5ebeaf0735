"""Published lists of training or test images: read with every mistake by ingest, kept with the manifest for split."""

from __future__ import annotations

import difflib
import re
from collections.abc import Container, Iterable, Sequence
from pathlib import Path, PurePosixPath

from capnet.contracts import reading, replace_file
from capnet.data.annotations.plain_files import read_lines
from capnet.errors import MOST, SHOWN, Problem

LISTS = ("train", "test")
LABELLED = re.compile(r"(\S+)\.(?:jpe?g|png)(?:\s+\d+)+", re.IGNORECASE)  # path of an image, numbers of its labels
COMPARED = 200_000  # ids that unknown ones are compared with, to guess what was meant: seconds


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
        guesses = max(1, COMPARED // max(1, len(known)))
        if number < guesses and (close := difflib.get_close_matches(image, known, n=1, cutoff=0.8)):
            return f"did you mean {close[0]!r}?"
    example = f" (ids there are such as {known[0]!r})" if known else ""
    return f"add the image to the data{example}, or use the list that belongs to this data"
