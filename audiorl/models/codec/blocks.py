"""Layers of the flow decoder and of the speaker encoder."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 3
KERNEL = 7  # of the convolutions, in frames


class ConvBlock(nn.Module):
    """A ConvNeXt block over time (Liu et al., CVPR 2022): [B, T, size] -> [B, T, size].

    With a `condition_size`, its norm is scaled and shifted by a vector of time and speaker.
    Positions beyond the end of a sequence are read as 0, so that padding changes nothing.
    """

    def __init__(self, size: int, condition_size: int = 0) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(size, size, KERNEL, padding="same", groups=size)
        self.norm = nn.LayerNorm(size)
        self.modulation = nn.Linear(condition_size, 2 * size) if condition_size else None
        self.inner = nn.Linear(size, EXPANSION * size)
        self.outer = nn.Linear(EXPANSION * size, size)
        if self.modulation is not None:  # at first, as if there was no condition
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, hidden: Tensor, real: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the new states; real [B, T, 1]: True inside of a sequence; condition [B, size]."""
        mixed = self.depthwise((hidden * real).transpose(1, 2)).transpose(1, 2)
        mixed = self.norm(mixed)
        if self.modulation is not None:
            scale, shift = self.modulation(condition)[:, None].chunk(2, -1)
            mixed = mixed * (1 + scale) + shift
        return hidden + self.outer(F.gelu(self.inner(mixed)))
