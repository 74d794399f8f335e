"""Augmentation of recordings: gain, noise, and speed."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from audiorl.data.audio import resample

GAIN = 6.0  # dB, up or down
SNR = (5.0, 35.0)  # dB
SPECTRA = (0.0, 2.0)  # noise power falls with frequency to this power: white to brown


def augment(waves: Sequence[Tensor], noise: float) -> list[Tensor]:
    """Return waves [S_i] at a random gain, a share `noise` of them with coloured noise.

    Drawn from torch's generator: equal seeds give equal waves.
    """
    return [_augment(wave, noise) for wave in waves]


def _augment(wave: Tensor, noise: float) -> Tensor:
    gain, noisy, snr, colour = torch.rand(4).tolist()
    level = 10 ** (GAIN * (2 * gain - 1) / 20)
    if noisy >= noise:
        return level * wave
    added = coloured_noise(len(wave), SPECTRA[0] + colour * (SPECTRA[1] - SPECTRA[0]))
    decibels = SNR[0] + snr * (SNR[1] - SNR[0])
    return level * (wave + added * wave.square().mean().sqrt() * 10 ** (-decibels / 20))


def at_speeds(waves: Sequence[Tensor], speeds: Sequence[float], seed: str) -> list[Tensor]:
    """Return each wave [S_i] at one of the speeds, [S_i / speed]: tempo and pitch change.

    Equal seeds draw equal speeds (Ko et al., Interspeech 2015, with speeds of 0.9, 1.0 and 1.1).
    """
    draws = random.Random(seed)
    chosen = [round(100 * draws.choice(speeds)) for _ in waves]
    pairs = zip(waves, chosen, strict=True)
    return [w if s == 100 else torch.from_numpy(resample(w.numpy(), s, 100)) for w, s in pairs]


def coloured_noise(samples: int, exponent: float) -> Tensor:
    """Return noise [S] of power 1 that falls with frequency ** exponent (1 pink, 2 brown)."""
    spectrum = torch.fft.rfft(torch.randn(samples))
    frequency = torch.arange(len(spectrum)).clamp(min=1)
    shaped = torch.fft.irfft(spectrum * frequency ** (-exponent / 2), n=samples)
    return shaped / shaped.square().mean().sqrt().clamp(min=1e-9)
