"""How fast image files become views: `python -m benchmarks data --images data`, and of made 12-megapixel photos.

In turns, in one process: one image after the other in this thread, threads, worker processes, and worker processes
that decode JPEGs at a reduced scale.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.matrix_rate import MATRIX_FLOPS, about, in_turns, matrix_product, ratios, spread
from benchmarks.numbers import from_one

CLOCK = time.perf_counter
PHOTO = (4000, 3000)  # pixels
PHOTOS = 4
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


def main(arguments: Sequence[str]) -> None:
    """Measure and print; with --json also write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks data", description=__doc__)
    parser.add_argument("--images", type=Path, help="folder of images; default: made photos of 12 megapixels")
    parser.add_argument("--number", type=from_one, default=48, help="images of a turn, default 48")
    parser.add_argument("--turns", type=from_one, default=5, help="default 5")
    parser.add_argument("--threads", type=from_one, default=2, help="default 2")
    parser.add_argument("--size", type=from_one, default=224, help="pixels of a view, default 224")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        images = options.images or make_photos(Path(folder), PHOTOS)
        result = measure(images, options.number, options.turns, options.threads, options.size)
    print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def make_photos(folder: Path, number: int) -> Path:
    """JPEGs of 12 megapixels, with structure of every size and the noise of a camera."""
    width, height = PHOTO
    for index in range(number):
        rng = np.random.default_rng(index)
        pixels = np.zeros((height, width, 3), dtype=np.float32)
        for cells in (3, 12, 48, 192, 768):
            layer = Image.fromarray(rng.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
            pixels += np.asarray(layer.resize(PHOTO, Image.Resampling.BICUBIC), dtype=np.float32) / 5
        pixels += rng.normal(0, 4, pixels.shape).astype(np.float32)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{index:03}.jpg", quality=92)
    return folder


def measure(images: Path, number: int, turns: int, threads: int, size: int) -> dict[str, Any]:
    """Milliseconds an image of each way, median and range over ``turns``, and the machine's matrix rate."""
    import torch

    from capnet.config import Runtime, Tte
    from capnet.data.images.loader import chunked, load_batches
    from capnet.data.images.stream import BATCH_VIEWS
    from capnet.data.images.transform import Item, Transform
    from capnet.runtime import Machine, workers
    from capnet.serving.image_source import list_images

    source = list_images(str(images))
    items = [Item(source.names[number % len(source.names)]) for number in range(number)]
    full = Transform(size, MEAN, STD, "bicubic", tte=Tte(views=5))
    scaled = replace(full, decode="scaled")
    here = Machine(torch.device("cpu"), bf16=False)
    apart = replace(here, workers=max(1, workers(Runtime())))

    def load(transform: Transform, machine: Machine, threads: int) -> None:
        for batch in load_batches(chunked(items, BATCH_VIEWS), source.root, transform, machine, threads, len(items)):
            assert not any(batch.faults), batch.faults

    ways = {
        "plain": (full, here, 1),
        "threads": (full, here, threads),
        "workers": (full, apart, threads),
        "workers_scaled": (scaled, apart, threads),
    }
    torch.set_num_threads(threads)
    works = {name: partial(load, *way) for name, way in ways.items()}
    taken = in_turns(works | {"matrix": matrix_product(torch.float32)}, CLOCK, turns)
    rates = [MATRIX_FLOPS / value / 1e9 for value in taken.pop("matrix")]
    return {
        **about(threads, "wall"),
        "images": len(items),
        "workers": apart.workers,
        "milliseconds_an_image": {
            name: spread([1000 * value / len(items) for value in values]) for name, values in taken.items()
        },
        "times_faster_than_plain": {
            name: ratios(taken["plain"], values) for name, values in taken.items() if name != "plain"
        },
        "matrix_gflops": spread(rates),
    }
