"""The linear probe: what a hurried user would fit instead, logistic regressions on frozen pooled features. Stage train
fits it and leaves it in the model folder, stage evaluate reads it.

One binary problem per class (scikit-learn's objective, solved for all classes at once), on the directions of features.
Nothing is chosen: with few validation rows a choice among strengths, scalings and class weights followed their noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from threadpoolctl import threadpool_limits

from capnet.contracts import check_tensors, read_tensors, write_tensors
from capnet.evaluation.logistic import MOST_STEPS, ROUGH, C, Probe, centre_of, directions, fit_probe, probe_scores
from capnet.evaluation.metrics import Bools, Floats
from capnet.progress import bar

FOLDS = 3  # for held-out scores where nothing else makes some
LARGEST_LOGIT = 8.0  # on the training rows; beyond about 16 a float32 sigmoid is 1 and different scores become equal


@dataclass(frozen=True)
class FittedProbe:
    """The probe, and scores of rows that it has seen by fits without them, where such were asked for."""

    probe: Probe
    held_out: NDArray[np.float32] | None = None  # [image, class]: training rows, validation rows or both

    def document(self) -> dict[str, Any]:
        """How it was fitted, as it stands in evaluation.json."""
        return {"features": "centred, length 1", "c": C}


@dataclass(frozen=True)
class ProbeRows:
    """Features [image, view, feature], an array or features of the store, and bool [image, class]."""

    features: Any
    labels: Bools
    known: Bools


def fit_linear_probe(
    train: ProbeRows, validation: ProbeRows | None = None, folds: NDArray[np.int64] | None = None
) -> FittedProbe:
    """Fit the probe.

    Args:
        train: rows that it is fitted on.
        validation: rows that it is fitted on as well, a refit.
        folds: int [image], of all these rows, training rows first: asks for held-out scores of all of them, by fits
            without their fold. Without it a refit has held-out scores of the validation rows, by a fit on the others.

    Returns:
        The probe with its held-out scores.
    """
    # by default BLAS takes every core of the machine, and another number of threads gives other bits
    with threadpool_limits(1, user_api="blas"):
        parts = [train] if validation is None else [train, validation]
        sizes = [len(part.labels) for part in parts]
        centre = np.average([centre_of(part.features) for part in parts], axis=0, weights=sizes)
        features = np.concatenate([directions(part.features, centre) for part in parts])
        labels, known = (np.concatenate([getattr(part, name) for part in parts]) for name in ("labels", "known"))
        numbers = [] if folds is None else np.unique(folds).tolist()
        with bar("linear probe", (1 + len(numbers)) * MOST_STEPS) as advance:
            probe = _shrunk(fit_probe(features, centre, labels, known, advance=advance), features)
            held_out = np.zeros(labels.shape, dtype=np.float32)
            for fold in numbers:
                inside, outside = folds != fold, folds == fold
                fitted = fit_probe(features[inside], centre, labels[inside], known[inside], ROUGH, advance)
                fitted = _shrunk(fitted, features[inside])
                held_out[outside] = expit(features[outside] @ fitted.weight + fitted.bias)
        if folds is not None:
            return FittedProbe(probe, held_out)
        if validation is None:
            return FittedProbe(probe)
        return FittedProbe(probe, probe_scores(fit_linear_probe(train).probe, validation.features))


def write_probe(path: Path, fitted: FittedProbe) -> None:
    """Keep the probe that stage train fitted, so that stage evaluate need not fit it again."""
    import torch

    arrays = vars(fitted.probe) | ({} if fitted.held_out is None else {"held_out": fitted.held_out})
    tensors = {name: torch.from_numpy(np.ascontiguousarray(item)) for name, item in arrays.items()}
    write_tensors(path, tensors, fitted.document())


def read_probe(path: Path, classes: int, train: int, validation: int) -> FittedProbe | None:
    """What ``write_probe`` wrote.

    Args:
        path: of the file.
        classes: how many there are.
        train: how many training rows.
        validation: how many validation rows.

    Returns:
        The probe, or None where there is no such file.

    Raises:
        ContractError: the file is damaged, or is of other classes or rows.
    """
    if not path.is_file():
        return None
    tensors, _ = read_tensors(path)
    check_tensors(tensors, {"centre": (None,)}, path)
    shapes = {"weight": (len(tensors["centre"]), classes), "bias": (classes,)}
    if "held_out" in tensors:
        rows = len(tensors["held_out"]) if tensors["held_out"].ndim else 0
        shapes["held_out"] = (rows if rows in (train, validation) else train + validation, classes)
    check_tensors(tensors, shapes, path)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    probe = Probe(arrays["centre"], arrays["weight"], arrays["bias"])
    return FittedProbe(probe, arrays.get("held_out"))


def _shrunk(probe: Probe, features: Floats) -> Probe:
    """The probe with all logits scaled by one factor so that float32 scores stay apart: no rank and no sign changes."""
    logits = features @ probe.weight + probe.bias
    factor = min(1.0, LARGEST_LOGIT / max(float(np.abs(logits).max(initial=0)), 1e-12))
    return Probe(probe.centre, probe.weight * factor, probe.bias * factor)
