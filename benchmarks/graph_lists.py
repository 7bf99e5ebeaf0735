"""Label lists of published sets and folders of images, and long tails drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.graph_means import MIN_CLASSES, Measured
from benchmarks.graph_rows import Curve, Sample, by_chance, halved, measure
from benchmarks.graph_training import read_known
from capnet.config import Params
from capnet.contracts import label_matrix
from capnet.errors import DataError
from capnet.model.graph import cosine_similarity
from capnet.model.towers import Towers

# VOC writes one word
SPOKEN = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "TV monitor"}
TAIL_CURVE = Curve("exponential", 500, 100.0)  # of a set that has no tail by itself; the product's default


@dataclass(frozen=True)
class Lists:
    """Files of one published set in the folder of label lists."""

    title: str
    classes: str
    pool: str  # long tails are drawn from half of it
    truth: str = ""  # further images that are truth only
    published: str = ""  # a published long-tailed list
    published_title: str = ""
    curves: tuple[Curve, ...] = ()


LISTS = {
    "voc": Lists(
        "VOC",
        "voc20_classes.txt",
        "voc2012_trainval.csv",
        "voc2007_test.csv",
        "voc_lt_train.csv",
        "VOC-LT's list",
        (Curve("pareto", 800, 1), Curve("exponential", 500, 100)),
    ),
    "coco": Lists(
        "COCO",
        "coco80_classes.txt",
        "coco2017_val.csv",
        "",
        "coco_lt_train.csv",
        "COCO-LT's list",
        (Curve("pareto", 1200, 1), Curve("exponential", 500, 100)),
    ),
    "nus-wide": Lists(
        "NUS-WIDE",
        "nuswide81_classes.txt",
        "nuswide81_test.csv.gz",
        curves=(Curve("pareto", 1200, 1), Curve("exponential", 500, 100)),
    ),
}


def read_list(path: Path, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Image ids [image] and labels bool [image, class] of a table image,labels (indices with spaces between them).

    Raises DataError where the file is missing or holds something else.
    """
    import pandas as pd

    if not path.is_file():
        raise DataError("a label list is missing", str(path), "give the folder of label lists with --labels")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        rows = [[int(index) for index in cell.split()] for cell in table["labels"]]
        return table["image"].to_numpy(), label_matrix(rows, n_classes)
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"not a label list: {error}", str(path), "columns are image, labels (class indices)") from None


def read_names(path: Path) -> list[str]:
    """Class names, one a line, as a text tower should read them."""
    if not path.is_file():
        raise DataError("a list of classes is missing", str(path), "give the folder of label lists with --labels")
    return [SPOKEN.get(name, name) for name in path.read_text(encoding="utf-8").splitlines() if name]


def similarity(towers: Towers, names: Sequence[str], template: str) -> np.ndarray:
    """Cosines of the class names' text features, float64 [class, class], as stage graph has them."""
    with torch.no_grad():
        features = towers.text([template.format(name) for name in names]).float().cpu()
    return cosine_similarity(features).double().numpy()


def drawn(
    pool: np.ndarray,
    extra: np.ndarray,
    text: np.ndarray,
    curve: Curve,
    draws: int,
    blend_count: float,
) -> Measured:
    """Measure ``draws`` lists drawn from halves of ``pool``; see halved and measure."""
    measures, images = [], []
    for seed in range(draws):
        sample, half = halved(pool, extra, curve, seed)
        measures.append(measure(text, sample, blend_count, half))
        images.append(sample.train.sum(axis=0))
    return Measured.of(measures, images)


def measure_lists(
    folder: Path,
    lists: Lists,
    towers: Towers,
    params: Params,
    draws: int,
    chance: dict[str, dict[str, tuple[float, np.ndarray]]],
) -> dict[str, Measured]:
    """One published set: its published list, if it has one, and draws along each of its curves.

    What chance gives on the published list goes into ``chance``; see by_chance.
    """
    names = read_names(folder / lists.classes)
    text = similarity(towers, names, params.graph.template)
    ids, pool = read_list(folder / lists.pool, len(names))
    extra = read_list(folder / lists.truth, len(names))[1] if lists.truth else pool[:0]
    results = {}
    if lists.published:
        listed, train = read_list(folder / lists.published, len(names))
        truth = np.concatenate([pool[~np.isin(ids, listed)], extra])
        one = measure(text, Sample(train, truth), params.graph.blend_count)
        chance[lists.published_title] = by_chance(text, Sample(train, truth))
        results[lists.published_title] = Measured.of([one], [train.sum(axis=0)])
    for curve in lists.curves:
        title = f"{lists.title}, {curve.kind}"
        results[title] = drawn(pool, extra, text, curve, draws, params.graph.blend_count)
    return results


def curve_of(labels: np.ndarray) -> Curve:
    """Natural where half of the images, labels bool [image, class], have a tail by themselves, else TAIL_CURVE."""
    rare = (labels.sum(axis=0) > 0) & (labels.sum(axis=0) / 2 < 20)
    return Curve("natural") if rare.sum() >= MIN_CLASSES else TAIL_CURVE


def measure_folder(name: str, folder: Path, towers: Towers, params: Params, draws: int) -> dict[str, Measured]:
    """A folder with labels.csv: draws along its curve."""
    _, classes, labels = read_known(folder)
    text, curve = similarity(towers, classes.prompt_names, params.graph.template), curve_of(labels)
    return {f"{name}, {curve.kind}": drawn(labels, labels[:0], text, curve, draws, params.graph.blend_count)}
