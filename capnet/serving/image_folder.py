"""The images of a folder, and what else is in it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path, PurePath

from capnet.data.images.decode import SUFFIXES
from capnet.errors import DataError

NO_UTF8 = "its name is no UTF-8: rename the file"


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
