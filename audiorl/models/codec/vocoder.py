"""From log-mel frames to a wave: Griffin-Lim, which has nothing to learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.models.frontend import Frontend


class GriffinLim(nn.Module):
    """Log-mel frames [N_i, n_mels] to waves of as many samples as the frontend reads for N_i.

    The mel filters are inverted by least squares once, in place of torchaudio's InverseMelScale,
    which solves them anew for every batch. Phases begin at 0, so that nothing is random.
    """

    def __init__(self, frontend: Frontend, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.hop, self.size = frontend.hop, frontend.fft_size
        inverse = torch.linalg.pinv(frontend.mel.mel_scale.fb)  # [n_mels, bins]
        self.register_buffer("inverse", inverse, persistent=False)
        window = frontend.mel.spectrogram.window
        self.register_buffer("window", window, persistent=False)
        # Silent frames around each utterance, more than a window: padding beyond changes nothing.
        self.margin = self.size // self.hop + 1

    def forward(self, log_mels: Sequence[Tensor]) -> list[Tensor]:
        """Return waves [S_i] within -1..1, from one padded batch."""
        powers = [(mel.exp() @ self.inverse).clamp(min=0) for mel in log_mels]
        padded = pad_sequence(powers, batch_first=True)  # [B, N, bins]
        padded = F.pad(padded, (0, 0, self.margin, self.margin))
        waves = torchaudio.functional.griffinlim(
            padded.transpose(1, 2),
            window=self.window,
            n_fft=self.size,
            hop_length=self.hop,
            win_length=len(self.window),
            power=2.0,
            n_iter=self.steps,
            momentum=0.99,
            length=None,
            rand_init=False,
        )
        # Griffin-Lim's first frame has its middle at sample 0, the frontend's its beginning.
        start = self.margin * self.hop - self.size // 2
        counts = [self.size + (len(mel) - 1) * self.hop for mel in log_mels]
        return [w[start : start + n].clamp(-1, 1) for w, n in zip(waves, counts, strict=True)]
