"""The ingest stage: the user's label files and images -> manifest.parquet and classes.json."""

from __future__ import annotations

import logging
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from capnet.config import Ingest, Params
from capnet.contracts import write_classes, write_manifest
from capnet.data.annotations.added import add_images, headers_elsewhere
from capnet.data.annotations.bad_images import Fault, advice, faults_that_end_ingest, report_left_out
from capnet.data.annotations.corrections import COLUMNS, apply_corrections, other_names
from capnet.data.annotations.likely_mistakes import likely_mistakes, unlisted_images
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.annotations.rows import Annotations
from capnet.data.sources.root import local_root
from capnet.data.splits.id_lists import LISTS, read_id_list, write_id_list
from capnet.errors import SHOWN, DataError, Problem
from capnet.steps.ingest_changes import DataChanges

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
# what an image has in the annotations, for formats that list all images of a folder; folders of VOC and NUS-WIDE hold
# those of other sets, too
ENTRIES = {"csv": "row", **dict.fromkeys(("coco", "camera_traps"), "entry in the annotations")}


def ingest(params: Params, inputs: dict[str, Path], outputs: dict[str, Path]) -> dict[str, float]:
    """Read the labels of ``data.format`` and every image once, write the manifest in the order of the labels.

    A missing or broken image is left out, named in left_out.csv and counted, up to a share of ``ingest.bad_images``;
    one at least must be good.

    Args:
        params: all settings.
        inputs: ``data``, the data folder.
        outputs: ``manifest``, the folder to write.

    Returns:
        Number of images, of classes, of images without a label and, if there are any, of those left out, of images
        labelled later and of corrected labels.

    Raises:
        DataError: with every mistake in tables and images at once.
        CapnetError: the machine could not read some images.
    """
    changes = DataChanges(params, inputs["data"])
    root, settings = local_root(params.data, inputs["data"]), params.ingest
    folder = DataFolder(root, params.data.links)
    annotations, added = add_images(read_annotations(folder, params), folder, settings)
    corrected, mistakes = apply_corrections(annotations, folder.path(settings.corrections))
    # with a folder of its own: what no stage reads may change
    _warn_of_unread_tables(DataFolder(root, params.data.links), settings)
    problems, outside, unlisted = [*annotations.problems, *mistakes], set[int](), list[Problem]()
    # before images are copied: they may take the place of the copies of label files
    lists = {name: _id_list(folder, name, annotations.rows, settings, unlisted) for name in LISTS}
    if settings.images != "listed":
        local_root(params.data, inputs["data"], annotations.rows, strict=False)
        outside = {row for row, path in enumerate(annotations.rows["path"]) if folder.leads_out(path)}
        problems += [_leads_out(annotations.rows["path"].iloc[row], annotations.where(row)) for row in sorted(outside)]
    if annotations.rows.empty and not problems:
        problems.append(Problem("no image is listed", str(folder), "write a row for each image"))
    changes.remember_images(root, annotations)
    rows, faults = _images(root, annotations, settings, outside)
    problems += unlisted
    listed = {image for ids in lists.values() for image in ids}
    problems += faults_that_end_ingest(folder, root, rows, faults, listed, params)
    problems += changes.problems(folder, root, annotations, faults, read_again=not problems)
    if problems:
        raise DataError(problems=problems)
    manifest = outputs["manifest"]
    report_left_out(manifest / "left_out.csv", rows, faults, annotations.left_out)
    if faults:
        first_added = len(rows) - added  # added images are the last rows
        added -= len([row for row, *_ in faults if row >= first_added])
        rows = rows.drop(index=[row for row, *_ in faults]).reset_index(drop=True)
    write_manifest(manifest / "manifest.parquet", rows)
    write_classes(manifest / "classes.json", annotations.classes)
    for name, ids in lists.items():
        if ids:
            write_id_list(manifest, name, ids)
    _warn_of_likely_mistakes(rows, annotations, params, root if changes.is_local else None)
    blank = sum(not len(labels) for labels in rows["labels"])
    left_out = len(faults) + sum(map(len, annotations.left_out.values()))
    classes = float(len(annotations.classes))
    metrics = {"pictures": float(len(rows)), "classes": classes, "without_label": float(blank)}
    more = {"left_out": left_out, "added": added, "corrected": corrected}
    return metrics | {name: float(count) for name, count in more.items() if count}


