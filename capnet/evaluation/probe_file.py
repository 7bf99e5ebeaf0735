"""The linear probe as a file of the model folder: stage train fits it, stage evaluate reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from capnet.contracts import check_tensors, read_tensors, reading, write_tensors
from capnet.evaluation.baselines import FittedProbe
from capnet.evaluation.logistic import Probe


def write_probe(path: Path, fitted: FittedProbe) -> None:
    """Keep the probe that stage train fitted, so that stage evaluate need not fit it again."""
    import torch

    held_out = {"held_out": fitted.held_out, "held_out_known": fitted.held_out_known}
    arrays = vars(fitted.probe) | {name: item for name, item in held_out.items() if item is not None}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(item)) for name, item in arrays.items()}
    write_tensors(path, tensors, fitted.document())


def read_probe(path: Path) -> FittedProbe | None:
    """What ``write_probe`` wrote.

    Returns:
        The probe, or None where there is no such file.

    Raises:
        ContractError: the file is damaged.
    """
    if not path.is_file():
        return None
    tensors, _ = read_tensors(path)
    check_tensors(tensors, {"centre": (None,), "weight": (None, None), "bias": (None,)}, path)
    with reading(path):
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        probe = Probe(arrays["centre"], arrays["weight"], arrays["bias"])
        return FittedProbe(probe, arrays.get("held_out"), arrays.get("held_out_known"))
