"""The label-correlation graph: similarity of labels -> sparse, row-normalised adjacency (SCPNet, Ding et al., CVPR
2023).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize


def cosine_similarity(text_features: Tensor) -> Tensor:
    """Cosine matrix [class, class] of text features [class, embed]."""
    unit = normalize(text_features, dim=-1)
    return unit @ unit.T


def cooccurrence(labels: np.ndarray, known: np.ndarray) -> np.ndarray:
    """P(j | i): share of the images of class i that also show class j.

    Args:
        labels: bool [image, class].
        known: bool [image, class]; an image whose label j is not known does not count for column j.

    Returns:
        float64 [class i, class j]; a class without images has a row of zeros.
    """
    present = (labels & known).astype(np.float64)
    together, images = present.T @ present, present.T @ known.astype(np.float64)
    return np.divide(together, images, out=np.zeros_like(together), where=images > 0)


def blend(text: Tensor, counted: Tensor, counts: Tensor, half_count: float) -> Tensor:
    """Row-wise mix of both sources, each scaled to sum 1 off the diagonal.

    Args:
        text: similarity by the text tower, [class, class].
        counted: co-occurrence, [class, class].
        counts: n, training positives of each class, [class].
        half_count: n at which both weigh the same; co-occurrence weighs n / (n + half_count).

    Returns:
        Similarity [class, class] with ones on the diagonal.
    """
    trust = (counts / (counts + half_count)).unsqueeze(1).to(text)
    mixed = trust * _off_diagonal_shares(counted.to(text)) + (1 - trust) * _off_diagonal_shares(text)
    return mixed.fill_diagonal_(1.0)


def _off_diagonal_shares(matrix: Tensor) -> Tensor:
    off = matrix.clamp(min=0).fill_diagonal_(0.0)
    return off / off.sum(dim=1, keepdim=True).clamp(min=torch.finfo(off.dtype).tiny)


def neighbour_count(top_k: float, n_classes: int) -> int:
    """Entries kept per row, the class itself included: a share of the classes up to 1.0, a count above."""
    count = round(top_k * n_classes) if top_k <= 1.0 else int(top_k)
    return max(1, min(count, n_classes))


def linear_adjacency(similarity: Tensor, k: int, s: float) -> Tensor:
    """A: the k largest entries per row, the diagonal being one of them, rows scaled to s, diagonal 1 - s.

    Args:
        similarity: [class, class].
        k: entries kept per row.
        s: weight of the neighbours.

    Returns:
        [class, class], every row of sum 1: a class without any neighbour keeps all its weight on the diagonal.
    """
    off = similarity.clamp(min=0).fill_diagonal_(0.0)
    kept = torch.zeros_like(off)
    if k > 1:
        ranked = off.clone().fill_diagonal_(-1.0)  # never picks the diagonal
        columns = ranked.topk(k - 1, dim=1).indices
        kept.scatter_(1, columns, off.gather(1, columns))
    total = kept.sum(dim=1, keepdim=True)
    adjacency = s * kept / total.clamp(min=torch.finfo(kept.dtype).tiny)
    own = torch.where(total.squeeze(1) > 0, 1.0 - s, 1.0)
    return adjacency + torch.diag(own.to(adjacency))


def softmax_adjacency(linear: Tensor, tau: float) -> Tensor:
    """Row softmax of A / tau over the entries that A keeps.

    Args:
        linear: A, [class, class], from ``linear_adjacency``.
        tau: temperature; a small one leaves most of a row to its largest entries.

    Returns:
        S [class, class]; rows sum to 1.
    """
    return torch.softmax(torch.where(linear > 0, linear / tau, -torch.inf), dim=1)


def adjacency(similarity: Tensor, top_k: float, s: float, tau: float, normalisation: str) -> Tensor:
    """The matrix that the GCN uses, by the settings of section graph.

    Args:
        similarity: [class, class].
        top_k: entries kept per row, as ``neighbour_count`` reads it.
        s: weight of the neighbours in A.
        tau: temperature of S; A does not use it.
        normalisation: ``linear`` for A, ``softmax`` for S.

    Returns:
        [class, class]; rows sum to 1.
    """
    linear = linear_adjacency(similarity, neighbour_count(top_k, len(similarity)), s)
    return linear if normalisation == "linear" else softmax_adjacency(linear, tau)
