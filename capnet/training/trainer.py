"""The trainer: fits CapNet to the training rows and can resume at any step; on a CPU the same bits whether a run was
interrupted or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capnet.config import Loss, Params
from capnet.contracts import Classes, LabelGraph, known_labels
from capnet.data.images.stored_features import Features
from capnet.model.capnet import CapNet, EncodePrompts
from capnet.model.losses import multilabel_loss
from capnet.model.towers import Towers
from capnet.progress import bar, note
from capnet.runtime import Machine
from capnet.training.checkpoint import Checkpoint, Progress, lock
from capnet.training.class_steps import ClassSteps
from capnet.training.distributed import SINGLE_PROCESS, ProcessGroup
from capnet.training.images import CachedFeatures, DecodedImages, TrainingImages
from capnet.training.late_losses import LateLosses
from capnet.training.optimiser import make_optimiser, make_schedule
from capnet.training.samplers import batches
from capnet.training.tower_features import TowerFeatures

REDUCED = 1.5  # shorter side of an image before it is cut for a trained tower, as a multiple of the tower's input

Log = Callable[[Mapping[str, float], int], None]
Validate = Callable[[CapNet], dict[str, float]]


@dataclass(frozen=True)
class Labels:
    """Labels of a table: ``targets``, none of them unknown, and ``known`` bool [row, class]; ``image_ids`` [row]."""

    targets: Tensor
    known: Tensor
    image_ids: Sequence[str]

    @cached_property
    def counts(self) -> Tensor:
        """Known positives per class [class]."""
        return self.targets.sum(dim=0)

    def to(self, device: torch.device) -> Labels:
        return Labels(self.targets.to(device), self.known.to(device), self.image_ids)


@dataclass(frozen=True)
class Fit:
    """What training gives: the selected epoch's tensors and one history row per epoch."""

    tensors: dict[str, Tensor]
    history: list[dict[str, float]]
    selected_epoch: int


