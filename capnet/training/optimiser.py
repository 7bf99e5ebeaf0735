"""AdamW with a learning rate for each part of the model, and the schedule of all rates."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR

from capnet.config import Train
from capnet.config.train import Optimiser
from capnet.model.capnet import CapNet


def make_optimiser(model: CapNet, settings: Train) -> torch.optim.AdamW:
    """AdamW over the trained parameters, one group for each; weight decay is on matrices only.

    Args:
        model: whose parameters say by their names which part they belong to.
        settings: section train; learning rates and weight decay are those of ``optimiser`` and ``class_head``.

    Returns:
        The optimiser; each group keeps the highest learning rate of its part as ``initial_lr``, as torch's schedules
        expect.
    """
    groups = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = _learning_rate(name, settings.optimiser), settings.optimiser.weight_decay
        if name.startswith("class_head."):
            decay = settings.class_head.weight_decay
        if parameter.dim() < 2 or name.startswith("prompt."):
            decay = 0.0
        groups.append({"params": [parameter], "lr": rate, "initial_lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=True)


def make_schedule(optimiser: torch.optim.Optimizer, warmup: float, total: int, done: int) -> LambdaLR:
    """Linear warm-up, then cosine towards zero, at the rates of the next step.

    Args:
        optimiser: whose rates it sets.
        warmup: share of the steps in which the rates rise.
        total: steps of the whole training.
        done: steps of an earlier run, 0 for a new one.

    Returns:
        transformers' schedule without both of its ends, where rates are zero and a step would train nothing.
    """
    from transformers import get_cosine_schedule_with_warmup

    return get_cosine_schedule_with_warmup(optimiser, max(1, round(total * warmup)), total + 1, last_epoch=done)


def _learning_rate(name: str, rates: Optimiser) -> float:
    if name.endswith(("logit_scale", "logit_bias")):
        return rates.lr_head
    if name == "class_head.weight":
        return rates.lr_class_head
    by_part = {"prompt": rates.lr_prompt, "gcn": rates.lr_gcn}
    return by_part.get(name.split(".")[0], rates.lr_adapter)
