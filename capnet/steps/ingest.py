"""The ingest stage: the user's label files and images -> manifest.parquet and classes.json."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from capnet.config import Ingest, Params
from capnet.contracts import csv_text, replace_file, write_classes, write_manifest
from capnet.data.annotations.added import add_images, headers_elsewhere
from capnet.data.annotations.corrections import COLUMNS, apply_corrections, other_names
from capnet.data.annotations.likely_mistakes import likely_mistakes, without_row
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.reading import read_annotations
from capnet.data.annotations.rows import Annotations, LeftOut
from capnet.data.sources.root import is_remote, local_root
from capnet.data.splits.id_lists import LISTS, read_id_list, write_id_list
from capnet.errors import SHOWN, DataError, Problem, counted, some

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
NAMED = 3  # reasons named in a warning, and images of each; left_out.csv has all
Fault = tuple[int, str, Problem]  # row of an image, what is wrong with its file, and that as a problem
BYTES = re.compile(r" \(\d+ bytes not processed\)")  # how Pillow ends the fault of a truncated image
CONVERTED = (".heic", ".heif", ".avif", ".jp2", ".j2k", ".dcm", ".dicom", ".nii", ".nii.gz")  # formats not read


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
    rows, faults = _images(root, annotations, settings, outside)
    problems += unlisted
    problems += _too_bad(folder, root, rows, faults, {image for ids in lists.values() for image in ids}, params)
    if not is_remote(params.data, inputs["data"]):  # DVC would record the files of now with these rows
        todo = "run it again: `dvc repro`, or `capnet ingest`"
        changed = folder.changed() + ([] if problems else _read_otherwise(root, annotations, faults, settings))
        problems += [Problem("changed while stage ingest ran", f"{folder}/{name}", todo) for name in changed]
    if problems:
        raise DataError(problems=problems)
    manifest = outputs["manifest"]
    _leave_out(manifest / "left_out.csv", rows, faults, annotations.left_out)
    if faults:
        added -= sum(row >= len(rows) - added for row, *_ in faults)
        rows = rows.drop(index=[row for row, *_ in faults]).reset_index(drop=True)
    write_manifest(manifest / "manifest.parquet", rows)
    write_classes(manifest / "classes.json", annotations.classes)
    for name, ids in lists.items():
        if ids:
            write_id_list(manifest, name, ids)
    for warning in [*likely_mistakes(rows, annotations.classes, params.data.format), *annotations.warnings]:
        log.warning("%s", warning)
    is_own_table = params.data.format == "csv" and settings.images != "listed"
    if is_own_table and not is_remote(params.data, inputs["data"]) and (warning := without_row(root, annotations.rows)):
        log.warning("%s", warning)
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
            todo = _advice(root, path, image.fault) if len(faults) < SHOWN else ""  # slow: only for what is shown
            problem = Problem(f"image {path!r}: {image.fault}", annotations.where(row), todo)
            faults.append((row, image.fault, problem))
    for name in ("width", "height", "sha256"):
        rows[name] = [getattr(image, name) for image in images]
    if dark.warning:
        log.warning(dark.warning)
    return rows, faults


def _read_otherwise(root: Path, annotations: Annotations, faults: Sequence[Fault], settings: Ingest) -> list[str]:
    """The images that would be left out and are others now: they were being copied."""
    from capnet.data.images.decode import NO_MEMORY
    from capnet.data.images.image_files import inspect_images, require_read

    numbers, before = [row for row, *_ in faults], [fault for _, fault, _ in faults]
    paths = annotations.rows["path"].iloc[numbers].tolist()
    images = [*inspect_images(root, paths, decode=settings.images == "decode")]
    require_read(images, paths, lambda number: annotations.where(numbers[number]))
    rows = zip(paths, before, images, strict=True)
    return [path for path, fault, image in rows if image.fault not in (fault, NO_MEMORY) and fault != NO_MEMORY]


def _leads_out(path: str, where: str) -> Problem:
    todo = "put the file itself there, or set data.links: anywhere (what lies outside is not versioned with the data)"
    return Problem(f"image {path!r} is reached through a link that leaves the data folder", where, todo)


def _too_bad(
    folder: DataFolder, root: Path, rows: pd.DataFrame, faults: Sequence[Fault], listed: set[str], params: Params
) -> list[Problem]:
    """The faults that end the ingest: all, where more are bad than ``ingest.bad_images`` allows or no image is good;
    else those of images that a published list names.
    """
    settings, count = params.ingest, f"{len(faults)} of {len(rows)} are bad"
    too_many = len(faults) / max(1, len(rows)) > settings.bad_images
    problems: list[Problem] = []
    if faults and len(faults) == len(rows) and not too_many:
        todo = "replace the files by good copies, or correct the paths"
        problems.append(Problem(f"no image can be used: {count}", str(folder), todo))
    ids = rows["image_id"].tolist()
    ending = faults if too_many or problems else [item for item in faults if ids[item[0]] in listed]
    section = dict(settings).get(params.data.format, ())
    folders = [f"ingest.{params.data.format}.{name}" for name, _ in section if name.endswith("images")]
    named = _by_folder(root, rows, ending, " or ".join(folders))
    if too_many:
        more = f"{count}: more than ingest.bad_images = {settings.bad_images:g}; a higher share leaves them out"
        named[0] = replace(named[0], todo=f"{named[0].todo} ({more})")
    return problems + named


def _by_folder(root: Path, rows: pd.DataFrame, faults: Sequence[Fault], setting: str) -> list[Problem]:
    """The faults as problems: one for all images of a missing folder, and one for all that ``setting`` would find."""
    groups: dict[object, list[tuple[str, Problem]]] = {}
    is_there: dict[PurePosixPath, bool] = {}
    paths = rows["path"].tolist()
    missing = [paths[row] for row, fault, _ in faults if fault == "missing"] if setting else []
    below = _folder_with(root, missing[0]) if missing else None
    for row, fault, problem in faults:
        folder = PurePosixPath(paths[row]).parent
        if folder not in is_there:
            is_there[folder] = (root / folder).is_dir()
        group: object = row
        if fault == "missing" and below and (below / paths[row]).is_file():
            group = below
        elif fault == "missing" and not is_there[folder]:
            group = folder
        groups.setdefault(group, []).append((paths[row], problem))
    problems = []
    for folder_or_row, ((path, problem), *others) in groups.items():
        if below and folder_or_row == below:
            what = f"{counted(1 + len(others), 'image')} missing, but in the folder {below.name!r}"
            todo = f"set {setting}, so that paths begin with {below.name}/"
            problem = replace(problem, what=what, todo=todo)
        elif others:
            todo = problem.todo or _advice(root, path, "missing")
            what = f"{1 + len(others)} images in {str(folder_or_row)!r} are missing"
            problem = replace(problem, what=what, todo=todo)
        problems.append(problem)
    return problems


def _leave_out(path: Path, rows: pd.DataFrame, faults: Sequence[Fault], by_format: LeftOut) -> None:
    """Write left_out.csv: image_id, path and reason, where images were left out; and warnings that name the first."""
    table = [(image.image_id, image.path, reason) for reason, images in by_format.items() for image in images]
    for reason, images in by_format.items():
        named = some([image.path for image in images], NAMED)
        log.warning("%s left out: %s: %s", counted(len(images), "image"), reason, named)
    ids, paths = rows["image_id"].tolist(), rows["path"].tolist()
    for row, _, problem in faults:
        table.append((ids[row], paths[row], problem.what.removeprefix(f"image {paths[row]!r}: ")))
    if table:
        replace_file(path, csv_text(("image_id", "path", "reason"), table))
    if not faults:
        return
    by_fault: dict[str, list[str]] = {}
    for row, fault, _ in faults:
        by_fault.setdefault(BYTES.sub("", fault), []).append(paths[row])
    named = "; ".join(f"{fault}: {some(names, NAMED)}" for fault, names in list(by_fault.items())[:NAMED])
    what = "%d of %d images left out: %s; %s names all. To do for the first: %s"
    log.warning(what, len(faults), len(rows), named, path.name, faults[0][2].todo)


def _id_list(folder: DataFolder, name: str, rows: pd.DataFrame, settings: Ingest, problems: list[Problem]) -> list[str]:
    """The published list of a split; what is wrong with it is added to ``problems``."""
    setting = f"{name}_list"
    file: str = getattr(settings, setting)
    if not file:
        return []
    ids, mistakes = read_id_list(folder.path(file), rows["image_id"].tolist(), f"ingest.{setting}")
    problems += mistakes
    return ids


def _folder_with(root: Path, path: str) -> Path | None:
    """The first folder of the data folder that has the path in it, of those that this account may look into: a disk's
    lost+found is not one.
    """
    return next((entry for entry in sorted(root.iterdir()) if entry.is_dir() and os.path.isfile(entry / path)), None)


def _advice(root: Path, path: str, fault: str) -> str:
    if fault != "missing":
        if path.lower().endswith(CONVERTED):
            return "convert it to JPEG or PNG, which other programs read as well, and correct the path"
        return "replace the file by a good copy, or remove its row"
    listed = PurePosixPath(path)
    if below := _folder_with(root, path):
        return f"paths are relative to the data folder: write {below.name}/{path}"
    if len(listed.parts) > 1 and (root / PurePosixPath(*listed.parts[1:])).is_file():
        return f"paths are relative to the data folder: write {PurePosixPath(*listed.parts[1:])}"
    for form in ("NFC", "NFD"):
        other = PurePosixPath(unicodedata.normalize(form, path))
        if any((root / each).is_file() for each in (other, listed.parent / other.name, other.parent / listed.name)):
            return (
                f"the file is there with its accents in another Unicode form: write the name in {form} as it is on the"
                " disk, or rename the file or the folder"
            )
    if (root / (decoded := unquote(path))).is_file():
        return f"the name is written as in an address: write {decoded}"
    folder = root / listed.parent
    if not folder.is_dir():
        return f"the data folder has no folder {str(listed.parent)!r}: put it there, or correct the paths"
    names = os.listdir(folder)
    close = [name for name in names if name.lower().rsplit(".", 1)[0] == listed.stem.lower()]
    if close:
        return f"did you mean {(listed.parent / min(close)).as_posix()!r}?"
    return "put the file there, correct the path, or remove its row"
