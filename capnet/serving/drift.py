"""Does a batch of images look like the ones the model was chosen on? Label rates and score distributions, class by
class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from capnet.contracts import SCHEMA
from capnet.evaluation.metrics import Floats

BINS = 10  # deciles of the reference
FEWEST = 50  # images below which nothing is said
LARGE_PSI = 0.25  # the usual mark of a population that changed
ALPHA = 0.01  # chance that any class is named although nothing changed


def reference_document(
    names: list[str], label_rates: Floats, scores: Floats, limits: Floats, source: str
) -> dict[str, Any]:
    """What travels with the model: ``label_rates`` [class] of the training rows, served scores [image, class] of rows
    it was not fitted to.

    ``source``: val, out_of_fold or test.
    """
    classes = []
    for c, name in enumerate(names):
        edges = np.unique(np.quantile(scores[:, c], np.linspace(0, 1, BINS + 1)[1:-1])) if len(scores) else np.empty(0)
        classes.append(
            {
                "name": name,
                "label_rate": float(label_rates[c]),
                "decided_rate": float((scores[:, c] >= limits[c]).mean()) if len(scores) else 0.0,
                "edges": [float(edge) for edge in edges],
                "counts": [int(count) for count in _histogram(scores[:, c], edges)],
            }
        )
    labels = (scores >= limits).sum(axis=1) if len(scores) else np.zeros(1)
    whole = {"labels_per_picture": float(labels.mean()), "without_labels": float((labels == 0).mean())}
    return {"schema": SCHEMA, "source": source, "rows": len(scores), "whole": whole, "classes": classes}


def drift_report(reference: Mapping[str, Any], scores: Floats, limits: Floats) -> dict[str, Any]:
    """Compare decided rates (two-proportion z-test, corrected for the number of classes) and scores (PSI) with the
    reference.

    A class has drifted where its rate differs beyond chance, or its PSI is over LARGE_PSI and over what chance gives at
    these sizes. With fewer than FEWEST images nothing is marked.
    """
    from scipy.stats import norm

    rows, before = len(scores), int(reference["rows"])
    enough = min(rows, before) >= FEWEST
    limit_z = float(norm.isf(ALPHA / 2 / max(1, len(limits))))
    noise = (BINS - 1) * (1 / max(1, rows) + 1 / max(1, before))  # expected PSI when nothing changed
    classes = []
    for c, item in enumerate(reference["classes"]):
        rate = float((scores[:, c] >= limits[c]).mean()) if rows else 0.0
        pooled = (rate * rows + item["decided_rate"] * before) / max(1, rows + before)
        spread = np.sqrt(max(pooled * (1 - pooled), 1e-12) * (1 / max(1, rows) + 1 / max(1, before)))
        z = float((rate - item["decided_rate"]) / spread)
        psi = _psi(np.array(item["counts"]), _histogram(scores[:, c], np.array(item["edges"])))
        drifted = enough and (abs(z) > limit_z or psi > max(LARGE_PSI, 4 * noise))
        classes.append(
            {
                "name": item["name"],
                "decided_rate": rate,
                "reference_rate": item["decided_rate"],
                "train_label_rate": item["label_rate"],
                "z": z,
                "psi": psi,
            }
            | {"drifted": bool(drifted)}
        )
    labels = (scores >= limits).sum(axis=1) if rows else np.zeros(1)
    whole = {"labels_per_picture": float(labels.mean()), "without_labels": float((labels == 0).mean())}
    return {
        "pictures": rows,
        "reference": dict(reference["whole"]),
        "now": whole,
        "enough_pictures": enough,
        "source": reference["source"],
        "classes": classes,
    }


def _histogram(values: Floats, edges: Floats) -> NDArray[np.int64]:
    return np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1).astype(np.int64)


def _psi(before: NDArray[np.int64], now: NDArray[np.int64]) -> float:
    """Population stability index of two histograms, half an image added to every bin."""
    p, q = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())
