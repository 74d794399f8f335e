"""From waves to normalised mel features, and SpecAugment on them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchaudio
from espnet2.asr.specaug.specaug import SpecAug
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.model import FrontendConfig

FRAME_LENGTH, FRAME_SHIFT = 25.0, 10.0  # ms
TIME_MASK_WIDTH = 0.05  # of the widest time mask, as a share of the utterance


class Frontend(nn.Module):
    """Waves [B, S] to log-mel features [B, T, n_mels], mean-normalised by utterance.

    A frame is made of whole samples of its own utterance only (no centring, no reflection), so an
    utterance's features do not depend on what it is batched with.
    """

    def __init__(self, config: FrontendConfig, sample_rate: int) -> None:
        super().__init__()
        self.config = config
        self.hop = int(sample_rate * FRAME_SHIFT * 0.001)
        self.window = int(sample_rate * FRAME_LENGTH * 0.001)
        self.fft_size = 1 << (self.window - 1).bit_length()
        self.mel = torchaudio.transforms.MelSpectrogram(
            sample_rate,
            n_fft=self.fft_size,
            win_length=self.window,
            hop_length=self.hop,
            n_mels=config.n_mels,
            center=False,
        )
        self.specaug = _specaug(config)

    def num_frames(self, samples: Tensor) -> Tensor:
        """Return the numbers of frames [B] of waves with this many samples [B]."""
        return (samples - self.fft_size).clamp(min=0) // self.hop + 1

    def num_samples(self, frames: int) -> int:
        """Return the samples of the shortest wave with this many frames."""
        return self.fft_size + (frames - 1) * self.hop

    def pad(
        self, waves: Sequence[Tensor], frames: int, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return waves [S_i] as a batch [B, S], with silence up to `frames`, and samples [B]."""
        shortest = self.num_samples(frames)
        samples = torch.tensor([max(len(wave), shortest) for wave in waves], device=device)
        padded = pad_sequence([wave.to(device) for wave in waves], batch_first=True)
        return F.pad(padded, (0, max(0, shortest - padded.size(1)))), samples

    @torch.no_grad()
    def forward(self, waves: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Return features [B, T, n_mels], frames [B] of waves [B, S] in -1..1, samples [B]."""
        frames = self.num_frames(samples)
        features = self.mel(waves).clamp(min=1e-10).log().transpose(1, 2)
        real = torch.arange(features.size(1), device=features.device) < frames[:, None]  # [B, T]
        features = features * real[..., None]
        mean = features.sum(1, keepdim=True) / frames[:, None, None]
        # Four is about the spread of log-mel values: features of unit size suit the encoder.
        features = (features - mean) * real[..., None] / 4
        if self.training and self.specaug is not None:
            features, _ = self.specaug(features, frames)
        return features, frames


def _specaug(config: FrontendConfig) -> SpecAug | None:
    time = config.time_masks > 0
    freq = config.freq_masks > 0 and config.freq_mask_width > 0
    if not (time or freq):
        return None
    return SpecAug(
        apply_time_warp=False,
        apply_freq_mask=freq,
        freq_mask_width_range=config.freq_mask_width,
        num_freq_mask=config.freq_masks,
        apply_time_mask=time,
        time_mask_width_ratio_range=TIME_MASK_WIDTH,
        num_time_mask=config.time_masks,
    )
