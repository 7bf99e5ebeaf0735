"""Many images: scored in parts that survive an interruption, and put together, all in constant memory."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from capnet.contracts import code_hash
from capnet.data.images.dark import Dark
from capnet.data.images.shards import shard_of
from capnet.errors import ConfigError, counted
from capnet.progress import Advance, bar, track
from capnet.serving.image_source import Source
from capnet.serving.output import FORMATS, Writer, is_output
from capnet.serving.parts import is_part, parts_of, write_part

if TYPE_CHECKING:
    from capnet.serving.drift import Drift
    from capnet.serving.engine import ScoredBatch, Served

log = logging.getLogger(__name__)

SHOWN = 10  # images that cannot be read
IMAGES_PER_PART = 256
CODE = Path(__file__).parents[1]
ROOMS = ("contracts", "data", "evaluation", "model", "serving")  # whose code the scores depend on


def check_out(out: Path, address: str) -> None:
    """An output replaces what an earlier call wrote, and nothing else.

    Args:
        out: the output; its ending is known.
        address: where that was found.

    Raises:
        ConfigError: ``out`` is a folder, the input, or a file of another kind.
    """
    todo = "name another output"
    if out.is_dir():
        raise ConfigError("the output is a folder", str(out), todo)
    if not out.exists():
        return
    if Path(address).is_file() and out.samefile(address):
        raise ConfigError("the output is the input", str(out), todo)
    if out.stat().st_size and not is_output(out):
        raise ConfigError("there is a file that no earlier call has written", str(out), f"{todo}, or move the file")


def format_of(out: Path) -> Writer:
    """What writes Parquet, CSV or MegaDetector's JSON, by the output's name.

    Raises:
        ConfigError: it has another ending.
    """
    if out.suffix.lower() not in FORMATS:
        raise ConfigError(
            f"unknown kind of output {out.suffix!r}",
            str(out),
            f"end it in {', '.join(FORMATS)} (.json is MegaDetector's format)",
        )
    return FORMATS[out.suffix.lower()]


@dataclass
class Predicted:
    """What was written: number of ``images``, of those ``not_read``, and the first of these with what is wrong."""

    images: int = 0
    not_read: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def predict(
    served: Served,
    model_key: str,
    source: Source,
    out: Path,
    drift: Drift | None = None,
    images_per_part: int = IMAGES_PER_PART,
) -> Predicted:
    """Score the images that an interrupted call has not scored, then write the output, both some images at a time. A
    warning points out 16-bit images that use fewer bits.

    Parts lie in the output's folder until it is written. A part is used again only for the same model, code, root,
    list of images and files.

    Args:
        served: the model.
        model_key: its name.
        source: the images.
        out: its ending names the format.
        drift: counts the scores; None for none.
        images_per_part: images between two saves.

    Raises:
        ConfigError: ``out`` has an unknown ending.
        CapnetError: another process is writing ``out``.
    """
    writer, dark = format_of(out), Dark()
    every = [source.names[start : start + images_per_part] for start in range(0, len(source.names), images_per_part)]
    scorer = f"{served.identity} {code_hash(CODE, ROOMS)}"
    keys = [_key(scorer, source.root, names) for names in every]
    with parts_of(out) as folder:
        paths = [folder / f"{images_per_part * number:012}.parquet" for number in range(len(every))]
        missing = [n for n, path in enumerate(paths) if not is_part(path, keys[n], every[n], len(served.names))]
        if changed := sum(paths[number].exists() for number in missing):
            what = (
                "%s: %s of the interrupted call to score again: images, model or code changed, or the file is damaged"
            )
            log.warning(what, out, counted(changed, "part"))
        images = list(chain.from_iterable(every[number] for number in missing))
        with bar("predict", len(source.names)) as advance:
            advance(len(source.names) - len(images))
            rows = _rows(served.stream(images, source.root, len(source.names)), source.faults, advance, dark)
            for number in missing:
                write_part(paths[number], keys[number], [next(rows) for _ in every[number]])
        if dark.warning:
            log.warning(dark.warning)
        saved, table = track(map(pd.read_parquet, paths), "writing", len(paths)), folder / out.name
        result = write(table, writer, saved, served, model_key, drift)
        drift_file(out).unlink(missing_ok=True)  # an earlier call's, which is of other predictions
        table.replace(out)
    return result


def drift_file(out: Path) -> Path:
    """Where the report of drift lies that belongs to an output."""
    return out.with_name(f"{out.name}.drift.json")


def _key(scorer: str, root: Path, names: Sequence[str]) -> str:
    """Of the model's content, code, root, list, files and who may read them: cameras number alike, cards go into one
    slot.
    """
    digest = hashlib.sha256(json.dumps([scorer, str(root.absolute())]).encode())
    for name in names:
        about: list[str | int] = [name]
        with suppress(OSError, ValueError):  # not there, or no name of a file
            stat = os.stat(path := shard_of(root / name) or root / name)
            about += [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, os.access(path, os.R_OK)]
        digest.update(json.dumps(about).encode())
    return digest.hexdigest()


def _rows(
    batches: Iterable[ScoredBatch], faults: Mapping[str, str], advance: Advance, dark: Dark
) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """Path, fault ("" for none) and scores (float32 [class]; None with a fault) of every image; those with
    scores are added to ``dark``.
    """
    for batch in batches:
        advance(len(batch.names))
        scores, values = iter(batch.scores), iter(batch.brightest)
        for name, fault in zip(batch.names, batch.faults, strict=True):
            row = None if fault else next(scores)
            if not fault:
                dark.add(name, next(values))
            known = faults.get(name, fault)  # also where another file has just the name that is shown for this one
            yield name, known, None if known else row


def write(
    path: Path, writer: Writer, parts: Iterable[pd.DataFrame], served: Served, model_key: str, drift: Drift | None
) -> Predicted:
    """Write parts as one file.

    Args:
        path: of the file.
        writer: of its format.
        parts: in order; tables with the columns of PART_SCHEMA.
        served, model_key, drift: as in ``predict``.
    """
    result = Predicted()
    with writer(path, served, model_key) as add:
        for frame in parts:
            add(frame)
            if drift is not None:
                scored = frame["scores"].dropna().tolist()  # those without a fault
                drift.add(np.array(scored, dtype=np.float32).reshape(-1, len(served.names)))
            bad = frame[frame["fault"] != ""]
            result.images += len(frame)
            result.not_read += len(bad)
            result.faults += list(zip(bad["path"], bad["fault"], strict=True))[: SHOWN - len(result.faults)]
    return result
