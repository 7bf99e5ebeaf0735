"""COCO instances as published: annotations/instances_*.json and folders of images. The JSON is streamed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from capnet.data.annotations.class_list import published_classes
from capnet.data.annotations.coco_json import CocoJson, is_whole, pixels, read_categories
from capnet.data.annotations.paths import DataFolder, without_suffix
from capnet.data.annotations.rows import Annotations, RowList, make_rows
from capnet.data.annotations.unread_columns import UnreadKeys, unread_split
from capnet.errors import DataError, Problem, Problems, counted
from capnet.section import InsidePath, Section

if TYPE_CHECKING:
    from capnet.config import Ingest

TODO = "unpack COCO's annotations below data.root, or correct ingest.coco"
MEND = "correct a file of your own; of a benchmark, use the published file"
INSTANCES = "use instances_*.json; files called image_info, captions or panoptic have no labels that are read"
BOXES = "where the boxes are not in pixels, or are empty, set ingest.coco.box_filter: false"
Images = dict[Any, tuple[str, int | None, int | None, set[int]]]  # name, width, height and categories, by id


class Settings(Section):
    train: InsidePath = Field(
        "annotations/instances_train2017.json", description="annotations of the training images; empty: none"
    )
    test: InsidePath = Field(
        "annotations/instances_val2017.json", description="annotations of the test images; empty: split draws them"
    )
    train_images: InsidePath = Field("train2017", description="folder of the training images")
    test_images: InsidePath = Field("val2017", description="folder of the test images")
    box_filter: bool = Field(
        True, description="count no box of area 0, narrower or lower than 1 pixel, or flagged ignore"
    )
    crowd: bool = Field(True, description="count regions marked as a crowd")


def read(folder: DataFolder, settings: Ingest) -> Annotations:
    """Read the images in ascending order of COCO's ids; the image id is the file name without its suffix.

    A folder in the file name belongs to the id: cameras number alike. Images without a box are kept. One file alone
    gives no image a split.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.

    Raises:
        DataError: a file cannot be read, or train and test have other categories.
    """
    coco = settings.of(Settings)
    categories: dict[int, str] | None = None
    problems = Problems()
    rows, warnings = RowList("width", "height"), list[str]()
    for split, file, images in (("train", coco.train, coco.train_images), ("test", coco.test, coco.test_images)):
        if not file:
            continue
        path = folder.path(file)
        annotations = CocoJson(path, TODO)
        previous, categories = categories, read_categories(annotations)
        if previous is not None and previous != categories:
            files = f"{coco.train}, {coco.test}"
            raise DataError("train and test have other categories", files, "use files of one data set")
        order = {category: c for c, category in enumerate(categories)}
        unread = UnreadKeys()
        annotated = _images(annotations, unread, problems)
        warnings += [f"{path.name}: {warning}" for warning in unread.warnings()]
        if not (coco.train and coco.test):
            warnings += unread_split(unread.splits, settings, "file names without their ending")
        lost, labels = _mark_boxes(annotations, annotated, categories, coco, problems)
        what = f"{lost:,} of {counted(labels, 'label')} not used, because of boxes below 1 pixel or of area 0"
        if 2 * lost > labels:
            problems.append(Problem(what, str(path), BOXES))
        elif lost:
            warnings.append(f"{path.name}: {what}; {BOXES}")
        for number in sorted(annotated):
            name, width, height, present = annotated[number]
            rows.add(
                f"{images}/{name}" if images else name,
                [order[category] for category in present],
                f"{path.name} image {number}",
                image_id=without_suffix(name),
                given_split=split if coco.train and coco.test else None,
                width=width,
                height=height,
            )
    if categories is None:
        raise DataError("no annotations are named", "ingest.coco.train and ingest.coco.test are empty", TODO)
    classes, mistakes = published_classes(folder, list(categories.values()), settings)
    return make_rows(rows, classes, [*mistakes, *problems], warnings=warnings)


def _images(file: CocoJson, unread: UnreadKeys, problems: list[Problem]) -> Images:
    """The images of a file, without categories."""
    images: Images = {}
    for item in file.items("images"):
        unread.add(item)
        number, name = item.get("id"), item.get("file_name")
        if not is_whole(number) or not isinstance(name, str):
            what = f"image {str(item)[:80]} needs a file_name, and a whole number as its id"
            traps = "where images have a location, or texts as ids, set data.format: camera_traps"
            todo = traps if "location" in item or isinstance(number, str) else TODO
            problems.append(Problem(what, file.path.name, todo))
        elif number in images:
            problems.append(Problem(f"image {number} appears twice", file.path.name, MEND))
        else:
            images[number] = (name, pixels(item.get("width")), pixels(item.get("height")), set())
    if not images and not problems:
        raise file.error("there are no images")
    return images


def _mark_boxes(
    file: CocoJson, images: Images, categories: Mapping[int, str], settings: Settings, problems: list[Problem]
) -> tuple[int, int]:
    """Add the category of every annotation that counts to its image.

    Returns:
        How many labels (pairs of an image and a category) no box counts for, and how many there are with these.
    """
    seen, filtered = 0, set[tuple[Any, int]]()
    for item in file.items("annotations"):
        number, category = item.get("image_id"), item.get("category_id", -1)
        try:
            seen += 1
            unknown = ""
            if isinstance(number, bool) or number not in images:
                unknown = f"image {number}"
            elif isinstance(category, bool) or category not in categories:
                unknown = f"category {category!r}"
            if "category_id" not in item:  # panoptic files have one for each segment
                what = f"annotation {item.get('id')} has no category_id"
                problems.append(Problem(what, file.path.name, INSTANCES))
            elif unknown:
                what = f"annotation {item.get('id')} names {unknown}, which does not exist"
                problems.append(Problem(what, file.path.name, MEND))
            elif _is_counted(item, settings):
                images[number][3].add(int(category))  # 1.0 is 1, too
            elif not item.get("ignore") and (settings.crowd or not item.get("iscrowd")):
                filtered.add((number, int(category)))
        except (TypeError, ValueError):
            problems.append(Problem(f"annotation {str(item)[:80]} is damaged", file.path.name, MEND))
    if not seen:
        what = "there are no annotations, so nothing says what is on the images"
        problems.append(Problem(what, str(file.path), INSTANCES))
    lost = sum(category not in images[number][3] for number, category in filtered)
    return lost, lost + sum(len(image[3]) for image in images.values())


def _is_counted(annotation: Mapping[str, Any], settings: Settings) -> bool:
    """Does a box say that its class is there? Source of the filter: the loader in the code of Wu et al., ECCV 2020,
    behind the published COCO-LT list.
    """
    if annotation.get("iscrowd") and not settings.crowd:
        return False
    if not settings.box_filter:
        return True
    _, _, width, height = annotation.get("bbox") or (0, 0, 1, 1)
    area = annotation.get("area")
    return not annotation.get("ignore") and (area is None or area > 0) and width >= 1 and height >= 1
