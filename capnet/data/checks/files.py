"""Read every image file once, in a pool of processes: present, readable, unchanged, and its dhash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from capnet.data.checks.processes import in_processes
from capnet.data.images.decode import Unusable, file_faults, is_transient, open_image, to_rgb
from capnet.data.images.image_files import ImageFile
from capnet.data.images.near_duplicates import dhash, difference_hash
from capnet.data.images.shards import file_or_bytes, read_bytes

OUTSIDE = ImageFile(fault="not opened: its path leads out of the data folder")


def open_image_file(path: str, root: str, full: bool, dhashes: bool) -> ImageFile:
    """Open one image.

    Args:
        path: below ``root``.
        root: folder of the images.
        full: decode all of it, and not its header alone.
        dhashes: read enough of it for its dhash.

    Returns:
        What it is; a fault is in the result and raises nothing.
    """
    location = Path(root, path)
    try:
        with file_faults():
            if not full:
                with open_image(file_or_bytes(location)) as image:
                    return ImageFile(*image.size, dhash=dhash(image) if dhashes else b"")
            data = read_bytes(location)
            with open_image(data) as image:
                size, pixels = image.size, to_rgb(image)
            sha256 = hashlib.sha256(data).hexdigest()
            return ImageFile(*size, sha256, dhash=difference_hash(pixels) if dhashes else b"")
    except Unusable as error:
        return ImageFile(fault=str(error), is_transient=is_transient(error))


def open_image_files(
    paths: Sequence[str], root: Path, full: bool, dhashes: bool, processes: int = 0
) -> list[ImageFile]:
    """``open_image_file`` of every path; where processes read them, a file at which a decoder dies is a fault of that
    file and not the end of the run.

    Args:
        paths, root, full, dhashes: as in ``open_image_file``.
        processes: as in ``in_processes``.

    Returns:
        In the order of ``paths``.
    """
    crash = ImageFile(fault="does not decode: the decoder crashed")
    one = partial(open_image_file, root=str(root), full=full, dhashes=dhashes)
    return in_processes(one, paths, processes, "reading images", crash)
