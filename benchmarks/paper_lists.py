"""What makes a benchmark the published one: its list files, the images of both splits, the weights. Hashes and counts,
no lists.

Source: hashes of the lists of Wu et al., ECCV 2020 (distribution-balanced loss), and of VOC's and COCO's own image
    sets: sha256 over the sorted image ids, one a line. Training counts per class are in
    capnet/data/splits/published.py. Test counts are those of VOC2007's own lists CLASS_test.txt, with the images that
    show difficult objects alone, which the benchmark counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from capnet.contracts import sha256_file
from capnet.errors import ConfigError, DataError, Problem
from capnet.model.backbones.openai_weights import OPENAI_WEIGHTS

COCO_LIST = "coco_lt_train.txt"
UNCHANGED = "the lists themselves are right: check whether the annotations are complete and unchanged"


@dataclass(frozen=True)
class ListFile:
    """A file of image ids below the data folder: how many, and the hash of the sorted ids (empty: not published)."""

    path: str
    ids: int
    sha256: str = ""


@dataclass(frozen=True)
class Published:
    """What is published of a benchmark.

    Attributes:
        files: its lists of image ids.
        splits: hash of the sorted image ids of a split, for the splits that have a published one.
        test_counts: test images of each class, in the order of the classes; empty: not compared.
    """

    files: tuple[ListFile, ...]
    splits: Mapping[str, str] = field(default_factory=dict)
    test_counts: tuple[int, ...] = ()


PUBLISHED = {
    "voc-lt": Published(
        (
            ListFile(
                "VOC2012/ImageSets/Main/trainval.txt",
                11540,
                "03faf88dfe13ee584928d80f2c400c75803c74ec9c79aa56f0292c26815b0f6e",
            ),
            ListFile(
                "VOC2007/ImageSets/Main/test.txt",
                4952,
                "e14f93dac92f03b31afd79b82a98589e371f754067c026b2b20ab512afb9dd07",
            ),
        ),
        {
            "train": "6fa70d5b693700d97657acd03b18b4d198aa59795dc99828db2c21a2abf2133f",
            "test": "e14f93dac92f03b31afd79b82a98589e371f754067c026b2b20ab512afb9dd07",
        },
        (205, 250, 289, 176, 240, 183, 775, 332, 545, 127, 247, 433, 279, 233, 2097, 254, 98, 355, 259, 255),
    ),
    "coco-lt": Published(
        (ListFile(COCO_LIST, 1909, "65d0d7fb585456dd7b543bd1fbb90f20676656412b0c74b2e2b136398e447ead"),),
        {
            "train": "65d0d7fb585456dd7b543bd1fbb90f20676656412b0c74b2e2b136398e447ead",
            "test": "3b4ea1d567a37f2d71549dd28f1783abf45270b84cffcee2acb008006fdf9d7f",
        },
    ),
    "nus-wide": Published(
        (ListFile("ImageList/TrainImagelist.txt", 161789), ListFile("ImageList/TestImagelist.txt", 107859))
    ),
}


def ids_hash(ids: Iterable[str]) -> str:
    """sha256 in hexadecimal over sorted image ids with newlines between them."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def list_ids(path: Path, name: str) -> list[str]:
    """Image ids of a list file as the benchmark's reader names them.

    Args:
        path: the file, one id a line; what stands behind the id is not read.
        name: the benchmark; COCO's ids may be numbers without leading zeros, or paths as in LMPT's list.

    Returns:
        Ids in the order of the file.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        lines = [
            line.split()[0].replace("\\", "/")
            for line in path.read_text(encoding="utf-8-sig").splitlines()
            if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        todo = (
            "put the published list there, one image id a line"
            if name == "coco-lt"
            else "unpack the data set as published; --data names the folder"
        )
        raise DataError(f"cannot read a list of {name}: {error}", str(path), todo) from None
    ids = [line.removesuffix(".jpg") for line in lines]
    return [image.rpartition("/")[2].zfill(12) for image in ids] if name == "coco-lt" else ids


def find(data: Path, path: str) -> Path:
    """A list file below the data folder; VOC's may lie in VOCdevkit, as in its archives."""
    kit = data / "VOCdevkit" / path
    return kit if path.startswith("VOC") and (data / "VOCdevkit").is_dir() else data / path


