"""Which images `capnet label` shows: those of a folder or bucket that have no labels yet."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import click

from capnet.errors import ConfigError, DataError, counted, shown

if TYPE_CHECKING:
    from capnet.config import Data, Params
    from capnet.data.annotations.paths import DataFolder
    from capnet.serving.image_source import Source


@dataclass(frozen=True)
class Labelled:
    """What there is already.

    Attributes:
        paths: of all images with labels.
        added: how many of them are in tables of added images.
        classes: names.
        groups: of all images.
        grouped: paths of images without labels that have a group in the annotations.
        only_bursts: those of them that have no other group than their burst.
    """

    paths: Set[str]
    added: int
    classes: Sequence[str]
    groups: Set[str]
    grouped: Set[str]
    only_bursts: Set[str]

    def keeps_group(self, path: str, name: str) -> bool:
        """Whether an image keeps the group that the annotations have, though an option gives it ``name`` ("": none)."""
        return path in self.grouped and not (name and path in self.only_bursts)


def prefix_of(location: str, data_root: str) -> tuple[str, bool]:
    """What paths of the images in a folder begin with, as the table has them.

    Args:
        location: the folder, or s3://BUCKET/PREFIX.
        data_root: setting ``data.root``.

    Returns:
        "", or the beginning with / at its end; and whether the folder is in the data folder already.
    """
    if location.startswith("s3://"):
        address, whole = (name.rstrip("/") + "/" for name in (location, data_root))
        is_inside = address.startswith(whole)
        return address.removeprefix(whole) if is_inside else f"{PurePosixPath(address).name}/", is_inside
    folder, root = Path(os.path.abspath(location)), Path(os.path.abspath(data_root))
    if not folder.is_relative_to(root):  # by name, as annotations have it, it may still be reached through a link
        folder, root = folder.resolve(), root.resolve()
    is_inside = folder.is_relative_to(root)
    name = folder.relative_to(root).as_posix() if is_inside else folder.name
    return "" if name in ("", ".") else f"{name}/", is_inside


def images_of(location: str, data: Data, choose: Callable[[list[str]], list[str]]) -> Source:
    """The chosen images of a folder.

    Args:
        location: the folder, or s3://BUCKET/PREFIX, from which the chosen images are copied.
        data: the section ``data``, which says how a remote is read.
        choose: picks some of their names.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    from capnet.serving.image_source import ENDINGS, list_images, remote_images

    if location.startswith("s3://"):
        return remote_images(data.model_copy(update={"root": location}), choose)
    if not Path(location).is_dir():
        raise DataError("there is no such folder", location, "name a folder of images, or s3://BUCKET/PREFIX")
    source = list_images(location)
    if source.passed_over:
        click.echo(f"label: {source.passed_over}; {ENDINGS}", err=True)
    return replace(source, names=choose(source.names))


def labelled_before(folder: DataFolder, params: Params) -> Labelled:
    """What there is already.

    Args:
        folder: the data folder.
        params: all settings.

    Raises:
        ConfigError: there is no place for the tables that the page saves.
        DataError: mistakes in the annotations or in the tables of added images.
    """
    from capnet.data.annotations.added import add_images
    from capnet.data.annotations.class_list import separator_problems
    from capnet.data.annotations.paths import normal_path
    from capnet.data.annotations.reading import read_annotations

    name = params.ingest.added
    if not name or (folder.has(name) and not folder.path(name).is_dir()):
        todo = "name a folder: the page saves a table of its own each time"
        raise ConfigError(f"ingest.added = {name!r} is no folder", "params.yaml", todo)
    annotations, added = add_images(read_annotations(folder, params), folder, params.ingest)
    rows, names = annotations.rows, annotations.classes.names
    if problems := annotations.problems or separator_problems(names, params.ingest.separator, "the annotations"):
        raise DataError(problems=problems)
    left_out = [image for images in annotations.left_out.values() for image in images]
    grouped = {normal_path(image.path): image for image in left_out if image.group}
    only_bursts = {path for path, image in grouped.items() if image.is_burst}
    groups = set(rows["group"].dropna()) | {image.group for image in grouped.values() if image.group}
    return Labelled(set(rows["path"]), added, names, groups, grouped.keys(), only_bursts)


def unlabelled(names: Sequence[str], prefix: str, folder: DataFolder, labelled: Set[str]) -> list[str]:
    """The images without labels that ingest would read, once people have labelled them.

    Args:
        names: of images.
        prefix: what their paths begin with in the data folder.
        folder: the data folder.
        labelled: paths of all images with labels.

    Raises:
        DataError: an image is reached through a link that leaves the data folder, or all have labels.
    """
    from capnet.data.annotations.paths import normal_path
    from capnet.section import path_fault

    faults = {name: path_fault(prefix + name) for name in names}
    strange = [name for name in names if faults[name]]
    if strange:
        refused = f"{counted(len(strange), 'image')} passed over: ingest would refuse {faults[strange[0]]}"
        click.echo(shown(f"label: {refused}; rename such files"), err=True)
    new = [name for name in names if not faults[name] and normal_path(prefix + name) not in labelled]
    if not new:
        what = f"no image without labels among {counted(len(names) - len(strange), 'image')}"
        raise DataError(what, prefix or str(folder), "name a folder of new ones")
    for name in new:
        folder.refuse_link(prefix + name)
    return new


def draw(path: str) -> str:
    """A random order that stays, whatever else is in the folder."""
    return hashlib.sha256(path.encode()).hexdigest()
