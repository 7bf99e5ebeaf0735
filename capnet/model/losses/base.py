"""What every loss is made of: its settings, which carry its function."""

from __future__ import annotations

from typing import TYPE_CHECKING

from capnet.section import Section

if TYPE_CHECKING:
    from torch import Tensor


class Loss(Section):
    """Settings of a loss. A subclass adds ``name: Literal["..."]``, settings of its own and ``compute``.

    Settings are read before anything is computed, so files of this package import torch inside functions only.
    """

    name: str = ""

    def compute(self, logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, known: Tensor) -> Tensor:
        """The loss of a batch; ``multilabel_loss`` has prepared the arguments.

        Args:
            logits: un-normalised scores, float [image, class].
            targets: 0 or 1 in the logits' type, [image, class]; 0 where the label is unknown.
            counts: training positives of each class in the logits' type, [class].
            n_images: number of training images.
            known: bool [image, class]; only these entries may have an effect.

        Returns:
            A scalar, usually the ``masked_mean`` of elements [image, class].

        Raises:
            NotImplementedError: the subclass has none.
        """
        raise NotImplementedError(f"{type(self).__name__} has no compute")


def multilabel_loss(
    logits: Tensor, targets: Tensor, counts: Tensor, n_images: int, settings: Loss, known: Tensor | None = None
) -> Tensor:
    """Mean training loss over the known entries of a batch.

    Args:
        logits: un-normalised scores, float [image, class].
        targets: 0 or 1, or bool, [image, class].
        counts: training positives of each class, [class].
        n_images: number of training images.
        settings: the loss.
        known: bool [image, class], the entries that count; all without it.

    Returns:
        A scalar in the logits' type.
    """
    import torch

    targets = targets.to(logits.dtype)
    known = torch.ones_like(targets, dtype=torch.bool) if known is None else known
    targets = targets * known  # an unknown label is no positive either
    return settings.compute(logits, targets, counts.to(logits), n_images, known)


def masked_mean(elements: Tensor, known: Tensor) -> Tensor:
    """Mean of the elements [image, class] that are known; the others have no value and no gradient."""
    import torch

    return torch.where(known, elements, torch.zeros_like(elements)).sum() / known.sum().clamp(min=1)
