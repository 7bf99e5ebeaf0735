"""The reader of a format, found by its name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from capnet.data.annotations.paths import DataFolder
from capnet.data.annotations.rows import Annotations
from capnet.errors import DataError

if TYPE_CHECKING:
    from capnet.config import Params


def read_annotations(folder: DataFolder, params: Params) -> Annotations:
    """Read the native annotations with the reader that ``data.format`` names.

    Args:
        folder: the data folder.
        params: all settings.

    Raises:
        DataError: the label files cannot be used, or the reader did not build its rows with make_rows.
    """
    reader = import_module(f"capnet.data.annotations.readers.{params.data.format}")
    annotations = reader.read(folder, params.ingest)
    if not isinstance(annotations, Annotations):
        what = f"the reader of data.format = {params.data.format} returned {type(annotations).__name__}"
        raise DataError(what, "reader", "return what make_rows gives")
    return annotations