@dataclass(frozen=True)
class Trainer:
    """Everything that trainings on one data set share; ``label_graph`` is over ``classes``, images lie in ``root``."""

    params: Params
    classes: Classes
    label_graph: LabelGraph
    towers: Towers
    machine: Machine
    root: Path
    process_group: ProcessGroup = SINGLE_PROCESS

    def new_model(self) -> CapNet:
        """An untrained model; equal seeds give equal models."""
        torch.manual_seed(self.params.runtime.seed)
        adjacency, text_features = self.label_graph.adjacency, self.label_graph.text_features
        model = CapNet(self.towers, self.classes.prompt_names, adjacency, text_features, self.params.train)
        return model.to(self.machine.device)

    def labels(self, rows: pd.DataFrame) -> Labels:
        """Labels of ``rows``, whose columns labels and unknown list class indices."""
        targets, known = map(torch.from_numpy, known_labels(rows, len(self.classes)))
        return Labels(targets, known, rows["image_id"].tolist())

    @cached_property
    def features(self) -> TowerFeatures:
        """Tower features of the images of this data set."""
        return TowerFeatures(self.params, self.towers, self.machine, self.root, self.process_group)

    def fit(
        self,
        model: CapNet,
        rows: pd.DataFrame,
        views: Features | None,
        folder: Path,
        plain: Features | None = None,
        validate: Validate | None = None,
        what: str = "training",
        log: Log | None = None,
        last_epoch: int | None = None,
    ) -> Fit:
        """Train ``model`` in place, continuing from ``folder`` where an earlier run was interrupted.

        Each process of the group calls this; all return the same.

        Args:
            model: from ``new_model``.
            rows: training rows.
            views: their features [row, view, pooled] for a frozen tower, their tokens [row, view, token, width] for one
                whose last blocks are trained; without them images are decoded.
            folder: for checkpoints.
            plain: features [row, view, pooled] in the tower without adapters, for statistics and start values; used
                for a tower that is trained.
            validate: gives ``val_mAP`` and more after an epoch; without it, or with ``select: last``, the last epoch is
                selected.
            what: names this training in the log.
            log: gets loss, next learning rate and validation means after every epoch, with the epoch's number.
            last_epoch: stop after it, on the schedule of ``train.epochs``; None trains to the end of that.

        Returns:
            The selected epoch, which is also what ``model`` holds then.

        Raises:
            DataError: the loss stops being finite; names the images of that batch.
        """
        settings, seed, group = self.params.train, self.params.runtime.seed, self.process_group
        labels, images = self.labels(rows), self._images(model, rows, views)
        prepared = views if views is not None and model.tower_is_frozen else plain
        if prepared is not None:
            model.prepare_for(prepared, labels.targets, labels.known)
        if self.params.runtime.compile:
            self.towers.compile()
        on_device = labels.to(self.machine.device)
        optimiser, prompts = make_optimiser(model, settings), ClassSteps(model, self.machine, group)
        steps, last = math.ceil(len(rows) / settings.batch_size), last_epoch or settings.epochs
        with lock(folder) if group.is_main_process else nullcontext(), bar(what, last * steps) as advance:
            path = folder / "checkpoint.safetensors"
            kept = {f"kept.{name}": tensor for name, tensor in prompts.kept.items()}
            checkpoint = Checkpoint(path, dict(model.named_parameters()) | kept, optimiser, group)
            progress = checkpoint.load()
            begins = group.is_main_process and not progress.step
            losses = LateLosses(self.machine.device, labels.image_ids, begins)
            schedule = make_schedule(optimiser, settings.optimiser.warmup, settings.epochs * steps, progress.step)
            if progress.step and group.is_main_process:
                note(f"{what} goes on after step {progress.step} of {last * steps} of an earlier run")
            advance(progress.step)
            for epoch in range(progress.epoch + 1, last + 1):
                todo = batches(labels.targets.numpy(), settings, seed, epoch)[len(progress.losses) :]
                images.announce([group.share(batch) for batch in todo], epoch)
                for batch in todo:
                    encode = partial(prompts.encode, positive=labels.targets[batch].any(dim=0))
                    losses.add(*self.step(model, optimiser, images, encode, on_device, batch, epoch), batch)
                    schedule.step()
                    progress.step += 1
                    if losses.due:
                        progress.losses += losses.fetch(epoch)
                        checkpoint.save_if_due(progress)
                    advance(note=f"epoch {epoch} loss {progress.losses[-1]:.4f}" if progress.losses else "")
                progress.losses += losses.fetch(epoch)
                measures = epoch % settings.validate_every == 0 or epoch == last
                row = self._end_epoch(model, progress, epoch, validate if measures else None)
                if log is not None and group.is_main_process:
                    log(_logged(row, optimiser), epoch)
                checkpoint.save_if_due(progress)
            checkpoint.save(progress)
        if progress.best:
            model.load_trained(progress.best, str(path))
            return Fit(progress.best, progress.history, progress.best_epoch)
        return Fit(model.trained_tensors(), progress.history, last)

    def _end_epoch(self, model: CapNet, progress: Progress, epoch: int, validate: Validate | None) -> dict[str, float]:
        """Add the epoch to the history, and keep the model where it is the best so far; returns the epoch's row."""
        row = {"epoch": float(epoch), "step": float(progress.step), "loss": float(np.mean(progress.losses))}
        if validate is not None:
            row |= self.process_group.broadcast(validate(model) if self.process_group.is_main_process else {})
            if self.params.train.select == "val_map" and row["val_mAP"] > progress.best_value:
                progress.best_value, progress.best_epoch = row["val_mAP"], epoch
                progress.best = model.trained_tensors()
        progress.history.append(row)
        progress.epoch, progress.losses = epoch, []
        return row

    def _images(self, model: CapNet, rows: pd.DataFrame, views: Features | None) -> TrainingImages:
        runtime, machine = self.params.runtime, self.machine
        if views is not None:
            finished = None if model.tower_is_frozen else partial(self.features.pooled_of_tokens, model)
            return CachedFeatures(views, machine.device, runtime.seed, finished)
        transform = replace(self.features.transform(random_views=1), reduce=REDUCED)
        return DecodedImages(model, rows, self.root, transform, machine, runtime.seed, runtime.threads)

    def step(
        self,
        model: CapNet,
        optimiser: torch.optim.Optimizer,
        images: TrainingImages,
        encode_prompts: EncodePrompts,
        labels: Labels,
        batch: np.ndarray,
        epoch: int,
    ) -> tuple[Tensor, Tensor]:
        """One update on some rows.

        Args:
            model, optimiser, images, labels: of this training, on its device.
            encode_prompts: as in ``CapNet.class_features``.
            batch: int [image], rows of the table.
            epoch: from 1 on.

        Returns:
            Their loss and logits [image, class] before the update, not fetched.
        """
        rows = torch.from_numpy(batch).to(labels.targets.device, non_blocking=True)

        def measure(logits: Tensor, settings: Loss) -> Tensor:
            n_rows = len(labels.targets)
            return multilabel_loss(logits, labels.targets[rows], labels.counts, n_rows, settings, labels.known[rows])

        encoded = self.process_group.gather_features(batch, lambda share: model.encode(images.pooled(share, epoch)))
        loss, logits = model.losses(encoded, model.class_features(encode_prompts), measure)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        parameters = dict(model.named_parameters())
        self.process_group.sum_gradients(parameters)
        # the class head has a loss of its own
        clipped = [parameter for name, parameter in parameters.items() if not name.startswith("class_head.")]
        torch.nn.utils.clip_grad_norm_(clipped, self.params.train.optimiser.clip)
        optimiser.step()
        return loss, logits


def _logged(row: Mapping[str, float], optimiser: torch.optim.Optimizer) -> dict[str, float]:
    means = {f"val/{name.removeprefix('val_')}": value for name, value in row.items() if name.startswith("val_")}
    rate = max(group["lr"] for group in optimiser.param_groups)
    return {"train/loss": row["loss"], "train/learning_rate": rate, **means}
