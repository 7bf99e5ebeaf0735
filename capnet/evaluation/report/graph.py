"""The label graph in the report: is it a better guide to companions than the training counts, and who are its
neighbours?
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from capnet.errors import counted
from capnet.evaluation.correlation import MIN_ROWS, MIN_TEST_POSITIVES, Premise, check_premise, strongest_neighbours
from capnet.evaluation.report.cells import pair_cell
from capnet.evaluation.report.charts import LONG_NAME, Part
from capnet.evaluation.report.inputs import Inputs, shown_rows
from capnet.evaluation.report.words import MEANS, fixed, near, shorten, significant
from capnet.model.graph import cooccurrence

NEIGHBOURS = 5
SHORT_NAME = 28  # characters of a neighbour's name above MANY_CLASSES
MANY_CLASSES = 300
SOURCES = {
    "text": "text encoder",
    "cooccurrence": "training co-occurrence",
    "blend": "blend of text and co-occurrence",
}


def premise(inputs: Inputs) -> Part:
    """Does the label graph know the companions of a class better than the training counts do?"""
    buckets = np.array(inputs.classes.buckets)
    premises = check_premise(
        inputs.graph.adjacency.numpy(),
        (inputs.train.labels, inputs.train.known),
        (inputs.test.labels, inputs.test.known),
        buckets,
    )
    lowest = min(
        (value for item in premises.values() for value in (item.graph, item.counts) if math.isfinite(value)),
        default=0.0,
    )
    ends = (math.floor(min(lowest, 0.0) * 5) / 5, 1.0)
    rows = [
        vars(item)
        | {
            "bucket": name,
            "title": "All classes" if name == "all" else MEANS[name],
            "interval": _interval(item) if math.isfinite(item.low) else "",
            "pair": pair_cell(item.counts, item.graph, *ends),
        }
        for name, item in premises.items()
    ]
    source = str(inputs.graph.metadata.get("source", "text"))
    return {
        "rows": rows,
        "source": "" if source == "text" else SOURCES.get(source, source),
        "sentence": premise_sentence(premises, source),
        "min_positives": MIN_TEST_POSITIVES,
        "ends": [f"{end:g}" for end in ends],
    }


def premise_sentence(premises: Mapping[str, Premise], source: str) -> str:
    """Which of the two orders the companions of tail classes better here, in one sentence.

    Args:
        premises: from ``check_premise``.
        source: ``graph.source``; only a graph by the text encoder alone says something about the paper's premise,
            and only where there is a tail.
    """
    name = "tail" if "tail" in premises else "all"
    item, where = premises[name], "for the tail" if name == "tail" else "over all classes (there is no tail)"
    if item.verdict == "unknown":
        return (
            f"Too few classes to say which is better {where}: {counted(item.classes, 'class', 'classes')} can be"
            f" compared, {MIN_ROWS} are needed."
        )
    numbers = (
        f"mean Spearman {fixed(item.graph, 2)} against {fixed(item.counts, 2)} over {item.classes} classes, difference"
        f" {near(item.difference, 0.0, 2, sign=True)} with 95 % interval {_interval(item)}"
    )
    is_checked = source == "text" and name == "tail"  # the premise is about classes with few training images
    so = ", so the paper's premise does not hold on these data" if is_checked else ""
    start = {
        "graph": f"Here the label graph ({SOURCES.get(source, source)}) is the better guide {where}",
        "counts": f"Here the training counts are the better guide {where}{so}",
        "even": f"Here neither is shown to be the better guide {where}",
    }[item.verdict]
    return f"{start}: {numbers}."


def _interval(item: Premise) -> str:
    return f"{near(item.low, 0.0, 2, sign=True)} to {near(item.high, 0.0, 2, sign=True)}"


def neighbours(inputs: Inputs) -> Part:
    """The strongest neighbours of every class; those that are also frequent companions in the test labels are
    marked.
    """
    adjacency = inputs.graph.adjacency.numpy()
    names = inputs.classes.names
    strongest = strongest_neighbours(adjacency, NEIGHBOURS)
    companions = [
        {j for j, _ in row}
        for row in strongest_neighbours(cooccurrence(inputs.test.labels, inputs.test.known), NEIGHBOURS)
    ]
    limit = LONG_NAME if len(names) <= MANY_CLASSES else SHORT_NAME
    index = {name: position for position, name in enumerate(names)}
    rows = []
    for row in shown_rows(inputs.per_class):
        i = index[row["class"]]
        cells = [
            {"name": shorten(names[j], limit), "weight": significant(weight), "seen": j in companions[i]}
            for j, weight in strongest[i]
        ]
        rows.append({"name": row["class"], "cells": cells})
    self_weights = np.diagonal(adjacency)
    marked = sum(j in companions[i] for i, row in enumerate(strongest) for j, _ in row)
    return {
        "rows": rows,
        "own": f"{float(self_weights.mean()):.2g}" if len(names) else "-",
        "marked": marked,
        "total": sum(map(len, strongest)),
        "count": NEIGHBOURS,
    }
