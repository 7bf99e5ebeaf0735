"""Images of the annotations whose files cannot be used: which of them end the ingest, what is to do about each, and
left_out.csv.
"""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

from capnet.config import Params
from capnet.contracts import csv_text, replace_file
from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.rows import LeftOut
from capnet.data.images.shards import shard_of
from capnet.errors import Problem, counted, some

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
NAMED = 3  # reasons named in a warning, and images of each; left_out.csv has all
Fault = tuple[int, str, Problem]  # row of an image, what is wrong with its file, and that as a problem
BYTES = re.compile(r" \(\d+ bytes not processed\)")  # how Pillow ends the fault of a truncated image
CONVERTED = (".heic", ".heif", ".avif", ".jp2", ".j2k", ".dcm", ".dicom", ".nii", ".nii.gz")  # formats not read


def faults_that_end_ingest(
    folder: DataFolder, root: Path, rows: pd.DataFrame, faults: Sequence[Fault], listed: set[str], params: Params
) -> list[Problem]:
    """The faults that end the ingest: all, where more are bad than ``ingest.bad_images`` allows or no image is good;
    else those of images that a published list names.

    Args:
        folder: the data folder, for messages.
        root: the same on this disk.
        rows: of all images.
        faults: of those that are bad.
        listed: ids in published lists.
        params: all settings.
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
    folders = {f"ingest.{params.data.format}.{name}": value for name, value in section if name.endswith("images")}
    named = _by_folder(root, rows, ending, folders)
    if too_many:
        more = f"{count}: more than ingest.bad_images = {settings.bad_images:g}; a higher share leaves them out"
        named[0] = replace(named[0], todo=f"{named[0].todo} ({more})")
    return problems + named


def _by_folder(root: Path, rows: pd.DataFrame, faults: Sequence[Fault], folders: Mapping[str, str]) -> list[Problem]:
    """The faults as problems: one for all images of a missing folder, and one for all that a setting would find.

    Args:
        root: the data folder.
        rows: of all images.
        faults: of those that are bad.
        folders: folder of images by the setting that puts it before file names.
    """
    groups: dict[object, list[tuple[str, Problem]]] = {}
    is_there: dict[PurePosixPath, bool] = {}
    paths = rows["path"].tolist()
    missing = [paths[row] for row, fault, _ in faults if fault == "missing"] if folders else []
    below = _folder_with(root, missing[0]) if missing else None
    shorter = _without_folder(root, missing, folders.values(), paths)
    for row, fault, problem in faults:
        folder = PurePosixPath(paths[row]).parent
        if folder not in is_there:
            is_there[folder] = (root / folder).is_dir()
        group: object = row
        if fault == "missing" and below and (below / paths[row]).is_file():
            group = below
        elif fault == "missing" and (name := _name_in(root, paths[row], shorter)):
            group = name
        elif fault == "missing" and not is_there[folder]:
            group = folder
        groups.setdefault(group, []).append((paths[row], problem))
    problems = []
    for folder_or_row, ((path, problem), *others) in groups.items():
        what = f"{counted(1 + len(others), 'image')} missing, but"
        if below and folder_or_row == below:
            todo = f"set {' or '.join(folders)}, so that paths begin with {below.name}/"
            problem = replace(problem, what=f"{what} in the folder {below.name!r}", todo=todo)
        elif isinstance(folder_or_row, str):
            settings = [name for name, value in folders.items() if str(PurePosixPath(value)) == folder_or_row]
            todo = "set " + " and ".join(f'{name}: "{shorter[folder_or_row]}"' for name in settings)
            what = f"{what} there without the folder {folder_or_row!r} of {' and '.join(settings)}"
            problem = replace(problem, what=what, todo=todo)
        elif others:
            todo = problem.todo or advice(root, path, "missing")
            what = f"{1 + len(others)} images in {str(folder_or_row)!r} are missing"
            problem = replace(problem, what=what, todo=todo)
        problems.append(problem)
    return problems


def _without_folder(root: Path, missing: Sequence[str], folders: Iterable[str], paths: Sequence[str]) -> dict[str, str]:
    """Those of ``folders`` without which the first of their missing images is found, and the folder, or "", that it is
    below then: file names may begin with the folder already. Where most of their images among ``paths`` are there, the
    folder is right.
    """
    result = {}
    for folder in map(PurePosixPath, filter(None, folders)):
        inside = [path for path in missing if path.startswith(f"{folder}/")]
        if not inside or 2 * len(inside) < sum(path.startswith(f"{folder}/") for path in paths):
            continue
        for parent in folder.parents:
            if (root / parent / PurePosixPath(inside[0]).relative_to(folder)).is_file():
                result[str(folder)] = "" if parent == PurePosixPath() else str(parent)
                break
    return result


def _name_in(root: Path, path: str, shorter: Mapping[str, str]) -> str:
    """The one of the folders of ``_without_folder`` without which an image is found; "" where none is."""
    inside = ((folder, path.removeprefix(f"{folder}/")) for folder in shorter if path.startswith(f"{folder}/"))
    return next((folder for folder, name in inside if (root / shorter[folder] / name).is_file()), "")


def report_left_out(path: Path, rows: pd.DataFrame, faults: Sequence[Fault], by_format: LeftOut) -> None:
    """Write left_out.csv: image_id, path and reason, where images were left out; and warnings that name the first.

    Args:
        path: of left_out.csv.
        rows: of all images.
        faults: of those that are bad.
        by_format: images that their reader left out, by reason.
    """
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
    what = "%d of %d images left out: %s; %s of the manifest names all. To do for the first: %s"
    log.warning(what, len(faults), len(rows), named, path.name, faults[0][2].todo)


def _folder_with(root: Path, path: str) -> Path | None:
    """The first folder of the data folder that has the path in it, of those that this account may look into: a disk's
    lost+found is not one.
    """
    return next((entry for entry in sorted(root.iterdir()) if entry.is_dir() and os.path.isfile(entry / path)), None)


def advice(root: Path, path: str, fault: str) -> str:
    """What to do about an image.

    Args:
        root: the data folder, which is searched for a missing file.
        path: of the image below it, as the annotations have it.
        fault: what is wrong with its file.
    """
    if fault != "missing":
        if path.lower().endswith(CONVERTED):
            return "convert it to JPEG or PNG, which other programs read as well, and correct the path"
        return "replace the file by a good copy, or remove its row"
    if (root / path).is_file():  # a share that was away for a moment
        return "the file is there now: run the same command again"
    listed = PurePosixPath(path)
    if below := _folder_with(root, path):
        return f"paths are relative to the data folder: write {below.name}/{path}"
    if len(listed.parts) > 1 and (root / PurePosixPath(*listed.parts[1:])).is_file():
        return f"paths are relative to the data folder: write {PurePosixPath(*listed.parts[1:])}"
    for form in ("NFC", "NFD"):
        other = PurePosixPath(unicodedata.normalize(form, path))
        others = {other, listed.parent / other.name, other.parent / listed.name} - {listed}
        if any((root / each).is_file() for each in others):
            return (
                f"the file is there with its accents in another Unicode form: write the name in {form} as it is on the"
                " disk, or rename the file or the folder"
            )
    if (root / (decoded := unquote(path))).is_file():
        return f"the name is written as in an address: write {decoded}"
    if shard := shard_of(root / path):
        name = shard.relative_to(root).as_posix()
        return f"the shard {name!r} is there, and holds no such image: write it again, or correct the path"
    folder = root / listed.parent
    if not folder.is_dir():
        return f"the data folder has no folder {str(listed.parent)!r}: put it there, or correct the paths"
    names = os.listdir(folder)
    close = [name for name in names if name.lower().rsplit(".", 1)[0] == listed.stem.lower()]
    if close:
        return f"did you mean {(listed.parent / min(close)).as_posix()!r}?"
    return "put the file there, correct the path, or remove its row"
