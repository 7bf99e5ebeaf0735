"""Many images: listed, scored in parts that survive an interruption, put together as Parquet, CSV or MegaDetector
JSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from capnet.config import Data
from capnet.contracts import read_json, replace_file, write_json
from capnet.data.images.decode import SUFFIXES
from capnet.data.images.image_files import inspect_image, map_images
from capnet.errors import CapnetError, ConfigError, DataError
from capnet.progress import bar

if TYPE_CHECKING:
    from capnet.serving.engine import Served

SCORE = "score "  # columns of the table, before the class's name
PART = 256  # images between two saves
FORMATS = {".parquet": "parquet", ".csv": "csv", ".json": "megadetector"}
COLUMNS = ("path", "image", "file")  # of a table, the first that exists


@dataclass(frozen=True)
class Source:
    """Images to score: ``names`` as they appear in the output, below ``root``."""

    names: list[str]
    root: Path


def list_images(address: str, remote: Data | None = None) -> Source:
    """A folder (all images below it, sorted), a table with a column path, image or file, one image, or
    s3://BUCKET/PREFIX.

    Remote images are copied to the state folder first; ``remote`` says how (section data).

    Raises DataError where there is nothing to score.
    """
    location = Path(address)
    if address.startswith("s3://"):
        source = remote_images((remote or Data()).model_copy(update={"root": address}))
    elif location.is_dir():
        names = sorted(
            path.relative_to(location).as_posix()
            for path in location.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file()
        )
        source = Source(names, location)
    elif location.is_file() and location.suffix.lower() in (".csv", ".parquet"):
        source = Source(_column(location), location.parent)
    elif location.is_file():
        source = Source([location.name], location.parent)
    else:
        raise DataError(
            "neither a folder nor a file",
            address,
            "give a folder of images, or a .csv or .parquet table with a column path",
        )
    if not source.names:
        raise DataError("there are no images", address, f"images end in {', '.join(SUFFIXES)}")
    return source


def remote_images(settings: Data, part: int = 0, parts: int = 1) -> Source:
    """Every ``parts``-th image from number ``part`` on of the remote ``settings.root``, sorted and copied to the
    state folder.

    Raises DataError where the remote has no image at all; a part may be empty.
    """
    from capnet.data.sources.root import open_cache, open_source

    with closing(open_source(settings)) as source:
        names = sorted(path for path in source.entries() if path.lower().endswith(SUFFIXES))
        if not names:
            raise DataError("there are no images", settings.root, f"images end in {', '.join(SUFFIXES)}")
        mine = names[part::parts]
        return Source(mine, open_cache(settings).bring(source, mine, strict=False) if mine else Path())


def _column(path: Path) -> list[str]:
    try:
        table = (
            pd.read_csv(path, dtype=str, keep_default_na=False)
            if path.suffix.lower() == ".csv"
            else pd.read_parquet(path)
        )
    except (ValueError, OSError) as error:
        raise DataError(f"not a table: {error}", str(path), "write a CSV or Parquet file with a column path") from None
    columns = [name for name in COLUMNS if name in table.columns]
    if not columns:
        raise DataError(
            f"no column {' or '.join(COLUMNS)}; the columns are: {', '.join(map(str, table.columns[:10]))}",
            str(path),
            "name the column of images path",
        )
    return [str(value) for value in dict.fromkeys(table[columns[0]])]


def format_of(out: Path) -> str:
    """parquet, csv or megadetector by the output's name; raises ConfigError."""
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"unknown kind of output {out.suffix!r}",
            str(out),
            f"end it in {', '.join(FORMATS)} (.json is MegaDetector's format)",
        )
    return FORMATS[out.suffix.lower()]


def predict(served: Served, model_key: str, source: Source, out: Path, part: int = PART) -> pd.DataFrame:
    """Score what an interrupted call has not, then write ``out``; returns path, fault and scores (None with a fault).

    Parts lie in the output's folder until it is written. They are used again only for the same model, root and list.
    """
    kind = format_of(out)
    folder = out.with_name(f".{out.name}.parts")
    key = hashlib.sha256(
        json.dumps([model_key, str(source.root.absolute()), source.names, part]).encode()
    ).hexdigest()  # cameras number alike
    note = folder / "key.json"
    if folder.exists() and _key(note) != key:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, key)
    starts = range(0, len(source.names), part)
    with bar("predict", len(source.names)) as advance:
        for start in starts:
            names, path = source.names[start : start + part], folder / f"{start:012}.parquet"
            if not path.is_file():
                temporary = path.with_suffix(".tmp")
                score_part(served, names, source.root).to_parquet(temporary)
                temporary.replace(path)
            advance(len(names))
    frame = pd.concat([pd.read_parquet(folder / f"{start:012}.parquet") for start in starts], ignore_index=True)
    write(frame, served, out, kind, model_key)
    shutil.rmtree(folder)
    return frame


