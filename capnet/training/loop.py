"""The training loop: cosine schedule, clipping, selection, resume; the same bits whether interrupted or not."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from capnet.config import Loss, Train
from capnet.errors import DataError
from capnet.model.capnet import CapNet, Precision
from capnet.model.losses import multilabel_loss
from capnet.progress import bar
from capnet.training import checkpoint
from capnet.training.distributed import ALONE, ProcessGroup
from capnet.training.samplers import class_aware, shuffled

SAVE_EVERY_SECONDS = 2.0  # between two checkpoints
# and that many times as long as the last one took: where a volume is slow, saving still costs 3 % at most
SAVE_PAUSE = 30.0

said = logging.getLogger(__name__)


class Pictures(Protocol):
    """Where training pictures come from: pooled features [batch, pooled] of some rows, with gradient where adapters
    need it.
    """

    def pooled(self, rows: np.ndarray, epoch: int) -> Tensor: ...


@dataclass(frozen=True)
class Labels:
    """Training labels: ``targets`` and ``known`` bool [row, class], ``image_ids`` [row] for messages."""

    targets: Tensor
    known: Tensor
    image_ids: Sequence[str]

    @property
    def counts(self) -> Tensor:
        """Known positives per class [class]."""
        return (self.targets & self.known).sum(dim=0)


@dataclass(frozen=True)
class Fit:
    """What training gives: the chosen epoch's tensors and one history row per epoch."""

    tensors: dict[str, Tensor]
    history: list[dict[str, float]]
    selected_epoch: int


def fit(
    model: CapNet,
    pictures: Pictures,
    labels: Labels,
    settings: Train,
    seed: int,
    folder: Path,
    validate: Callable[[CapNet], dict[str, float]] | None = None,
    what: str = "training",
    prompt_precision: Precision = nullcontext,
    log: Callable[[Mapping[str, float], int], None] | None = None,
    group: ProcessGroup = ALONE,
) -> Fit:
    """Train ``model`` in place, continuing from ``folder`` where an earlier run was interrupted.

    ``log`` gets loss, learning rate and validation means after every epoch, with the epoch's number.
    ``validate`` gives ``val_mAP`` and more after an epoch; without it, or with ``select: last``, the last epoch is
    kept. With several processes in ``group`` each calls this; the first one validates, logs and keeps checkpoints, all
    return the same. Raises DataError where the loss stops being finite, naming the pictures of that batch.
    """

    def encode(rows: np.ndarray, epoch: int) -> Tensor:
        return model.encode(pictures.pooled(rows, epoch))

    parameters: dict[str, Tensor] = dict(model.named_parameters())
    # which has a loss of its own
    clipped = [parameter for name, parameter in parameters.items() if not name.startswith("class_head.")]
    optimiser = make_optimiser(model, settings)
    device = model.logit_scale.device
    targets, known, counts = labels.targets.to(device), labels.known.to(device), labels.counts.to(device)
    n_rows = len(targets)
    steps_per_epoch = math.ceil(n_rows / settings.batch_size)
    total_steps = steps_per_epoch * settings.epochs
    folder = folder if group.is_main_process else folder / f"process{group.rank}"
    path = folder / "checkpoint.safetensors"
    with checkpoint.lock(folder), bar(what, total_steps) as advance:
        checkpoint.share(path, group)
        progress = checkpoint.load(path, parameters, optimiser)
        if progress.step and group.is_main_process:
            said.info("%s goes on after step %d of %d of an earlier run", what, progress.step, total_steps)
        advance(progress.step)
        saved, pause = time.monotonic(), SAVE_EVERY_SECONDS

        def keep() -> None:
            nonlocal saved, pause
            now = time.monotonic()
            if group.is_main_process and now - saved > pause:
                checkpoint.save(path, progress, parameters, optimiser)
                saved = time.monotonic()
                pause = max(SAVE_EVERY_SECONDS, SAVE_PAUSE * (saved - now))

        for epoch in range(progress.epoch + 1, settings.epochs + 1):
            order = (
                class_aware(labels.targets.numpy(), seed, epoch)
                if settings.sampler == "class_aware"
                else shuffled(n_rows, seed, epoch)
            )
            for rows in np.array_split(order, steps_per_epoch)[len(progress.losses) :]:
                set_learning_rates(optimiser, progress.step, total_steps, settings.optimiser.warmup)
                features = group.features(rows, partial(encode, epoch=epoch))
                batch = torch.from_numpy(rows).to(device)
                measure = partial(batch_loss, targets=targets[batch], known=known[batch], counts=counts, n_rows=n_rows)
                loss, logits = model.losses(features, model.class_features(prompt_precision), measure)
                value = float(loss.detach())
                if not math.isfinite(value):
                    raise _not_finite(logits, [labels.image_ids[int(row)] for row in rows], epoch)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                group.sum_gradients(parameters)
                torch.nn.utils.clip_grad_norm_(clipped, settings.optimiser.clip)
                optimiser.step()
                progress.losses.append(value)
                progress.step += 1
                advance(note=f"epoch {epoch} loss {value:.4f}")
                keep()
            row = {"epoch": float(epoch), "step": float(progress.step), "loss": float(np.mean(progress.losses))}
            if validate is not None and (epoch % settings.validate_every == 0 or epoch == settings.epochs):
                row |= json.loads(
                    group.broadcast(json.dumps(validate(model)).encode() if group.is_main_process else b"")
                )
                if settings.select == "val_map" and row["val_mAP"] > progress.best_value:
                    progress.best_value, progress.best_epoch, progress.best = (
                        row["val_mAP"],
                        epoch,
                        model.trained_tensors(),
                    )
            progress.history.append(row)
            progress.epoch, progress.losses = epoch, []
            if log is not None and group.is_main_process:
                log(_told(row, optimiser), epoch)
            keep()
        if group.is_main_process:
            checkpoint.save(path, progress, parameters, optimiser)
    if progress.best:
        model.load_trained(progress.best, str(path))
        return Fit(progress.best, progress.history, progress.best_epoch)
    return Fit(model.trained_tensors(), progress.history, settings.epochs)


