"""The graph benchmark's tables in Markdown, and its figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.differences import Draws
from benchmarks.differences import difference as points
from benchmarks.drawing import pyplot, save
from benchmarks.graph_means import BINS, MANY, Mean, Measured, mean
from capnet.registry.markdown import table

TITLES = {"ndcg": "nDCG@5", "strict": "order", "spearman": "Spearman", "lift": "lift"}
CONTROLS = ("permuted", "uniform", "frequency", "text", "counted", "backed", "blend", "large sample")
COMPARED = ("text", "counted", "blend")
COLOURS = {"text": "#0072b2", "counted": "#e69f00", "blend": "#009e73"}


def value(number: float, sign: bool = False) -> str:
    """Two decimals, empty for NaN."""
    if math.isnan(number):
        return ""
    return f"{number:+.2f}" if sign else f"{number:.2f}"


def bracket(pair: tuple[float, float]) -> str:
    """``[low, high]``, empty for NaN."""
    return "" if math.isnan(pair[0]) else f"[{value(pair[0])}, {value(pair[1])}]"


def trio(measures: Measured, kind: str, chosen: np.ndarray) -> str:
    """``text / counted / blend`` of one measure over ``chosen`` bool [draw, class]."""
    return " / ".join(value(mean(measures.values[kind][name], chosen).value) for name in COMPARED)


def difference(measures: Measured, kind: str, one: str, other: str, chosen: np.ndarray) -> Mean:
    """Mean of the paired difference of two sources over ``chosen`` bool [draw, class]."""
    return mean(measures.values[kind][one] - measures.values[kind][other], chosen)


def tail_table(measured: Mapping[str, Measured], kind: str) -> list[str]:
    """Text, counted and blend in the tail, with both intervals of text minus counted, and blend minus counted."""
    head = ["sample", "classes", "text / counted / blend", "text - counted", "over draws", "blend - counted"]
    rows = []
    for title, measures in measured.items():
        tail = measures.bucket("tail")
        first = difference(measures, kind, "text", "counted", tail)
        if not first.classes:
            continue
        second = difference(measures, kind, "blend", "counted", tail)
        rows.append(
            [
                title,
                f"{first.classes:.0f}",
                trio(measures, kind, tail),
                f"{value(first.value, True)} {bracket(first.over_classes)}".strip(),
                bracket(first.over_draws),
                f"{value(second.value, True)} {bracket(second.over_classes)}".strip(),
            ]
        )
    return table(head, rows)


def cut_table(measured: Mapping[str, Measured], by: str) -> list[str]:
    """Text / counted / blend by every measure: ``by`` bucket, of head and medium classes, or by training images."""
    kinds, digits = ("ndcg", "strict", "spearman"), 1 if by == "images" else 0
    rows = []
    for title, measures in measured.items():
        cuts = {name: measures.bucket(name) for name in ("head", "medium")}
        if by == "images":
            cuts = {bin_title(*ends): measures.within(*ends) for ends in BINS}
        for name, chosen in cuts.items():
            classes = mean(measures.values["ndcg"]["text"], chosen).classes
            if classes:
                cells = (trio(measures, kind, chosen) for kind in kinds)
                rows.append([title, name, f"{classes:.{digits}f}", *cells])
    return table(["sample", by, "classes", *(TITLES[kind] for kind in kinds)], rows)


def bin_title(first: int, last: int) -> str:
    """``5-9``, or ``100+`` for the last one."""
    return f"{first}-{last}" if last < MANY else f"{first}+"


def control_table(measured: Mapping[str, Measured]) -> list[str]:
    """Every source in the tail, controls first and the best that counts can do last."""
    rows = []
    for title, measures in measured.items():
        tail = measures.bucket("tail")
        for kind in ("ndcg", "strict"):
            values = measures.values[kind]
            if mean(values["text"], tail).classes:
                cells = (value(mean(values[name], tail).value) if name in values else "" for name in CONTROLS)
                rows.append([title, TITLES[kind], *cells])
    return table(["sample", "measure", *CONTROLS], rows)


def chance_table(chance: Mapping[str, Mapping[str, tuple[float, np.ndarray]]]) -> list[str]:
    """Text against its own class names mixed up, in the tail of each published list."""
    rows = []
    for title, measures in chance.items():
        for kind, (own, mixed) in measures.items():
            low, high = np.quantile(mixed, [0.025, 0.975]).tolist()
            rows.append([title, TITLES[kind], value(own), value(float(mixed.mean())), bracket((low, high))])
    return table(["sample", "measure", "text", "mixed up", "middle 95 % of them"], rows)


def training_table(measured: Mapping[str, Draws], against: Sequence[str]) -> list[str]:
    """Rows of one set: means, and differences to each row in ``against``."""
    names = list(next(iter(measured.values())))
    pairs = [(other, what) for other in against for what in ("mAP", names[-1])]
    head = ["graph", " / ".join(names), *(f"{what} - {other}" for other, what in pairs)]
    rows = []
    for row, values in measured.items():
        cells = [points(values[what], measured[other][what]) if row != other else "" for other, what in pairs]
        rows.append([row, " / ".join(f"{100 * values[what][0]:.1f}" for what in names), *cells])
    return table(head, rows)


def figure(measured: Mapping[str, Measured], out: Path) -> None:
    """Draw nDCG@5 above, order below, over training images; one column a sample, one line a source."""
    columns = len(measured)
    grid = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    page, axes = pyplot().subplots(2, columns, figsize=(2 * columns + 1, 4.5), **grid)
    bins = [bin_title(*ends) for ends in BINS]
    for column, (title, measures) in enumerate(measured.items()):
        for row, kind in zip(axes[:, column], ("ndcg", "strict"), strict=True):
            for name in COMPARED:
                points = [mean(measures.values[kind][name], measures.within(*ends)).value for ends in BINS]
                row.plot(bins, points, color=COLOURS[name], label=name)
            row.tick_params(axis="x", labelsize=7)
        axes[0, column].set_title(title, fontsize=10)
    axes[0, 0].set(ylabel=TITLES["ndcg"], ylim=(0, 1))
    axes[1, 0].set(ylabel=TITLES["strict"])
    page.supxlabel("training images of the class", fontsize=10)
    page.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    save(page, out)
