"""Which images to score: those of a folder, a table, a remote, or a single file, and what is passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath

from capnet.config import Data
from capnet.data.annotations.tables import open_table
from capnet.data.images.decode import SUFFIXES
from capnet.data.images.shards import shard_of
from capnet.errors import ConfigError, DataError, Problem, counted, some

COLUMNS = ("path", "image", "file")  # of a table, the first that exists
ENDINGS = f"images end in {', '.join(SUFFIXES)}"
NO_UTF8 = "its name is no UTF-8: rename the file"


@dataclass(frozen=True)
class Source:
    """Images to score: ``names`` as in the output, below ``root``; ``others``: files passed over, by ending;
    ``faults``: what is wrong with names that no file has.
    """

    names: list[str]
    root: Path
    others: Mapping[str, int] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed_over(self) -> str:
        """How many files are passed over, in words; "" where none is."""
        words = [f"{n} {name}" for name, n in sorted(self.others.items(), key=lambda item: (-item[1], item[0]))]
        return f"{counted(sum(self.others.values()), 'file')} passed over: {some(words)}" if words else ""


def list_images(address: str, remote: Data | None = None) -> Source:
    """The images that an address names.

    Args:
        address: a folder (all images below it that are not hidden, sorted), a table with a column path, image or file,
            one image, or s3://BUCKET/PREFIX, whose images are copied to the state folder.
        remote: the section ``data``, which says how a remote is read.

    Raises:
        DataError: there is nothing to score.
    """
    if not address:
        raise ConfigError("no images are named", "--input", "give a folder, a table, an image or s3://BUCKET/PREFIX")
    location = Path(address)
    if address.startswith("s3://"):
        source = remote_images((remote or Data()).model_copy(update={"root": address}))
    elif location.is_dir():
        names, others, faults = images_below(location)
        source = Source(names, location, others, faults)
    elif location.is_file() and location.suffix.lower() in (".csv", ".parquet"):
        source = _column(location)
    elif shard_of(location / "image"):
        raise DataError("a table names the images of a shard", address, "give the labels.csv of the shards")
    elif location.is_file() and location.suffix.lower() in ("", *SUFFIXES):
        source = Source([location.name], location.parent)
    elif location.is_file():
        todo = f"{ENDINGS}; a list of images is a .csv or .parquet table with a column path"
        raise DataError("neither an image nor a table, by its ending", address, todo)
    else:
        raise DataError(
            "neither a folder nor a file",
            address,
            "give a folder of images, or a .csv or .parquet table with a column path",
        )
    if not source.names:
        raise DataError("; ".join(filter(None, ("there are no images", source.passed_over))), address, ENDINGS)
    return source


def remote_images(settings: Data, choose: Callable[[list[str]], list[str]] = list) -> Source:
    """Images of a remote, copied to the state folder.

    Args:
        settings: the section ``data``.
        choose: which of them, of their sorted names; by default all.

    Raises:
        DataError: the remote has no image at all; of those that there are, none may be chosen.
    """
    from capnet.data.sources.root import open_cache, open_source

    with open_source(settings) as source:
        images = (path for path in source.entries() if path.lower().endswith(SUFFIXES))
        names = sorted(path for path in images if not is_hidden(PurePosixPath(path)))
        if not names:
            raise DataError("there are no images", settings.root, ENDINGS)
        chosen = choose(names)
        if not chosen:
            return Source(chosen, Path())
        return Source(chosen, open_cache(settings).bring(source, dict.fromkeys(chosen), strict=False))


def _column(path: Path) -> Source:
    table = open_table(path, (), (), either=("path",))
    columns = [name for name in COLUMNS if name in table.header]
    if not columns and not table.problems:
        what = f"no column {' or '.join(COLUMNS)}; the columns are: {', '.join(table.header[:10])}"
        raise DataError(what, str(path), "name the column of images path")
    names: dict[str, None] = {}
    faults: dict[str, str] = {}
    for line, cells in table:
        cell = cells[table.header.index(columns[0])]
        if isinstance(cell, list | dict | bytes):
            what = f"column {columns[0]!r} holds no text: {str(cell)[:70]}"
            table.problems.append(Problem(what, table.where(line), "write the path of an image"))
            break
        names["" if cell is None else str(cell)] = None
        if cell in (None, ""):
            faults.setdefault("", f"the cell in column {columns[0]} is empty: {table.where(line)}")
    if table.problems:
        raise DataError(problems=table.problems)
    return Source(list(names), path.parent, faults=faults)


def images_below(folder: Path) -> tuple[list[str], Counter[str], dict[str, str]]:
    """Images of a folder; a link to nothing is one that is missing. Links to folders are not followed.

    Args:
        folder: the folder.

    Returns:
        Names below the folder, sorted; what is passed over, counted by its ending, and folders by name (of what is
        hidden only images); and faults of names that no file has.

    Raises:
        DataError: the folder cannot be listed.
    """
    names, others, faults = list[str](), Counter[str](), dict[str, str]()

    def unlisted(error: OSError) -> None:
        if not isinstance(error, PermissionError):
            raise error
        name = Path(error.filename).relative_to(folder)
        if not is_hidden(name):
            others[f"folder that may not be listed ({_printable(name)})"] += 1

    try:
        for above, folders, files in os.walk(folder, onerror=unlisted):
            for path in (Path(above, name) for name in folders):
                name = path.relative_to(folder)
                if path.is_symlink() and not is_hidden(name):
                    others[f"link to a folder ({_printable(name)})"] += 1
            for path in (Path(above, name) for name in files):
                if not path.is_file() and path.exists():
                    continue  # a pipe or a socket
                name, ending = path.relative_to(folder), path.suffix.lower()
                image, hidden = ending in SUFFIXES, is_hidden(name)
                if image and hidden:
                    others["hidden"] += 1
                elif image:
                    names.append(os.fsencode(name).decode("utf-8", "backslashreplace"))
                    if names[-1] != str(name):  # bytes that are no UTF-8 cannot be stored as they are
                        faults[names[-1]] = NO_UTF8
                elif not hidden:
                    others[_printable(ending) or "without an ending"] += 1
    except (OSError, RecursionError) as error:  # a thousand folders in each other
        raise DataError(f"it cannot be listed: {error}", str(folder), "name a folder in it, or move it") from None
    return sorted(names), others, faults


def _printable(name: object) -> str:
    return text if (text := str(name)).isprintable() else ascii(text)


def is_hidden(path: PurePath) -> bool:
    """Is it a file, or in a folder, that file managers hide: the ._IMG_1.JPG that macOS writes for every IMG_1.JPG on
    other disks, or an image in .Trashes?
    """
    return any(part.startswith(".") for part in path.parts)
