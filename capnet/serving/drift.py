"""Does a batch of images look like the ones the model was tested on? Label rates and score distributions, class by
class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capnet.contracts import SCHEMA
from capnet.evaluation.metrics import Floats

BINS = 10  # deciles of the reference
FEWEST = 50  # images below which nothing is said
LARGE_PSI = 0.25  # the usual mark of a population that changed
ALPHA = 0.01  # chance that any class is named although nothing changed: by its rate, and again by its scores
HEAVY = 1.15  # PSI of batches of 100 goes beyond its chi-square distribution by up to so much (2,000,000 simulated)


def reference_document(names: list[str], label_rates: Floats, scores: Floats, thresholds: Floats) -> dict[str, Any]:
    """The reference that travels with the model, for later scores to be compared with.

    Args:
        names: of the classes.
        label_rates: share of the training rows that have the class, [class].
        scores: served scores of the test rows, at least one, [image, class].
        thresholds: [class].

    Returns:
        JSON content: for each class its rates, and a histogram of scores over the reference's deciles.
    """
    classes = []
    for c, name in enumerate(names):
        edges = np.unique(np.quantile(scores[:, c], np.linspace(0, 1, BINS + 1)[1:-1]))
        classes.append(
            {
                "name": name,
                "label_rate": float(label_rates[c]),
                "decided_rate": float((scores[:, c] >= thresholds[c]).mean()),
                "edges": edges.tolist(),
                "counts": _histogram(scores[:, c], edges).tolist(),
            }
        )
    labels = (scores >= thresholds).sum(axis=1)
    whole = {"labels_per_picture": float(labels.mean()), "without_labels": float((labels == 0).mean())}
    return {"schema": SCHEMA, "source": "test", "rows": len(scores), "whole": whole, "classes": classes}


class Drift:
    """Compares scores with a reference; they are counted as they come, and none is kept."""

    def __init__(self, reference: Mapping[str, Any], thresholds: Floats) -> None:
        self.reference, self.thresholds = reference, thresholds
        self.rows = self.labels = self.without = 0
        self.decided = np.zeros(len(thresholds), dtype=np.int64)
        self.edges = [np.array(item["edges"]) for item in reference["classes"]]
        self.counts = [np.zeros(len(edges) + 1, dtype=np.int64) for edges in self.edges]

    def add(self, scores: Floats) -> None:
        """Count scores [image, class]."""
        decided = scores >= self.thresholds
        self.rows += len(scores)
        self.decided += decided.sum(axis=0)
        self.labels += int(decided.sum())
        self.without += int((~decided.any(axis=1)).sum())
        for c, (counts, edges) in enumerate(zip(self.counts, self.edges, strict=True)):
            counts += _histogram(scores[:, c], edges)

    def report(self) -> dict[str, Any]:
        """Decided rates (Fisher's exact test, corrected for the number of classes; z for sorting) and scores (PSI) of
        all images, beside the reference.

        A class has drifted where its rate differs beyond chance, or its PSI is over LARGE_PSI and over what chance
        gives at these sizes for so many classes. With fewer than FEWEST images nothing is marked.
        """
        from scipy.special import chdtri
        from scipy.stats import hypergeom

        references, reference_rows = self.reference["classes"], int(self.reference["rows"])
        n_now, n_reference = max(1, self.rows), max(1, reference_rows)
        enough = min(self.rows, reference_rows) >= FEWEST
        # of each end of a class, exact: rare classes are far from normal
        chance = ALPHA / 2 / max(1, len(self.thresholds))
        # where nothing changed, PSI / (1 / n + 1 / m) is about chi-square (Yurdakul, Statistical Properties of
        # Population Stability Index, 2018)
        surprising = float(chdtri(BINS - 1, ALPHA / max(1, len(self.thresholds))))
        psi_limit = max(LARGE_PSI, HEAVY * surprising * (1 / n_now + 1 / n_reference))
        psi_limit = math.ceil(100 * psi_limit) / 100  # so that it is the number that people read
        rates = self.decided / n_now
        reference_rates = np.array([item["decided_rate"] for item in references], dtype=np.float64)
        pooled = (rates * self.rows + reference_rates * reference_rows) / max(1, self.rows + reference_rows)
        spread = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / n_now + 1 / n_reference))
        z = (rates - reference_rates) / spread
        reference_decided = np.rint(reference_rates * reference_rows).astype(np.int64)
        # hypergeom's arguments: all images, those of them that are decided, and how many of all come from this batch
        drawn = self.rows + reference_rows, self.decided + reference_decided, self.rows
        tails = np.minimum(hypergeom.cdf(self.decided, *drawn), hypergeom.sf(self.decided - 1, *drawn))
        classes = []
        for c, item in enumerate(references):
            psi = _psi(np.array(item["counts"]), self.counts[c])
            classes.append(
                {
                    "name": item["name"],
                    "decided_rate": float(rates[c]),
                    "reference_rate": item["decided_rate"],
                    "train_label_rate": item["label_rate"],
                    "z": float(z[c]),
                    "psi": psi,
                    "drifted": bool(enough and (tails[c] < chance or psi > psi_limit)),
                }
            )
        whole = {
            "labels_per_picture": self.labels / self.rows if self.rows else 0.0,
            "without_labels": self.without / self.rows if self.rows else 1.0,
        }
        return {
            "pictures": self.rows,
            "reference_pictures": reference_rows,
            "reference": dict(self.reference["whole"]),
            "now": whole,
            "enough_pictures": enough,
            "psi_limit": psi_limit,
            "source": self.reference["source"],
            "classes": classes,
        }


def _histogram(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).astype(np.int64)


def _psi(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Population stability index of two histograms, half an image added to every bin."""
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())
