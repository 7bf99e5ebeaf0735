"""The ingest stage: the user's label files and pictures -> manifest.parquet and classes.json."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path, PurePosixPath

from capnet.config import Params
from capnet.contracts import write_classes, write_manifest
from capnet.data.formats import Annotations
from capnet.errors import DataError, Problem


def ingest(params: Params, inputs: dict[str, Path], outputs: dict[str, Path]) -> dict[str, float]:
    """Read the label table of ``data.format``, decode every picture once, write the manifest in the table's order.

    Raises DataError with every mistake in tables and pictures at once.
    """
    from capnet.data.pictures import inspect_picture, map_pictures

    root = inputs["data"]
    found: Annotations = import_module(f"capnet.data.formats.{params.data.format}").read(root, params.ingest)
    rows = found.rows
    pictures = map_pictures(inspect_picture, [root / path for path in rows["path"]], "reading pictures")
    faults = [
        Problem(f"picture {path!r}: {picture.fault}", where, _advice(root, path, picture.fault))
        for path, where, picture in zip(rows["path"], rows["where"], pictures, strict=True)
        if picture.fault
    ]
    if found.problems or faults:
        raise DataError(problems=[*found.problems, *faults])
    for name in ("width", "height", "sha256"):
        rows[name] = [getattr(picture, name) for picture in pictures]
    write_manifest(outputs["manifest"] / "manifest.parquet", rows)
    write_classes(outputs["manifest"] / "classes.json", found.classes)
    blank = sum(not labels for labels in rows["labels"])
    return {"pictures": float(len(rows)), "classes": float(len(found.classes)), "without_label": float(blank)}


def _advice(root: Path, path: str, fault: str) -> str:
    if fault != "missing":
        return "replace the file by a good copy, or remove its row"
    wanted = PurePosixPath(path)
    below = next((entry for entry in sorted(root.iterdir()) if entry.is_dir() and (entry / wanted).is_file()), None)
    if below:
        return f"paths are relative to the data folder: write {below.name}/{path}"
    folder = root / wanted.parent
    close = [name for name in (os.listdir(folder) if folder.is_dir() else []) if name.lower().rsplit(".", 1)[0] == wanted.stem.lower()]
    return f"did you mean {(wanted.parent / min(close)).as_posix()!r}?" if close else "put the file there, correct the path, or remove its row"
