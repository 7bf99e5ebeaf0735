"""COCO instances as published: annotations/instances_*.json and folders of pictures. The JSON is streamed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from capnet.config import Coco, Ingest
from capnet.data.annotations import Annotations
from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.json_stream import items
from capnet.data.annotations.label_lists import LabelLists
from capnet.data.annotations.paths import normal_path, path_fault, without_suffix
from capnet.errors import DataError, Problem

TODO = "unpack COCO's annotations below data.root, or correct ingest.coco"


def read(root: Path, settings: Ingest) -> Annotations:
    """Rows in ascending order of COCO's ids; the image id is the file's name without its ending. Pictures without a box
    are kept.

    Raises DataError where a file cannot be read or train and test have other categories.
    """
    import pandas as pd

    sides = [
        ("train", settings.coco.train, settings.coco.train_images),
        ("test", settings.coco.test, settings.coco.test_images),
    ]
    categories: dict[int, str] | None = None
    problems: list[Problem] = []
    labels = LabelLists()
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image_id", "path", "given_split", "width", "height", "where")
    }
    first: dict[str, str] = {}
    for side, file, folder in sides:
        if not file:
            continue
        found = read_categories(root / file)
        if categories is not None and found != categories:
            raise DataError(
                "train and test have other categories",
                f"{settings.coco.train}, {settings.coco.test}",
                "use files of one data set",
            )
        categories = found
        pictures = _pictures(root / file, problems)
        _mark_boxes(root / file, pictures, categories, settings.coco, problems)
        for number in sorted(pictures):
            name, width, height, present = pictures[number]
            path = f"{folder}/{name}" if folder else name
            image, where = without_suffix(PurePosixPath(name).name), f"{PurePosixPath(file).name} image {number}"
            fault = path_fault(path)
            if fault or image in first:
                what = fault or f"image id {image!r} is there twice"
                problems.append(
                    Problem(
                        what,
                        where + ("" if fault else f", first in {first[image]}"),
                        "correct file_name in the annotations",
                    )
                )
                continue
            first[image] = where
            labels.append(present)
            for column, value in zip(
                columns.values(), (image, normal_path(path), side, width, height, where), strict=True
            ):
                column.append(value)
    if categories is None:
        raise DataError("no annotations are named", "ingest.coco.train and ingest.coco.test are empty", TODO)
    order = {category: c for c, category in enumerate(categories)}
    codes = [-1] * (max(order, default=0) + 1)
    for category, c in order.items():
        codes[category] = c
    classes, mistakes = published_classes(root, list(categories.values()), settings)
    frame = pd.DataFrame({**columns, "labels": labels.mapped(codes)})
    frame["unknown"] = LabelLists.empty(len(frame)).mapped(())
    for name in ("width", "height"):
        frame[name] = frame[name].astype("Int32")
    return Annotations(frame.assign(group=None, slice=None), classes, [*mistakes, *problems])


def read_categories(path: Path, todo: str = TODO) -> dict[int, str]:
    """Category names by id, in ascending order of the ids; raises DataError where there are none or an entry is
    damaged.
    """
    found: dict[int, str] = {}
    for item in items(path, "categories", todo):
        number, name = item.get("id"), item.get("name")
        if not isinstance(number, int) or not 0 <= number < 2**31 or not isinstance(name, str) or not name:
            raise DataError(f"category {str(item)[:80]} needs an id and a name", str(path), todo)
        if number in found or name in found.values():
            raise DataError(f"category {name!r} (id {number}) is there twice", str(path), todo)
        found[number] = name
    if not found:
        raise DataError("there are no categories", str(path), todo)
    return dict(sorted(found.items()))


def _pictures(path: Path, problems: list[Problem]) -> dict[int, tuple[str, int | None, int | None, set[int]]]:
    """File name, width, height and an empty set of categories by image id."""
    found: dict[int, tuple[str, int | None, int | None, set[int]]] = {}
    for item in items(path, "images", TODO):
        number, name = item.get("id"), item.get("file_name")
        if not isinstance(number, int) or not isinstance(name, str):
            problems.append(Problem(f"image {str(item)[:80]} needs an id and a file_name", path.name, TODO))
        elif number in found:
            problems.append(Problem(f"image {number} is there twice", path.name, "use the published annotations"))
        else:
            found[number] = (name, pixels(item.get("width")), pixels(item.get("height")), set())
    if not found and not problems:
        raise DataError("there are no images", str(path), TODO)
    return found


def pixels(value: Any) -> int | None:
    """A width or a height, where it is one."""
    return value if isinstance(value, int) and 0 < value < 2**31 else None


def _mark_boxes(
    path: Path,
    pictures: Mapping[Any, tuple[Any, Any, Any, set[Any]]],
    categories: Mapping[int, str],
    settings: Coco,
    problems: list[Problem],
) -> None:
    """Add the category of every annotation that counts to its picture."""
    seen = 0
    for item in items(path, "annotations", TODO):
        number, category = item.get("image_id"), item.get("category_id", -1)
        try:
            seen += 1
            strange = (
                f"image {number}"
                if number not in pictures
                else f"category {category}"
                if category not in categories
                else ""
            )
            if strange:
                what = f"annotation {item.get('id')} names {strange}, which is not there"
                problems.append(Problem(what, path.name, "use the published annotations"))
            elif counts(item, settings):
                pictures[number][3].add(int(category))  # 1.0 is 1, too
        except (TypeError, ValueError):
            problems.append(
                Problem(f"annotation {str(item)[:80]} is damaged", path.name, "use the published annotations")
            )
    if not seen:
        what = "there are no annotations, so nothing says what is on the pictures"
        problems.append(Problem(what, str(path), "use instances_*.json; image_info_*.json has no labels"))


def counts(annotation: Mapping[str, Any], settings: Coco) -> bool:
    """Does a box say that its class is there? Source of the filter: the loader in the code of Wu et al., ECCV 2020,
    behind the published COCO-LT list.
    """
    if annotation.get("iscrowd") and not settings.crowd:
        return False
    if not settings.box_filter:
        return True
    _, _, width, height = annotation.get("bbox") or (0, 0, 1, 1)
    return not annotation.get("ignore") and annotation.get("area", 1) > 0 and width >= 1 and height >= 1