def _warn_of_unread_tables(folder: DataFolder, settings: Ingest) -> None:
    """Name the tables of the data folder that people may have meant as corrections or as added images."""
    unread = set[str]()
    for setting in ("corrections", "added"):
        file = getattr(settings, setting)
        for name in other_names(folder.names() or (), file):
            log.warning("%s is not read: ingest.%s is %s", name, setting, file)
            unread.add(name)
    for name, header in headers_elsewhere(folder, settings).items():
        if name in unread:
            continue
        if {"path", "labels"} <= header:
            what = "%s is not read: tables with path and labels of further images belong into ingest.added = %s"
            log.warning(what, name, settings.added)
        elif {*COLUMNS} <= header:
            what = "%s is not read: corrections of a review belong into ingest.corrections = %s"
            log.warning(what, name, settings.corrections)


def _warn_of_likely_mistakes(rows: pd.DataFrame, annotations: Annotations, params: Params, root: Path | None) -> None:
    """``rows``: without images left out; ``root``: the data folder, None for copies of a remote."""
    for warning in [*likely_mistakes(rows, annotations.classes, params.data.format), *annotations.warnings]:
        log.warning("%s", warning)
    entry = ENTRIES.get(params.data.format)
    if entry and root is not None and params.ingest.images != "listed":
        left_out = (image.path for images in annotations.left_out.values() for image in images)
        if warning := unlisted_images(root, chain(annotations.rows["path"], left_out), entry):
            log.warning("%s", warning)


def _images(
    root: Path, annotations: Annotations, settings: Ingest, outside: set[int]
) -> tuple[pd.DataFrame, list[Fault]]:
    """The rows with width, height and sha256, and what is wrong with bad images; no image of the rows ``outside`` is
    opened.
    """
    import pandas as pd

    from capnet.data.images.dark import Dark
    from capnet.data.images.image_files import ImageFile, inspect_images, require_read

    rows = annotations.rows
    if settings.images == "listed":
        for name in ("width", "height", "sha256"):
            if name not in rows:
                rows[name] = pd.Series([None] * len(rows), dtype="Int32" if name != "sha256" else object)
        return rows, []
    inside, images = [row for row in range(len(rows)) if row not in outside], [ImageFile()] * len(rows)
    read = inspect_images(root, rows["path"].iloc[inside].tolist(), decode=settings.images == "decode")
    for row, image in zip(inside, read, strict=True):
        images[row] = image
    require_read(images, rows["path"].tolist(), annotations.where)  # left out, good images would be lost
    faults: list[Fault] = []
    dark = Dark()
    for row, (path, image) in enumerate(zip(rows["path"], images, strict=True)):
        dark.add(path, image.brightest)
        if image.fault:
            todo = advice(root, path, image.fault) if len(faults) < SHOWN else ""  # slow: only for what is shown
            problem = Problem(f"image {path!r}: {image.fault}", annotations.where(row), todo)
            faults.append((row, image.fault, problem))
    for name in ("width", "height", "sha256"):
        rows[name] = [getattr(image, name) for image in images]
    if dark.warning:
        log.warning(dark.warning)
    return rows, faults


def _leads_out(path: str, where: str) -> Problem:
    todo = "put the file itself there, or set data.links: anywhere (what lies outside is not versioned with the data)"
    return Problem(f"image {path!r} is reached through a link that leaves the data folder", where, todo)


def _id_list(folder: DataFolder, name: str, rows: pd.DataFrame, settings: Ingest, problems: list[Problem]) -> list[str]:
    """The published list of a split; what is wrong with it is added to ``problems``."""
    setting = f"{name}_list"
    file: str = getattr(settings, setting)
    if not file:
        return []
    ids, mistakes = read_id_list(folder.path(file), rows["image_id"].tolist(), f"ingest.{setting}")
    problems += mistakes
    return ids
