"""A data folder of tar shards: images with their labels in WebDataset layout, and the tables that ingest
reads.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from capnet.contracts import SPLITS, Classes, csv_text, replace_file
from capnet.contracts.csv_files import CsvLines
from capnet.data.annotations.class_list import CLASS_COLUMNS, separator_problems
from capnet.data.annotations.readers.csv import LABEL_COLUMNS, TEXT_COLUMNS
from capnet.data.annotations.rows import SIZES
from capnet.data.images.decode import SUFFIXES, Unusable, file_faults, open_image, refuse_transient, to_rgb
from capnet.data.images.image_files import inspect_image
from capnet.data.images.shards import add_member, read_bytes
from capnet.errors import DataError, Problem
from capnet.progress import Advance

FOLDER = "shards"


def write_shard_set(
    out: Path,
    rows: pd.DataFrame,
    classes: Classes,
    root: Path,
    size: int,
    separator: str,
    advance: Advance,
    shorter: int = 0,
) -> int:
    """Write a data folder of tar shards with labels.csv and classes.csv.

    Images of one split (or, in a manifest, with one given split) share shards, so that a training run fetches no test
    image. In every sample ``NUMBER.json`` holds the labels by name.

    Args:
        out: folder that they are written to.
        rows: of a manifest or a split.
        classes: that their labels are indices into.
        root: folder of the images.
        size: of a shard in bytes, about.
        separator: of labels in labels.csv.
        advance: called after every image.
        shorter: pixels; images whose shorter side has more are stored as JPEGs of that size, 0 stores all as they are.

    Returns:
        The number of shards.

    Raises:
        DataError: images are gone, not those that were ingested or cannot be used, or a class has the separator in its
            name; names all.
    """
    if unfit := separator_problems(classes.names, separator, "classes.json"):
        raise DataError(problems=unfit)
    listed = (
        (item.name, item.prompt_name if item.prompt_name != item.name else "", "true" if item.critical else "")
        for item in classes.items
    )
    replace_file(out / "classes.csv", csv_text(CLASS_COLUMNS, listed))
    problems: list[Problem] = []
    shards = 0
    with open(out / "labels.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(CsvLines(file), lineterminator=CsvLines.END)
        table.writerow(LABEL_COLUMNS)
        for split in ("", *SPLITS):
            with closing(_Shards(out, split or "all", size)) as writer:
                for row in _rows_of(rows, split):
                    data = _image(root, row, shorter, problems)
                    if data is not None:
                        names = {name: [classes.names[c] for c in row[name]] for name in ("labels", "unknown")}
                        row |= {name: separator.join(listed) for name, listed in names.items()}
                        row["path"] = writer.add(data, Path(row["path"]).suffix, {**row, **names})
                        table.writerow([row[name] for name in LABEL_COLUMNS])
                    advance()
            shards += writer.count
    if problems:
        raise DataError(problems=problems)
    return shards


def _rows_of(rows: pd.DataFrame, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a split, or of a given split in a manifest, as plain values; empty where nothing is known."""
    splits = rows["split"] if "split" in rows else rows["given_split"].fillna("")
    chosen = rows[splits == split].assign(split=split).reindex(columns=list(LABEL_COLUMNS))
    for values in chosen.itertuples(index=False, name=None):
        row = dict(zip(LABEL_COLUMNS, values, strict=True))
        for name in (*TEXT_COLUMNS, *SIZES):
            value = row[name]
            if pd.isna(value):
                row[name] = ""
            elif not isinstance(value, str):
                row[name] = int(value)
        yield row


def _image(root: Path, row: dict[str, Any], shorter: int, problems: list[Problem]) -> bytes | None:
    """The bytes that are stored of an image; None where that is a problem."""
    try:
        return _bounded(_unchanged(root / row["path"], row), row, shorter)
    except Unusable as error:
        refuse_transient(error, root / row["path"])
        todo = "put the image back (dvc checkout), or take its row out of the label table and run `capnet ingest` again"
        problems.append(Problem(f"image {row['path']!r}: {error}", str(root), todo))
        return None


def _unchanged(path: Path, row: dict[str, Any]) -> bytes:
    """The bytes of an image, the very ones that were ingested; size and hash are filled in where ingest did not
    measure them.
    """
    with file_faults():
        data = read_bytes(path)
    if not row["sha256"]:
        image = inspect_image(path)
        if image.fault:
            raise Unusable(image.fault)
        row |= {"width": image.width, "height": image.height, "sha256": image.sha256}
    if hashlib.sha256(data).hexdigest() != row["sha256"]:
        raise Unusable("not the one that was ingested")
    return data


def _bounded(data: bytes, row: dict[str, Any], shorter: int) -> bytes:
    """An image's bytes, or a smaller image's: then the row gets its size, hash and ending."""
    with open_image(data) as image:
        if not shorter or min(image.size) <= shorter:
            return data
        small = to_rgb(image)
    scale = shorter / min(small.size)
    size = max(shorter, round(small.width * scale)), max(shorter, round(small.height * scale))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0).save(buffer, "JPEG", quality=95, subsampling=0)
    bounded = buffer.getvalue()
    path = Path(row["path"]).with_suffix(".jpg").as_posix()
    row |= {"path": path, "width": size[0], "height": size[1], "sha256": hashlib.sha256(bounded).hexdigest()}
    return bounded


class _Shards:
    """Tar files of about ``size`` bytes, one after the other, with samples numbered through."""

    def __init__(self, out: Path, name: str, size: int) -> None:
        self.out, self.name, self.size = out, name, size
        self.count = 0
        self._tar: tarfile.TarFile | None = None
        self._samples = self._filled = 0

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()

    def add(self, image: bytes, suffix: str, label: dict[str, Any]) -> str:
        """Add a sample; the path of its image below ``out``."""
        if self._tar is None or self._filled >= self.size:
            self.close()
            self._file = f"{FOLDER}/{self.name}-{self.count:06d}.tar"
            (self.out / FOLDER).mkdir(exist_ok=True)
            self._tar = tarfile.TarFile(self.out / self._file, "w", format=tarfile.USTAR_FORMAT)
            self.count += 1
            self._filled = 0
        key, ending = f"{self._samples:09d}", suffix.lower()
        member = f"{key}{ending if ending in SUFFIXES else '.jpg'}"  # .json holds the labels
        content = json.dumps(label, sort_keys=True, ensure_ascii=False).encode()
        add_member(self._tar, member, image)
        add_member(self._tar, f"{key}.json", content)
        self._samples += 1
        self._filled += len(image) + len(content)
        return f"{self._file}/{member}"