def batch_loss(logits: Tensor, settings: Loss, targets: Tensor, known: Tensor, counts: Tensor, n_rows: int) -> Tensor:
    """``multilabel_loss`` of a batch with the arguments in the order in which the model gives them."""
    return multilabel_loss(logits, targets, counts, n_rows, settings, known)


def _told(row: Mapping[str, float], optimiser: torch.optim.Optimizer) -> dict[str, float]:
    means = {f"val/{name.removeprefix('val_')}": value for name, value in row.items() if name.startswith("val_")}
    return {
        "train/loss": row["loss"],
        "train/learning_rate": max(group["lr"] for group in optimiser.param_groups),
        **means,
    }


def _not_finite(logits: Tensor, image_ids: list[str], epoch: int) -> DataError:
    """Names the pictures whose scores broke first, else the whole batch."""
    finite = torch.isfinite(logits.detach()).all(dim=1).tolist()
    broken = [name for name, fine in zip(image_ids, finite, strict=True) if not fine] or image_ids
    shown = ", ".join(broken[:8]) + (f" and {len(broken) - 8} more" if len(broken) > 8 else "")
    return DataError(
        f"the loss stopped being a number in epoch {epoch}",
        f"pictures {shown}",
        "look at these pictures, or lower the learning rates in train.optimiser",
    )


def make_optimiser(model: CapNet, settings: Train) -> torch.optim.AdamW:
    """AdamW with one learning rate per part; weight decay on matrices only."""
    rates = settings.optimiser
    by_part = {
        "prompt": rates.lr_prompt,
        "gcn": rates.lr_gcn,
        "logit_scale": rates.lr_head,
        "logit_bias": rates.lr_head,
    }
    by_part |= {
        "class_head.weight": rates.lr_class_head,
        "class_head.logit_scale": rates.lr_head,
        "class_head.logit_bias": rates.lr_head,
    }
    groups = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".")[0]
        matrix = parameter.dim() >= 2 and part != "prompt"
        rate = by_part.get(name, by_part.get(part, rates.lr_adapter))
        decay = settings.class_head.weight_decay if part == "class_head" else rates.weight_decay
        groups.append({"params": [parameter], "lr": rate, "rate": rate, "weight_decay": decay if matrix else 0.0})
    return torch.optim.AdamW(groups)


def set_learning_rates(optimiser: torch.optim.Optimizer, step: int, total: int, warmup: float) -> None:
    """Linear warm-up over the first share of the steps, then cosine to zero; ``step`` counts from 0."""
    rising = max(1, round(total * warmup))
    factor = (
        (step + 1) / rising
        if step < rising
        else 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))
    )
    for group in optimiser.param_groups:
        group["lr"] = group["rate"] * factor
