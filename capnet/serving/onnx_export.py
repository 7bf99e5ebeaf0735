"""A packed model as one ONNX graph: the image tower with its adapters and the class matrix, images in, logits out.

What lies outside the graph (decoding, views, their average, thresholds) is described in a JSON file of the same name.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from timeit import timeit
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from scipy.special import expit
from torch import Tensor, nn

from capnet.contracts import SCHEMA, write_json
from capnet.contracts.publish import temporary_folder
from capnet.data.images.decode import Unusable, read_rgb
from capnet.errors import ConfigError, ContractError, DataError
from capnet.progress import track
from capnet.streams import quiet

if TYPE_CHECKING:
    from capnet.model.capnet import CapNet, ClassFeatures
    from capnet.serving.engine import Served

PICTURES, LOGITS, OPSET = "pictures", "logits", 20
PARITY = 1e-4  # largest difference of a score
LARGEST = 2**31 - 2**20  # bytes that one file may have: protobuf's limit
EXPORTERS = dict.fromkeys(("torch.onnx", "onnxscript", "onnx_ir"), logging.ERROR)
TIMED = 20
MOST = 100  # images that both are compared on
# what a program does with a file before the graph, in words of the JSON file
DECODED = (
    "take the first frame, upright by its EXIF orientation, 16 bits scaled to 8, transparency on white, in 8-bit RGB;"
    " views.decode: full decodes all pixels, scaled reads a JPEG at its smallest scale at which no view is enlarged"
)
RESIZED = {
    "short": "resize the whole picture: shorter edge = input width + views.expand, longer edge by the same factor,"
    " rounded to whole pixels",
    "pad": "paste it into the middle of a square of its longer edge, of RGB 127; resize to input width + views.expand",
    "squash": "distort it into a square of input width + views.expand",
}
FILTERED = ", with input.interpolation and antialiasing, as in Pillow: in reducing, a pixel is a mean of all it covers"
CORNERS = (
    "cut views of the input's size: the four corners of the resized picture and its centre (half margins rounded down)"
)
CUTS = {
    1: "cut one view of the input's size: the centre of the resized picture (half margins rounded down)",
    5: CORNERS,
    10: f"{CORNERS}, and these five mirrored",
}

log = logging.getLogger(__name__)


class Graph(nn.Module):
    """Images [image, 3, size, size] -> served logits [image, class]; class features are constants."""

    refined: Tensor
    zero_shot: Tensor

    def __init__(self, model: CapNet, classes: ClassFeatures) -> None:
        super().__init__()
        self.model, self.tower = model, model.towers.image  # the tower is no child of the model
        self.register_buffer("refined", classes.refined)
        self.register_buffer("zero_shot", classes.zero_shot)

    def forward(self, images: Tensor) -> Tensor:
        from capnet.model.capnet import ClassFeatures

        model, classes = self.model, ClassFeatures(self.refined, self.zero_shot)
        pooled = model.pooled(images)
        plain = model.pooled(images, adapted=False) if model.needs_plain_features else pooled
        return model.served(model.members(pooled, classes, plain))


@dataclass(frozen=True)
class Measured:
    """Largest difference of a score with a ``single`` view and with ``averaged`` views; ``_ms``: milliseconds for one
    view, in capnet and in ONNX Runtime; size of the file.
    """

    pictures: int
    single: float
    averaged: float
    capnet_ms: float
    onnx_ms: float
    megabytes: float


def about(served: Served, key: str) -> dict[str, Any]:
    """What a program needs to give the graph images and to read its logits."""
    loaded, preprocess = served.scorer.loaded, served.scorer.loaded.model.towers.preprocess
    thresholds, by_logits = served.thresholds, loaded.tte.average == "logits"
    score = "sigmoid of the mean logit of the views" if by_logits else "mean of the views' sigmoid"
    return {
        "schema": SCHEMA,
        "model": key,
        "weight_hash": loaded.config["weight_hash"],
        "input": {
            "name": PICTURES,
            "shape": ["picture", 3, preprocess.size, preprocess.size],
            "type": "float32",
            "colours": "RGB in 0 to 1, then (value - mean) / std",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "interpolation": preprocess.interpolation,
        },
        "views": loaded.tte.model_dump(mode="json"),
        "steps": [DECODED, RESIZED[loaded.tte.resize] + FILTERED, CUTS[loaded.tte.views]],
        "output": {"name": LOGITS, "shape": ["picture", "class"], "score": score},
        "precision": "fp32",
        "thresholds_chosen_in": loaded.config.get("precision", "fp32"),
        "classes": [{"name": item["name"], "threshold": item["threshold"]} for item in thresholds["classes"]],
        "calibration": thresholds["calibration"],
    }


def export(served: Served, key: str, out: Path, images: Sequence[Path]) -> Measured:
    """Write a model as ONNX with a JSON file of the same name, once both give the same scores.

    Args:
        served: the model, on the CPU.
        key: its name, for the JSON file.
        out: ends in .onnx.
        images: of which at most MOST are scored for the comparison; without any, seeded noise.

    Returns:
        What was measured.

    Raises:
        ConfigError: ``out`` ends otherwise, or a package is missing.
        ContractError: a score differs by more than PARITY; nothing is written.
        DataError: the towers are beyond protobuf's limit.
    """
    if out.suffix.lower() != ".onnx":
        raise ConfigError(f"unknown kind of output {out.suffix!r}", str(out), "end it in .onnx")
    _need()
    described = about(served, key)
    with temporary_folder(out.absolute()) as folder:
        temporary = folder / out.name
        write_graph(served, temporary, described)
        measured = compare_scores(served, temporary, images, folder)
        worst = np.max([measured.single, measured.averaged])  # NaN where one is; max() would drop it
        if not worst <= PARITY:
            what = f"scores of the ONNX graph differ by {worst:.2g}, allowed are {PARITY:.0e}"
            raise ContractError(what, str(out), "use the versions in constraints.txt; nothing was written")
        write_json(temporary.with_suffix(".json"), described)
        # a kill in between leaves no description without its graph
        out.with_suffix(".json").unlink(missing_ok=True)
        temporary.replace(out)
        temporary.with_suffix(".json").replace(out.with_suffix(".json"))
    return measured


def _need() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401

        _runtime()
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed", "capnet export", "pip install 'capnet[onnx]'") from None


def write_graph(served: Served, path: Path, described: Mapping[str, Any]) -> None:
    """Write the graph with weights inside.

    Args:
        served: the model.
        path: of the file.
        described: JSON content, its metadata ``capnet``.

    Raises:
        DataError: the towers are beyond protobuf's limit.
    """
    import onnx

    graph = Graph(served.scorer.loaded.model, served.scorer.class_features).eval()
    size = sum(tensor.numel() * tensor.element_size() for tensor in graph.state_dict().values())
    if size > LARGEST:
        raise DataError(
            f"the image tower has {size / 2**30:.1f} GiB, one ONNX file can hold 2",
            str(path.name),
            "export a smaller backbone",
        )
    pixels = served.scorer.loaded.model.towers.preprocess.size
    example = torch.zeros(2, 3, pixels, pixels)
    # the exporter logs much that no user can act on; errors still raise
    with warnings.catch_warnings(action="ignore"), quiet(EXPORTERS), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[PICTURES],
            output_names=[LOGITS],
            dynamic_shapes=({0: torch.export.Dim("picture")},),
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
    content = onnx.load(str(path))
    for item in (*content.graph.node, *content.graph.value_info, *content.graph.initializer):
        del item.metadata_props[:]  # torch's stack traces, with paths of this machine
    onnx.helper.set_model_props(content, {"capnet": json.dumps(described)})
    onnx.checker.check_model(content)
    onnx.save(content, str(path))


def _runtime() -> Any:
    """ONNX Runtime, which from 1.32 on sends reports to its maker where nothing forbids it."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is imported
    import onnxruntime

    return onnxruntime