def _key(note: Path) -> str:
    try:
        return str(read_json(note))
    except CapnetError:
        return ""


def score_part(served: Served, names: Sequence[str], root: Path) -> pd.DataFrame:
    """Columns path, fault, scores; an image that cannot be used is named and the others are scored.

    Each image is decoded once; only a part with a bad one is looked through, to find which.
    """
    paths = [root / name for name in names]
    try:
        return pd.DataFrame({"path": list(names), "fault": "", "scores": list(served.scores(paths))})
    except DataError:
        faults = [item.fault for item in map_images(inspect_image, paths, "read", served.scorer.threads)]
    good = [number for number, fault in enumerate(faults) if not fault]
    scores: list[Any] = [None] * len(names)
    for number, row in zip(good, served.scores([paths[number] for number in good]), strict=True):
        scores[number] = row
    return pd.DataFrame({"path": list(names), "fault": faults, "scores": scores})


def matrix(frame: pd.DataFrame, classes: int) -> np.ndarray:
    """float32 [image, class] of the rows without a fault."""
    kept = [np.asarray(row, dtype=np.float32) for row in frame["scores"][frame["fault"] == ""]]
    return np.stack(kept) if kept else np.empty((0, classes), dtype=np.float32)


# ---------------------------------------------------------------- what is written


def write(frame: pd.DataFrame, served: Served, out: Path, kind: str, model_key: str) -> None:
    """Write a temporary file and rename it."""
    if kind == "megadetector":
        replace_file(out, json.dumps(megadetector(frame, served, model_key), indent=1, ensure_ascii=False) + "\n")
        return
    table = wide(frame, served)
    with TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as folder:
        temporary = Path(folder, out.name)
        if kind == "csv":
            table.assign(labels=["|".join(row) for row in table["labels"]]).to_csv(
                temporary, index=False, lineterminator="\n", float_format="%.9g"
            )
        else:
            table.to_parquet(temporary, index=False)
        temporary.replace(out)


def wide(frame: pd.DataFrame, served: Served) -> pd.DataFrame:
    """One row an image: path, labels over their thresholds, fault, and ``score NAME`` of every class."""
    good = (frame["fault"] == "").to_numpy()
    scores = np.full((len(frame), len(served.names)), np.nan, dtype=np.float32)
    scores[good] = matrix(frame, len(served.names))
    decided = scores >= served.limits
    labels = [[name for name, present in zip(served.names, row, strict=True) if present] for row in decided]
    columns = pd.DataFrame(scores, columns=[f"{SCORE}{name}" for name in served.names])
    return pd.concat(
        [pd.DataFrame({"path": frame["path"], "labels": labels, "fault": frame["fault"]}), columns], axis=1
    )


def megadetector(frame: pd.DataFrame, served: Served, model_key: str) -> dict[str, Any]:
    """The batch format that camera-trap viewers read: one box over the whole frame with its labels, none for a blank
    frame.

    Confidences are calibrated probabilities. Source: lila.science/megadetector-output-format.
    """
    images: list[Mapping[str, Any]] = []
    for path, fault, row in zip(frame["path"], frame["fault"], frame["scores"], strict=True):
        if fault:
            images.append({"file": path, "detections": None, "failure": f"Failure image access: {fault}"})
            continue
        scores = np.asarray(row, dtype=np.float32)[None]
        probability, decided = served.probabilities(scores)[0], (scores >= served.limits)[0]
        labels = sorted(
            ((str(c), round(float(probability[c]), 4)) for c in np.flatnonzero(decided)), key=lambda item: -item[1]
        )
        box = (
            {
                "category": "1",
                "conf": labels[0][1],
                "bbox": [0.0, 0.0, 1.0, 1.0],
                "classifications": [list(item) for item in labels],
            }
            if labels
            else None
        )
        images.append({"file": path, "detections": [box] if box else []})
    return {
        "info": {
            "format_version": "1.4",
            "detector": "none: one box over the whole image",
            "classifier": f"capnet {model_key}",
        },
        "detection_categories": {"1": "animal"},
        "classification_categories": {str(c): name for c, name in enumerate(served.names)},
        "images": images,
    }
