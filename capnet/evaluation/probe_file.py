"""The linear probe as a file of the model folder: stage train fits it, stage evaluate reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from capnet.contracts import check_tensors, read_tensors, reading, write_tensors
from capnet.evaluation.baselines import Chosen
from capnet.evaluation.logistic import Probe, Settings


def write_probe(path: Path, chosen: Chosen) -> None:
    """Keep the probe that stage train fitted, so that stage evaluate need not fit it again."""
    import torch

    held_out = {"held_out": chosen.held_out, "held_out_known": chosen.held_out_known}
    arrays = {"weight": chosen.probe.weight, "bias": chosen.probe.bias} | {
        name: item for name, item in held_out.items() if item is not None
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(item)) for name, item in arrays.items()}
    write_tensors(path, tensors, chosen.document())


def read_probe(path: Path) -> Chosen | None:
    """What ``write_probe`` wrote.

    Returns:
        The probe, or None where there is no such file.

    Raises:
        ContractError: the file is damaged.
    """
    if not path.is_file():
        return None
    tensors, metadata = read_tensors(path)
    check_tensors(tensors, {"weight": (None, None), "bias": (None,)}, path)
    with reading(path):
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        settings = Settings(metadata["standardise"], metadata["class_weight"], metadata["c"])
        probe = Probe(arrays["weight"], arrays["bias"])
        return Chosen(
            probe,
            settings,
            metadata["chosen_on"],
            metadata.get("selection_mAP", float("nan")),
            arrays.get("held_out"),
            arrays.get("held_out_known"),
        )