def session(path: Path, threads: int) -> Any:
    """An ONNX Runtime session on the processor."""
    onnxruntime = _runtime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def compare_scores(served: Served, path: Path, images: Sequence[Path], folder: Path) -> Measured:
    """Score the same images, through the same views, with the model and with its graph.

    Args:
        served: the model.
        path: of its graph.
        images: to score; without any, seeded noise.
        folder: where that noise is written.

    Returns:
        Largest differences of scores, and times per view.
    """
    running, scorer = session(path, served.scorer.threads), served.scorer
    paths, average = sample(images) or _noise(folder, scorer.transform.size), scorer.loaded.tte.average
    graph = Graph(scorer.loaded.model, scorer.class_features).eval()

    def onnx_logits(views: Tensor) -> np.ndarray:
        return np.asarray(running.run([LOGITS], {PICTURES: views.contiguous().numpy()})[0])

    onnx_scores, differences = [], []
    capnet_seconds, onnx_seconds = list[float](), list[float]()
    for number, image_path in enumerate(track(paths, "comparing images", len(paths))):
        views = scorer.transform.tensor(Path("/"), str(image_path.absolute()), "")
        logits = onnx_logits(views).astype(np.float64)
        onnx_scores.append(expit(logits.mean(axis=0)) if average == "logits" else expit(logits).mean(axis=0))
        one = views[:1]
        differences.append(graph(one).double().sigmoid().numpy() - expit(onnx_logits(one).astype(np.float64)))
        if number < TIMED:  # both are warm by now
            capnet_seconds.append(timeit(partial(graph, one), number=1))
            onnx_seconds.append(timeit(partial(onnx_logits, one), number=1))
    single = float(np.abs(np.stack(differences)).max())
    averaged = float(np.abs(served.scores(paths) - np.stack(onnx_scores)).max())
    capnet_ms, onnx_ms = (1000 * fmean(seconds) for seconds in (capnet_seconds, onnx_seconds))
    return Measured(len(paths) if images else 0, single, averaged, capnet_ms, onnx_ms, path.stat().st_size / 1e6)


def sample(images: Sequence[Path]) -> list[Path]:
    """At most MOST of the images that can be read, from all parts of the list; raises DataError where none can."""
    readable: list[Path] = []
    count = min(len(images), MOST)
    for path in (images[number * len(images) // count] for number in range(count)):
        try:
            read_rgb(path)
        except Unusable as error:
            log.warning("%s is not compared: %s", path, error)
            continue
        readable.append(path)
    if images and not readable:
        raise DataError("no image to compare on can be read", str(images[0].parent), "name others: --check")
    return readable


def _noise(folder: Path, size: int) -> list[Path]:
    """Eight images of seeded noise, coarse and fine."""
    rng, paths = np.random.default_rng(0), []
    for number in range(8):
        cells = 4 << number % 4
        image = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)).resize((size + 9, size + 30))
        paths.append(folder / f"{number}.png")
        image.save(paths[-1])
    return paths
