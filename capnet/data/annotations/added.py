"""Tables of images that people labelled after a prediction, in addition to annotations of any format."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from capnet.data.annotations.class_list import read_classes_csv, separator_problems
from capnet.data.annotations.corrections import COLUMNS
from capnet.data.annotations.paths import DataFolder, normal_path, without_suffix
from capnet.data.annotations.readers.csv import SPREADSHEETS, TABLES, TEXT_FILES, read_table
from capnet.data.annotations.rows import NAME_COLUMNS, Annotations, LeftOut
from capnet.data.annotations.tables import open_table
from capnet.errors import DataError, Problem, Problems, counted, some

if TYPE_CHECKING:
    import pandas as pd

    from capnet.config import Ingest


def add_images(annotations: Annotations, folder: DataFolder, settings: Ingest) -> tuple[Annotations, int]:
    """Append the rows of the tables in ``ingest.added`` to the annotations.

    A row that is the same in two tables counts once: people save the same page twice. An image that the format leaves
    out, such as one without any annotation, is left out no more, and has the id, the group and the sequence that the
    format gives it where its row has none.

    Args:
        annotations: of any format; the tables have the same classes.
        folder: the data folder.
        settings: the section ``ingest``.

    Returns:
        All together, and how many images were added. Mistakes are among the ``problems``: those of the tables, images
        that the annotations have already, and rows of two tables that differ.

    Raises:
        DataError: tables have no header or no rows, or the separator of labels is in the name of a class; with the
            mistakes of the other tables.
    """
    import pandas as pd

    names, warnings = added_tables(folder, settings)
    if not names:
        return replace(annotations, warnings=[*annotations.warnings, *warnings]), 0
    listed_in = "the annotations"  # in most formats, classes.csv adds no class
    tables, mistakes = list[Annotations](), separator_problems(annotations.classes.names, settings.separator, listed_in)
    classes, names_only = annotations.classes, not _is_numbered(annotations.classes.names, folder, settings)
    for file in names:
        try:
            path = folder.path(file)
            table = read_table(path, classes, settings, listed_in=listed_in, names_only=names_only, name=file)
        except DataError as error:
            mistakes += _as_corrections(folder, file, settings) or error.problems
            continue
        tables.append(table)
    if mistakes:
        raise DataError(problems=mistakes + [problem for table in tables for problem in table.problems])
    parts = [annotations, *tables]
    frames = [part.rows.assign(where=[part.where(row) for row in range(len(part.rows))]) for part in parts]
    rows = pd.concat(frames, ignore_index=True)
    for name, kind in frames[0].dtypes.items():  # of columns that a table may lack
        rows[name] = rows[name].astype(kind)
    first = len(annotations.rows)
    relocated = _other_locations(rows, first, annotations.left_out, settings)
    left_out = _named_by_format(rows, first, annotations.left_out)
    again, mistakes = _repetitions(rows, first, settings)
    rows = rows.drop(index=again).reset_index(drop=True)
    problems = [problem for part in parts for problem in part.problems] + mistakes
    warnings = [warning for part in parts for warning in part.warnings] + warnings + relocated
    added = rows[first:]
    if rows["group"][:first].notna().any() and (alone := int(added["group"].isna().sum())):
        warnings.append(
            f"{alone} of {len(added)} images of {settings.added} have no group, as others have. Where they belong to a"
            " group, fill in column group: else near copies get into two splits, and the figures flatter"
        )
    warnings = list(dict.fromkeys(warnings))
    together = Annotations(rows, annotations.classes, problems, left_out=left_out, warnings=warnings)
    return together, len(added)


def _is_numbered(classes: Sequence[str], folder: DataFolder, settings: Ingest) -> bool:
    """Whether the rows of classes.csv number the classes, as in a table of labels: ids of categories in a JSON file
    are other numbers, also where classes.csv lists these in their order.
    """
    if not all(name and folder.has(name) for name in (settings.labels, settings.classes)):
        return False
    listed, _, other = read_classes_csv(folder.path(settings.classes), settings.separator)
    return not other and listed.names == [*classes]


def _as_corrections(folder: DataFolder, file: str, settings: Ingest) -> list[Problem]:
    """What to do with answers of a review; none of another table. The advice for a table without labels, to rename a
    column, would make a label of each answer, also of a no.
    """
    todo = f"move it to {settings.corrections or 'the table that ingest.corrections names'}"
    with suppress(DataError, OSError):  # it cannot be read at all
        if {*COLUMNS} <= {*open_table(folder.path(file), (), ()).header}:
            return [Problem("these are corrections of single labels, no images with all their labels", file, todo)]
    return []


def added_tables(folder: DataFolder, settings: Ingest) -> tuple[list[str], list[str]]:
    """The tables of added images.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.

    Returns:
        Their paths in the data folder, and a warning for each spreadsheet, text file and folder of tables, which are
        not read.
    """
    name = settings.added
    if not name or not folder.has(name):
        return [], []
    inside = folder.names(name)
    if inside is None:
        return [name], []
    files = [file for file in inside if not file.startswith(".")]
    warnings = [
        f"{name}/{file} is not read: save it as CSV UTF-8 in the spreadsheet program"
        for file in files
        if file.lower().endswith((*SPREADSHEETS, *TEXT_FILES))
    ]
    for path in (f"{name}/{file}" for file in files):
        if not folder.leads_out(path) and any(
            file.lower().endswith(TABLES) and not file.startswith(".") for file in folder.names(path) or ()
        ):
            warnings.append(f"tables in {path} are not read: move them into {name}")
    return [f"{name}/{file}" for file in files if file.lower().endswith(TABLES)], warnings


def headers_elsewhere(folder: DataFolder, settings: Ingest) -> dict[str, set[str]]:
    """The columns of tables at the top of the data folder that are not read, by name; none of one that cannot be
    read.

    Args:
        folder: the data folder.
        settings: the section ``ingest``.
    """
    used = {settings.labels, settings.classes, settings.corrections, settings.added}
    headers = {}
    for name in folder.names() or ():
        if name in used or name.startswith(".") or not name.lower().endswith(TABLES):
            continue
        with suppress(DataError, OSError):
            headers[name] = {*open_table(folder.path(name), (), ()).header}
    return headers


def _other_locations(rows: pd.DataFrame, first: int, left_out: LeftOut, settings: Ingest) -> list[str]:
    """A warning where added rows, from ``first`` on, give images another group than the location that the format gives
    them, as the pages of earlier versions of capnet label did.
    """
    images = [image for images in left_out.values() for image in images if image.group and not image.is_burst]
    locations = {normal_path(image.path): image.group for image in images}
    pairs = zip(rows["path"][first:], rows["group"][first:], strict=True)
    other = {  # each once: people save the same page twice
        f"{path} ({group!r} for {location!r})": None
        for path, group in pairs
        if isinstance(group, str) and (location := locations.get(path)) not in (None, group)
    }
    if not other:
        return []
    return [
        f"{counted(len(other), 'image')} of {settings.added} with another group than the location in the annotations:"
        f" {some([*other])}. Where the location is right, empty these cells of column group: else images of one camera"
        " may get into two splits, and the figures flatter"
    ]


def _named_by_format(rows: pd.DataFrame, first: int, left_out: LeftOut) -> LeftOut:
    """Give added rows, from ``first`` on, what the format says about images that it leaves out; the images that are
    left out still.
    """
    import pandas as pd

    known = {normal_path(image.path): image for images in left_out.values() for image in images}
    paths = rows["path"].tolist()
    named = {row: known[paths[row]] for row in range(first, len(paths)) if paths[row] in known}
    for name in ("image_id", "group", "sequence"):
        if named and name in rows:
            column = rows[name].tolist()
            for row, image in named.items():
                is_default = name == "image_id" and column[row] == without_suffix(paths[row])
                if is_default or not isinstance(column[row], str):
                    column[row] = getattr(image, name)
            rows[name] = pd.Series(column, dtype=object)
    taken = set(named.values())
    rest = {reason: [image for image in images if image not in taken] for reason, images in left_out.items()}
    return {reason: images for reason, images in rest.items() if images}


def _repetitions(rows: pd.DataFrame, first: int, settings: Ingest) -> tuple[list[int], list[Problem]]:
    """Added rows, from ``first`` on, that an earlier table has alike; and the mistakes: images that are in the
    annotations, whose id is taken, or that an earlier table describes otherwise.
    """
    again, problems = list[int](), Problems()
    columns = {name: rows[name].tolist() for name in ("path", "image_id", "where")}
    seen = {name: {value: row for row, value in enumerate(columns[name][:first])} for name in ("path", "image_id")}
    added = rows[first:]
    texts = [added[name].fillna("") for name in NAME_COLUMNS]
    content = list(zip(added["labels"], added["unknown"], *texts, strict=True))
    for row in range(first, len(rows)):
        name = next((name for name, known in seen.items() if columns[name][row] in known), "")
        if not name:
            for column, known in seen.items():
                known[columns[column][row]] = row
            continue
        value = columns[name][row]
        other = seen[name][value]
        if name == "path" and other >= first and content[row - first] == content[other - first]:
            again.append(row)
            continue
        what = f"{name.replace('_', ' ')} {value!r} is in "
        what += "the annotations already" if other < first else "an earlier table already"
        todo = "give the image another id, in a column image_id"
        if name == "path" and other < first:
            todo = f"correct its labels in {settings.corrections}, or remove the row"
        elif name == "path":
            what += ", with other labels, split, group or slice"
            todo = "keep the row that is right; a later table of one page has all that an earlier one has"
        problems.append(Problem(what, f"{columns['where'][row]}, first in {columns['where'][other]}", todo))
    return again, problems
