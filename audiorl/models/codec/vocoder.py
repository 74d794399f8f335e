"""From log-mel frames to a wave, with nothing to learn: Griffin-Lim, or the source of a voice."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.models.frontend import Frontend

SLOWEST_PULSES, FASTEST_PULSES = 70.0, 500.0  # Hz, of a pitch
JUMP_COST = 1.0  # in autocorrelation, of an octave between two frames of full loudness
NOISE, PULSES = 0.2, 0.5  # autocorrelation up to which a frame is noise, and from which pulses


class MelVocoder(nn.Module):
    """Log-mel frames [N_i, n_mels] to waves of as many samples as the frontend reads for N_i.

    The mel filters are inverted by least squares once, in place of torchaudio's InverseMelScale,
    which solves them anew for every batch.
    """

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.hop, self.size = frontend.hop, frontend.fft_size
        inverse = torch.linalg.pinv(frontend.mel.mel_scale.fb)  # [n_mels, bins]
        self.register_buffer("inverse", inverse, persistent=False)
        window = frontend.mel.spectrogram.window
        self.register_buffer("window", window, persistent=False)
        # Silent frames around each utterance, more than a window: padding beyond changes nothing.
        self.margin = self.size // self.hop + 1

    def _powers(self, log_mels: Sequence[Tensor]) -> Tensor:
        """Padded power spectra [B, margin + N + margin, bins]."""
        powers = [(mel.exp() @ self.inverse).clamp(min=0) for mel in log_mels]
        return F.pad(pad_sequence(powers, batch_first=True), (0, 0, self.margin, self.margin))

    def _cut(self, waves: Sequence[Tensor], log_mels: Sequence[Tensor]) -> list[Tensor]:
        """Waves of `_powers` without their margins, within -1..1."""
        # Their first frame has its middle at sample 0, the frontend's its beginning.
        start = self.margin * self.hop - self.size // 2
        counts = [self.size + (len(mel) - 1) * self.hop for mel in log_mels]
        return [w[start : start + n].clamp(-1, 1) for w, n in zip(waves, counts, strict=True)]


class GriffinLim(MelVocoder):
    """Phases that fit their neighbours, found by iterations that begin at 0: nothing is random."""

    def __init__(self, frontend: Frontend, steps: int) -> None:
        super().__init__(frontend)
        self.steps = steps

    def forward(self, log_mels: Sequence[Tensor]) -> list[Tensor]:
        """Return waves [S_i], from one padded batch."""
        waves = torchaudio.functional.griffinlim(
            self._powers(log_mels).transpose(1, 2),
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
        return self._cut(waves, log_mels)


class SourceFilter(MelVocoder):
    """Phases of the source of a voice: pulses at its pitch, noise where it has none (Dudley, 1939).

    Griffin-Lim's phases tear harmonics apart from frame to frame, which buzzes. Pulses keep them
    together. The pitch is read from the frames themselves: the autocorrelation that belongs to
    their power (Boersma, 1993), along the path through time that jumps least.
    """

    def __init__(self, frontend: Frontend) -> None:
        super().__init__(frontend)
        self.rate = frontend.mel.sample_rate
        own = torch.fft.irfft(torch.fft.rfft(self.window, self.size).abs() ** 2)
        self.lags = torch.arange(
            int(self.rate / FASTEST_PULSES), int(self.rate / SLOWEST_PULSES) + 1
        )
        self.register_buffer("decay", (own / own[0])[self.lags].clamp(min=0.05), persistent=False)

    def forward(self, log_mels: Sequence[Tensor]) -> list[Tensor]:
        """Return waves [S_i], each made by itself."""
        return self._cut([self._wave(self._powers([mel])[0]) for mel in log_mels], log_mels)

    def _wave(self, power: Tensor) -> Tensor:
        """Wave [(T - 1) * hop] of power spectra [T, bins]."""
        shape = {"n_fft": self.size, "hop_length": self.hop, "win_length": len(self.window)}
        source = torch.stft(
            self._source(*self.pitch(power)), **shape, window=self.window, return_complex=True,
            pad_mode="constant",
        )  # fmt: skip
        spectrum = torch.polar(power.T.sqrt(), source.angle())
        return torch.istft(spectrum, **shape, window=self.window)

    def pitch(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Return F0 in Hz and its strength (0 to about 1) of power spectra [T, bins]: [T] each."""
        whole = torch.fft.irfft(power)  # [T, size]
        strength = whole[:, self.lags] / whole[:, :1].clamp(min=1e-12) / self.decay
        octaves = self.lags.to(power.device).log2()
        costs = JUMP_COST * (octaves[:, None] - octaves).abs()
        loud = (whole[:, 0] / whole[:, 0].max().clamp(min=1e-12)).sqrt()
        score, before = strength[0] * loud[0], []
        for row, weight in zip(strength[1:], loud[1:], strict=True):
            best, origin = (score - costs).max(1)
            before.append(origin)
            score = best + row * weight
        path = [int(score.argmax())]
        for origin in reversed(before):
            path.append(int(origin[path[-1]]))
        chosen = torch.tensor(path[::-1], device=power.device)
        f0 = self.rate / self.lags.to(power.device)[chosen]
        return f0, strength.gather(1, chosen[:, None])[:, 0]

    def _source(self, f0: Tensor, strength: Tensor) -> Tensor:
        """Pulses and noise [(T - 1) * hop + 1] of about unit power: all harmonics in phase."""
        frames = torch.stack([f0, ((strength - NOISE) / (PULSES - NOISE)).clamp(0, 1)])[None]
        samples = (len(f0) - 1) * self.hop + 1
        f0, pulsed = F.interpolate(frames, samples, mode="linear", align_corners=True)[0]
        half = math.pi / self.rate * f0.double().cumsum(0)
        count = (0.5 * self.rate / f0).floor()
        sine = half.sin()
        near = sine.abs() < 1e-6
        sum_of_cosines = ((2 * count + 1) * half).sin() / sine.masked_fill(near, 1.0)
        pulses = torch.where(near, count, (sum_of_cosines - 1) / 2) / (count / 2).sqrt()
        noise = torch.randn(samples, generator=torch.Generator().manual_seed(0)).to(f0.device)
        return pulsed * pulses.float() + (1 - pulsed) * noise
