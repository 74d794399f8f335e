"""The speaker vector: the sound of a voice, taken from a recording of it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audiorl.config.codec import FlowShape
from audiorl.models.codec.blocks import ConvBlock

SPEAKER_SIZE = 64
BLOCKS = 2
LEAST_VARIANCE = 1e-4  # below the root, whose slope would be infinite at 0


class SpeakerEncoder(nn.Module):
    """Normalised log-mel frames [B, N, n_mels] to a vector [B, SPEAKER_SIZE] of length 1.

    Mean and standard deviation over time (statistics pooling) keep the voice and lose the words.
    It has no objective of its own: it learns what the flow decoder needs to know.
    """

    def __init__(self, config: FlowShape, n_mels: int) -> None:
        super().__init__()
        size = config.hidden_size // 2
        self.input = nn.Linear(n_mels, size)
        self.blocks = nn.ModuleList(ConvBlock(size) for _ in range(BLOCKS))
        self.output = nn.Linear(2 * size, SPEAKER_SIZE)

    def forward(self, mel: Tensor, lengths: Tensor) -> Tensor:
        """Return the vectors; lengths [B]: frames of each recording."""
        real = (torch.arange(mel.size(1), device=mel.device) < lengths[:, None])[..., None]
        hidden = self.input(mel)
        for block in self.blocks:
            hidden = block(hidden, real)
        count = lengths[:, None]
        mean = (hidden * real).sum(1) / count
        variance = ((hidden - mean[:, None]) ** 2 * real).sum(1) / count
        pooled = torch.cat([mean, (variance + LEAST_VARIANCE).sqrt()], -1)
        return F.normalize(self.output(pooled), dim=-1)