def check_files(name: str, data: Path, published: Published) -> None:
    """Compare every list file with what is published.

    Args:
        name: the benchmark.
        data: the data folder.
        published: number of ids and hash of every list.

    Raises:
        DataError: a list is missing, has another number of ids, or other ids; all such lists are named at once.
    """
    problems: list[Problem] = []
    for file in published.files:
        path = find(data, file.path)
        try:
            ids = list_ids(path, name)
        except DataError as error:
            problems += error.problems
            continue
        todo = f"use the published list of {name}, unchanged; figures on other images do not compare with the papers'"
        if len(ids) != file.ids:
            problems.append(
                Problem(f"the list {path.name} has {len(ids):,} image ids, published are {file.ids:,}", str(path), todo)
            )
        elif file.sha256 and ids_hash(ids) != file.sha256:
            what = (
                f"the list {path.name} has {len(ids):,} image ids, as published, but not the same ones (sha256"
                f" {ids_hash(ids)[:12]}, not {file.sha256[:12]})"
            )
            problems.append(Problem(what, str(path), todo))
    if problems:
        raise DataError(problems=problems)


def check_splits(name: str, ids: Mapping[str, list[str]], published: Published, where: str) -> None:
    """Compare the images of the splits with the published ones.

    Args:
        name: the benchmark.
        ids: image ids by split.
        published: hashes by split.
        where: the split table, for the message.

    Raises:
        DataError: a split has other images than the published one.
    """
    todo = "use the published images and lists with the preset's settings; nothing else compares with the papers"
    problems = [
        Problem(
            f"the {len(ids[split]):,} {split} images are not the published list of {name} (sha256"
            f" {ids_hash(ids[split])[:12]}, not {expected[:12]})",
            where,
            todo,
        )
        for split, expected in published.splits.items()
        if ids_hash(ids[split]) != expected
    ]
    if problems:
        raise DataError(problems=problems)


def check_test_counts(counts: Mapping[str, int], published: Published) -> None:
    """Compare the labels of the test images with the published number of images of each class, where there is one.

    Args:
        counts: test images by class, in the order of the classes.
        published: the numbers.

    Raises:
        DataError: counts differ; names every class.
    """
    if not published.test_counts:
        return
    pairs = zip(counts.items(), published.test_counts, strict=True)
    different = [f"{label}: {count} instead of {number}" for (label, count), number in pairs if count != number]
    if different:
        what = f"{len(different)} of {len(counts)} test counts are not the published ones"
        raise DataError(what, "; ".join(different), UNCHANGED)


def check_weights(backbone: str, source: str, tags: Iterable[str]) -> tuple[str, str]:
    """Compare a weight file with the one that OpenAI published for this backbone.

    Args:
        backbone: RN50 or ViT-B-16.
        source: a file, or a tag that open_clip downloads.
        tags: the tags that open_clip has for this backbone.

    Returns:
        What identifies the weights (a sha256, or the tag), and a note where no published hash could be compared, else
        "".

    Raises:
        ConfigError: there is no such file, or its hash is not that of OpenAI's file.
    """
    path = Path(source)
    if not path.is_file():
        if source in tags:
            return f"tag {source}", "weights by tag: open_clip fetches them, and no hash was compared here"
        what = f"no weight file for {backbone}: {source!r} is neither a file nor one of open_clip's tags"
        raise ConfigError(
            what,
            f"--weights {backbone}={source}",
            f"give OpenAI's {backbone}.pt, a .safetensors file or a tag: {', '.join(tags) or 'none'}",
        )
    digest = sha256_file(path)
    owner = OPENAI_WEIGHTS.get(digest, "")
    if owner == backbone:
        return digest, ""
    if path.suffix == ".safetensors":
        note = (
            f"a .safetensors file (sha256 {digest}): OpenAI published no hash of this form, so whose weights they are"
            " was not checked; they run with QuickGELU, which OpenAI's need and LAION's do not"
        )
        return digest, note
    expected = [known for known, model in OPENAI_WEIGHTS.items() if model == backbone][-1]
    what = (
        f"the weight file has sha256 {digest}, {f'that of {owner}' if owner else 'which OpenAI did not publish'};"
        f" published for {backbone} is {expected}"
    )
    raise ConfigError(
        what,
        str(path),
        f"download {backbone}.pt again (the address in OpenAI's CLIP repository holds the hash), or give the right"
        " backbone's",
    )
