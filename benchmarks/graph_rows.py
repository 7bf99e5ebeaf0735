"""Rows of a label graph against true co-occurrence: where they come from and how near they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from capnet.data.annotations.label_lists import label_csr
from capnet.data.splits.long_tail import exponential_curve, long_tailed_draw, reference_curve
from capnet.evaluation.correlation import row_spearman, without_diagonal
from capnet.model.graph import blend, cooccurrence

MIN_TRUE = 10  # a true row of fewer images is mostly chance
NEIGHBOURS = 5  # how far down the list of neighbours nDCG looks
PERMUTATIONS = 10  # of the class names, for the control
CUTS = (100, 20)  # head from the first training count on, tail below the second
MEASURES = ("spearman", "strict", "ndcg", "lift")


@dataclass(frozen=True)
class Sample:
    """A training list and images that it does not hold: both bool [image, class], images without unknown labels."""

    train: np.ndarray
    truth: np.ndarray


@dataclass(frozen=True)
class Curve:
    """How a long tail is drawn: ``pareto`` (max, min), ``exponential`` (max, ratio), or ``natural``: all images."""

    kind: str
    maximum: int = 0
    second: float = 1.0

    def draw(self, labels: np.ndarray, seed: int) -> np.ndarray:
        """Rows of the list, int [row], from ``labels`` bool [image, class]."""
        n_classes = labels.shape[1]
        if self.kind == "natural":
            return np.arange(len(labels))
        if self.kind == "pareto":
            reference = reference_curve(n_classes, self.maximum, int(self.second), 6.0)
        else:
            reference = exponential_curve(n_classes, self.maximum, self.second)
        sparse = label_csr([np.flatnonzero(row).tolist() for row in labels], n_classes)
        return np.array(sorted(long_tailed_draw(sparse, reference, seed).rows), dtype=np.int64)


def halved(pool: np.ndarray, extra: np.ndarray, curve: Curve, seed: int) -> tuple[Sample, np.ndarray]:
    """Draw a long tail from one random half of ``pool``; the other half and ``extra`` are the truth.

    Halving comes first and uses no label. Were the truth what the draw leaves over, it would be bent the other way:
    a draw that takes images with a pair away leaves fewer of them, and its counts would look worse than they are.

    Args:
        pool: bool [image, class].
        extra: bool [image, class], more images for the truth.
        curve: what is drawn.
        seed: of the halving and of the draw.

    Returns:
        The sample, and all labels of the half from which it was drawn, bool [image, class].
    """
    order = np.random.default_rng([seed, 15]).permutation(len(pool))
    half = pool[np.sort(order[: len(pool) // 2])]
    rest = pool[np.sort(order[len(pool) // 2 :])]
    return Sample(half[curve.draw(half, seed)], np.concatenate([rest, extra])), half


def counted(labels: np.ndarray) -> np.ndarray:
    """P(j | i) float64 [class, class] of ``labels`` bool [image, class], all of them known."""
    return cooccurrence(labels, np.ones_like(labels))


def shares(labels: np.ndarray) -> np.ndarray:
    """P(j), float64 [class], of ``labels`` bool [image, class]."""
    return labels.mean(axis=0, dtype=np.float64)


def sources(text: np.ndarray, train: np.ndarray, blend_count: float) -> dict[str, np.ndarray]:
    """The graphs that are compared.

    Args:
        text: similarity of the class names [class, class].
        train: labels of the training list, bool [image, class].
        blend_count: training images at which counts weigh as much as the other half of a mix.

    Returns:
        float64 [class, class] by name: text, counted, blend (both, as the product mixes them), frequency (every row is
        P(j): no graph at all), backed (counts filled up with frequency instead of text), and uniform.
    """
    rates, frequency, images = counted(train), shares(train), train.sum(axis=0)
    similarity = torch.from_numpy(text).double()
    mixed = blend(similarity, torch.from_numpy(rates), torch.from_numpy(images).double(), blend_count).numpy()
    everywhere = np.tile(frequency, (len(rates), 1))
    trust = (images / (images + blend_count))[:, None]
    return {
        "text": text,
        "counted": rates,
        "blend": mixed,
        "frequency": everywhere,
        "backed": trust * rates + (1 - trust) * everywhere,
        "uniform": np.ones_like(rates),
    }


def strict_spearman(graph: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Spearman correlation of each pair of rows, ties of the graph broken at random: its mean over all orders.

    The usual one forgives ties: a row of zeros but for two entries is only judged by those two, while a row that orders
    everything pays for every wrong order.

    Args:
        graph, truth: [row, column].

    Returns:
        float64 [row], 0 where the graph orders nothing, NaN where the truth is constant.
    """
    from scipy.stats import rankdata

    ranks, true = (rankdata(matrix, axis=1) for matrix in (graph, truth))
    columns = graph.shape[1]
    centred = true - true.mean(axis=1, keepdims=True)
    scale = np.sqrt((centred**2).sum(axis=1) * (columns**3 - columns) / 12)
    return np.divide((ranks * centred).sum(axis=1), scale, out=np.full(len(graph), np.nan), where=scale > 0)


def row_ndcg(scores: np.ndarray, gains: np.ndarray, k: int) -> np.ndarray:
    """nDCG at ``k`` of each row: how much of the best possible neighbours' weight the k strongest ones have.

    Args:
        scores: [row, column], larger is nearer. Equal scores share their places: the value is the mean over all
            orders of them. Else the order of the columns would decide, and in COCO "person" comes first.
        gains: [row, column], not below 0.
        k: places that count.

    Returns:
        float64 [row], NaN where all gains are 0.
    """
    from scipy.stats import rankdata

    columns = scores.shape[1]
    weights = np.where(np.arange(columns) < k, 1 / np.log2(np.arange(columns) + 2.0), 0.0)
    total = np.concatenate([[0.0], np.cumsum(weights)])
    first, last = (rankdata(-scores, method=how, axis=1).astype(np.int64) for how in ("min", "max"))
    placed = (total[last] - total[first - 1]) / (last - first + 1)
    best = (-np.sort(-gains, axis=1) * weights).sum(axis=1)
    return np.divide((gains * placed).sum(axis=1), best, out=np.full(len(gains), np.nan), where=best > 0)


