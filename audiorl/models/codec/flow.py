"""From tokens and a speaker vector to log-mel frames: conditional flow matching."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.codec import FlowShape
from audiorl.models.codec.blocks import ConvBlock
from audiorl.models.codec.speaker import SPEAKER_SIZE

TIME_SIZE = 64  # sines and cosines of the flow's time
TOKEN_BLOCKS, DRAFT_BLOCKS = 2, 2  # layers at the rate of tokens; of frames, for the draft
UNINFORMED = 0.1  # share of the utterances that the flow learns without draft and speaker


class FlowDecoder(nn.Module):
    """Codes [B, T, dims] and speakers [B, S] to log-mel frames [B, stride * T, n_mels].

    A path leads straight from noise x_0 to the frames x_1, x_t = (1 - t) x_0 + t x_1, and the
    network learns its velocity x_1 - x_0 at every t (optimal-transport flow matching, Lipman et
    al., ICLR 2023). To speak is to follow the velocity from t = 0 to 1 in Euler steps. The codes
    are read at their own rate first and then interpolated to that of the frames (CosyVoice 3).
    A draft, the mean of the frames given codes and voice, is made first, and the flow reads it: a
    small network learns much faster so (Matcha-TTS, Mehta et al., ICASSP 2024).
    """

    def __init__(self, config: FlowShape, dims: int, n_mels: int, stride: int) -> None:
        super().__init__()
        self.config = config
        self.stride = stride
        size = config.hidden_size
        self.codes = nn.Linear(dims, size)
        self.token_blocks = nn.ModuleList(ConvBlock(size) for _ in range(TOKEN_BLOCKS))
        self.speaker = nn.Linear(SPEAKER_SIZE, size)
        self.draft_blocks = nn.ModuleList(
            ConvBlock(size, condition_size=size) for _ in range(DRAFT_BLOCKS)
        )
        self.draft = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, n_mels))
        self.time = nn.Sequential(nn.Linear(TIME_SIZE, size), nn.SiLU(), nn.Linear(size, size))
        self.input = nn.Linear(2 * n_mels, size)
        self.blocks = nn.ModuleList(
            ConvBlock(size, condition_size=size) for _ in range(config.num_blocks)
        )
        self.norm = nn.LayerNorm(size)
        self.output = nn.Linear(size, n_mels)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def loss(
        self, mel: Tensor, frames: Tensor, codes: Tensor, lengths: Tensor, speakers: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return mean squared errors: of the velocity at one random time each, and of the draft.

        mel [B, stride * T, n_mels], normalised, of which `frames` [B] are real; codes [B, T, dims],
        of which `lengths` [B] are. A share of the utterances has neither codes nor speaker.
        """
        batch = len(mel)
        times = torch.rand(batch, device=mel.device)
        noise = torch.randn_like(mel)
        at = times[:, None, None]
        real = _real(lengths * self.stride, mel.size(1))
        draft = self._draft(codes, lengths, speakers, real)
        informed = torch.rand(batch, device=mel.device) >= UNINFORMED
        shown, speakers = draft * informed[:, None, None], speakers * informed[:, None]
        found = self._velocity((1 - at) * noise + at * mel, times, shown, speakers, real)
        wanted = _real(frames, mel.size(1))
        values = wanted.sum() * mel.size(-1)
        flow = ((found - (mel - noise)) ** 2 * wanted).sum() / values
        return flow, ((draft - mel) ** 2 * wanted).sum() / values

    def sample(self, codes: Sequence[Tensor], speakers: Tensor, seed: int) -> list[Tensor]:
        """Return normalised log-mel frames [stride * T_i, n_mels] of codes [T_i, dims].

        The noise of an utterance depends on `seed` and its length alone, and padding changes
        nothing: the same frames come out alone and in any batch. A `temperature` below 1, less
        noise than in training, gives likelier frames (as in Matcha-TTS).
        """
        device = speakers.device
        lengths = torch.tensor([len(row) for row in codes], device=device)
        counts = (lengths * self.stride).tolist()
        generators = [torch.Generator().manual_seed(seed) for _ in counts]
        n_mels = self.output.out_features
        noise = [
            torch.randn(n, n_mels, generator=g) for n, g in zip(counts, generators, strict=True)
        ]
        mel = self.config.temperature * pad_sequence(noise, batch_first=True).to(device)
        real = _real(lengths * self.stride, mel.size(1))
        draft = self._draft(pad_sequence(list(codes), batch_first=True), lengths, speakers, real)
        steps = self.config.euler_steps
        for step in range(steps):
            times = torch.full((len(counts),), step / steps, device=device)
            velocity = self._velocity(mel, times, draft, speakers, real)
            mel = mel + velocity / steps
        return [row[:n] for row, n in zip(mel, counts, strict=True)]

    def _draft(self, codes: Tensor, lengths: Tensor, speakers: Tensor, real: Tensor) -> Tensor:
        """Mean of the frames: codes [B, T, dims], speakers [B, S] -> [B, stride * T, n_mels]."""
        of_codes = _real(lengths, codes.size(1))
        hidden = self.codes(codes)
        for block in self.token_blocks:
            hidden = block(hidden, of_codes)
        # Interpolation must not reach into padding: the last token stands for what follows it.
        places = torch.arange(codes.size(1), device=codes.device).minimum(lengths[:, None] - 1)
        hidden = hidden.gather(1, places[..., None].expand_as(hidden))
        hidden = F.interpolate(
            hidden.transpose(1, 2), scale_factor=float(self.stride), mode="linear"
        ).transpose(1, 2)
        condition = F.silu(self.speaker(speakers))
        for block in self.draft_blocks:
            hidden = block(hidden, real, condition)
        return self.draft(hidden)

    def _velocity(
        self, mel: Tensor, times: Tensor, draft: Tensor, speakers: Tensor, real: Tensor
    ) -> Tensor:
        """mel, draft [B, N, n_mels], times [B], speakers [B, S], real [B, N, 1] -> as mel."""
        condition = F.silu(self.time(_waves(times)) + self.speaker(speakers))
        hidden = self.input(torch.cat([mel, draft], -1))
        for block in self.blocks:
            hidden = block(hidden, real, condition)
        return self.output(self.norm(hidden))


def _real(lengths: Tensor, longest: int) -> Tensor:
    """Mask of the positions that are no padding: [B] -> [B, longest, 1]."""
    return (torch.arange(longest, device=lengths.device) < lengths[:, None])[..., None]


def _waves(times: Tensor) -> Tensor:
    """Times [B] in 0..1 as sines and cosines of many frequencies [B, TIME_SIZE]."""
    half = TIME_SIZE // 2
    scale = torch.arange(half, device=times.device) / (half - 1)
    angles = times[:, None] * 1000 * torch.exp(-math.log(10_000) * scale)
    return torch.cat([angles.sin(), angles.cos()], -1)
