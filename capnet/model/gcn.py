"""Three-layer graph convolution (Kipf and Welling, ICLR 2017) over the label graph, in the layout of SCPNet (Ding et
al., CVPR 2023): its output is a residual on the text features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

SLOPE = 0.2  # LeakyReLU after layers 1 and 2


class LabelGcn(nn.Module):
    """H' = A (H W), no bias, embed -> hidden -> hidden -> embed; the last layer may start at zero.

    Args:
        adjacency: A, [class, class]; rows sum to 1.
        width: embed, that of the text features.
        hidden: width of both layers in between.
        zero_init: start the last layer at zero, so that the residual is zero at the start.
    """

    adjacency: Tensor  # [class, class]

    def __init__(self, adjacency: Tensor, width: int, hidden: int, zero_init: bool = True) -> None:
        super().__init__()
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.weights = nn.ParameterList()
        for inputs, outputs in ((width, hidden), (hidden, hidden), (hidden, width)):
            bound = outputs**-0.5
            self.weights.append(nn.Parameter(torch.empty(inputs, outputs).uniform_(-bound, bound)))
        if zero_init:
            nn.init.zeros_(self.weights[2])

    def forward(self, text_features: Tensor) -> Tensor:
        """Residual [class, embed] for text features [class, embed]."""
        h = text_features
        for index, weight in enumerate(self.weights):
            h = self.adjacency @ (h @ weight)
            if index < 2:
                h = leaky_relu(h, SLOPE)
        return h
