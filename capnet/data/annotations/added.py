"""added.csv: images that people labelled after a prediction, in addition to annotations of any format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.readers.csv import read_table
from capnet.data.annotations.rows import Annotations
from capnet.errors import MOST, Problem

if TYPE_CHECKING:
    from capnet.config import Ingest

TAKEN = {
    "path": "correct its labels in {corrections}, or remove the row",
    "image_id": "give the image another id, in a column image_id",
}


def add_images(annotations: Annotations, folder: DataFolder, settings: Ingest) -> tuple[Annotations, int]:
    """Put the rows of ``ingest.added`` behind those of the annotations.

    Args:
        annotations: of any format; their classes are those of the table, too.
        folder: the data folder.
        settings: the section ``ingest``.

    Returns:
        Both together, and how many images were added: one that the format leaves out, such as one without any
        annotation, is left out no more. Mistakes are among the ``problems``: those of the table, and
        images that the annotations have already.

    Raises:
        DataError: the table has no header or no rows.
    """
    import pandas as pd

    if not settings.added or not folder.has(settings.added):
        return annotations, 0
    added = read_table(folder.path(settings.added), annotations.classes, settings)
    problems = [*annotations.problems, *added.problems, *islice(_taken(annotations, added, settings), MOST)]
    first, second = (
        part.rows.assign(where=[part.where(row) for row in range(len(part.rows))]) for part in (annotations, added)
    )
    warnings = [*annotations.warnings, *added.warnings]
    if first["group"].notna().any() and (alone := int(second["group"].isna().sum())):
        warnings.append(
            f"{alone} of {len(second)} images of {settings.added} have no group, as others have. Where they belong to a"
            " group, fill in column group: else near copies get into two splits, and the figures flatter"
        )
    rows = pd.concat([first, second], ignore_index=True)
    for name, kind in first.dtypes.items():  # of columns that the other table may lack
        rows[name] = rows[name].astype(kind)
    paths = set(second["path"])
    rest = {why: [image for image in images if image[1] not in paths] for why, images in annotations.left_out.items()}
    left_out = {why: images for why, images in rest.items() if images}
    together = replace(annotations, rows=rows, problems=problems, source="{}", left_out=left_out, warnings=warnings)
    return together, len(second)


def _taken(annotations: Annotations, added: Annotations, settings: Ingest) -> Iterator[Problem]:
    """Images that the annotations have already, or whose id is taken."""
    rows = {name: {value: row for row, value in enumerate(annotations.rows[name])} for name in TAKEN}
    for row, values in enumerate(zip(*(added.rows[name] for name in TAKEN), strict=True)):
        for (name, todo), value in zip(TAKEN.items(), values, strict=True):
            if value in rows[name]:
                what = f"{name.replace('_', ' ')} {value!r} is in the annotations already"
                where = f"{added.where(row)}, first in {annotations.where(rows[name][value])}"
                yield Problem(what, where, todo.format(corrections=settings.corrections))
                break