def lift(rates: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """P(j | i) / P(j) [class, class]: ``rates`` [class, class] without what comes from frequency [class] alone."""
    return np.divide(rates, frequency[None, :], out=np.zeros_like(rates), where=frequency[None, :] > 0)


def nearness(
    graph: np.ndarray, truth: np.ndarray, specific: np.ndarray, true_lift: np.ndarray
) -> tuple[np.ndarray, ...]:
    """All MEASURES of each row, diagonals left out.

    Args:
        graph, truth: [class, class]; the truth is P(j | i).
        specific, true_lift: [class, class]; the graph that is compared with the lift.

    Returns:
        float64 [class] for each of MEASURES; correlations are 0 where a row of the graph orders nothing.
    """
    rows, true = without_diagonal(graph), without_diagonal(truth)
    special = row_spearman(without_diagonal(specific), without_diagonal(true_lift))
    return (
        np.nan_to_num(row_spearman(rows, true), nan=0.0),
        np.nan_to_num(strict_spearman(rows, true), nan=0.0),
        row_ndcg(rows, true, NEIGHBOURS),
        np.nan_to_num(special, nan=0.0),
    )


def mixed_up(text: np.ndarray, times: int) -> Iterator[np.ndarray]:
    """``text`` [class, class] with its class names in another order, so many times."""
    generator = np.random.default_rng(0)
    for _ in range(times):
        names = generator.permutation(len(text))
        yield text[np.ix_(names, names)]


def usable(sample: Sample, truth: np.ndarray) -> np.ndarray:
    """Classes whose row can be judged: the truth has enough images of them and not all companions equally often, and
    the training list has an image.

    Args:
        sample: training list and truth.
        truth: P(j | i) of the truth, without its diagonal, [class, class - 1].

    Returns:
        bool [class].
    """
    enough = sample.truth.sum(axis=0) >= MIN_TRUE
    return enough & (truth.max(axis=1) > truth.min(axis=1)) & sample.train.any(axis=0)


def measure(
    text: np.ndarray, sample: Sample, blend_count: float, half: np.ndarray | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """How near the rows of each source are to the truth.

    Args:
        text: similarity of the class names [class, class].
        sample: training list and truth.
        blend_count: see sources.
        half: labels of all images from which the list was drawn, bool [image, class]: their counts are as near as
            counts can come.

    Returns:
        By measure and source float64 [class], NaN where the truth has too few images of the class or no companion in
        them, or the training list has no image of it.
    """
    truth, frequency, seen = counted(sample.truth), shares(sample.truth), shares(sample.train)
    true_lift = lift(truth, frequency)
    judged = usable(sample, without_diagonal(truth))
    measures: dict[str, dict[str, np.ndarray]] = {name: {} for name in MEASURES}

    def put(name: str, graph: np.ndarray, specific: np.ndarray) -> None:
        for kind, values in zip(MEASURES, nearness(graph, truth, specific, true_lift), strict=True):
            measures[kind][name] = np.where(judged, values, np.nan)

    graphs = sources(text, sample.train, blend_count)
    images = torch.from_numpy(sample.train.sum(axis=0)).double()
    counted_lift = lift(graphs["counted"], seen)
    specific = {
        "counted": counted_lift,
        "backed": lift(graphs["backed"], seen),
        "blend": blend(torch.from_numpy(text).double(), torch.from_numpy(counted_lift), images, blend_count).numpy(),
    }
    for name, graph in graphs.items():
        put(name, graph, specific.get(name, graph))
    if half is not None:
        rates = counted(half)
        put("large sample", rates, lift(rates, shares(half)))
    parts = [nearness(shuffled, truth, shuffled, true_lift) for shuffled in mixed_up(text, PERMUTATIONS)]
    for kind, values in zip(MEASURES, np.mean(parts, axis=0), strict=True):
        measures[kind]["permuted"] = np.where(judged, values, np.nan)
    return measures


def by_chance(text: np.ndarray, sample: Sample, permutations: int = 1000) -> dict[str, tuple[float, np.ndarray]]:
    """What the text graph reaches in the tail, and what it reaches when its class names are mixed up.

    The rows of a graph share their columns, so a column that happens to suit one class suits many: intervals over
    classes do not see that, this does.

    Args:
        text: similarity of the class names [class, class].
        sample: training list and truth.
        permutations: of the class names.

    Returns:
        For "ndcg" and "strict" the mean over tail classes of the text graph, and float64 [permutation] of the mixed
        ones; nothing without tail classes.
    """
    truth = without_diagonal(counted(sample.truth))
    tail = usable(sample, truth) & (sample.train.sum(axis=0) < CUTS[1])
    if not tail.any():
        return {}
    true = truth[tail]

    def reached(graph: np.ndarray) -> tuple[float, float]:
        rows = without_diagonal(graph)[tail]
        return float(row_ndcg(rows, true, NEIGHBOURS).mean()), float(strict_spearman(rows, true).mean())

    own, others = reached(text), np.array([reached(shuffled) for shuffled in mixed_up(text, permutations)])
    return {"ndcg": (own[0], others[:, 0]), "strict": (own[1], others[:, 1])}
