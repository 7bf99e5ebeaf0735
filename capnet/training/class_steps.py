"""Which prompts a training step encodes: all, each process its share, or some while the others keep their features."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from capnet.model.capnet import CapNet
from capnet.runtime import Machine
from capnet.training.distributed import ProcessGroup


class ClassSteps:
    """Encodes the prompts of ``model`` step by step: all classes, or as many as ``train.prompt.classes_per_step``.

    Classes take turns: those with a positive in the batch come first, and among equals those that waited longest.

    Attributes:
        kept: ``features`` [class, embed] as they were last encoded and ``turn`` [class], when that was; both belong to
            the state of a training. Empty where every step encodes all classes.
    """

    def __init__(self, model: CapNet, machine: Machine, process_group: ProcessGroup) -> None:
        self.prompt, self.text, self.machine, self.group = model.prompt, model.towers.text, machine, process_group
        self.n_classes, self.limit = model.n_classes, model.settings.prompt.classes_per_step
        self.kept: dict[str, Tensor] = {}
        if self.prompt is not None and 0 < self.limit < self.n_classes:
            with torch.no_grad():
                features = self._encode(np.arange(self.n_classes))
            self.kept = {"features": features, "turn": torch.zeros(self.n_classes, dtype=torch.float64)}

    def encode(self, positive: Tensor) -> Tensor:
        """Un-normalised text features of all classes for one step.

        Args:
            positive: bool [class], true where the batch shows the class.

        Returns:
            float32 [class, embed]; only the classes encoded in this step carry a gradient.
        """
        if not self.kept:
            return self._encode(np.arange(self.n_classes))
        kept, turn = self.kept["features"], self.kept["turn"]
        chosen = np.sort(np.lexsort((turn.numpy(), ~positive.numpy()))[: self.limit])
        encoded = self._encode(chosen)
        index = torch.from_numpy(chosen)
        turn[index] = turn.max() + 1
        index = index.to(kept.device)
        features = kept.index_copy(0, index, encoded)
        kept.index_copy_(0, index, encoded.detach())
        return features

    def _encode(self, classes: np.ndarray) -> Tensor:
        """Features [chosen class, embed], of which each process encodes its share."""
        prompt = self.prompt
        assert prompt is not None

        def encode(share: np.ndarray) -> Tensor:
            with self.machine.autocast():
                index = None if len(share) == self.n_classes else torch.from_numpy(share).to(prompt.context.device)
                return prompt(self.text, index).float()

        rows = np.resize(classes, max(len(classes), self.group.size))  # fewer classes than processes: some twice
        return self.group.gather_features(rows, encode)[: len(classes)]
