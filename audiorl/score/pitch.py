"""Pitch and harmonicity of speech, by autocorrelation.

After Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise
ratio of a sampled sound" (1993): the autocorrelation of a windowed frame over that of the window.
His path search is replaced by two passes (De Looze and Hirst, 2008): the second looks only where
the quartiles of the first say that this voice is, which rules out most errors of an octave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LOWEST, HIGHEST = 60.0, 500.0  # Hz
SHIFT = 0.01  # s
PERIODS = 3  # of the lowest pitch in a frame
VOICED = 0.45  # least autocorrelation
QUIET = 1e-3  # frames with less power than this share of the loudest are no speech
OCTAVE_COST = 0.03  # in autocorrelation: of two pitches that fit alike the higher is meant
CLEAREST = 1 - 1e-4  # autocorrelation that counts as most: 40 dB


@dataclass(frozen=True)
class Pitch:
    """Pitch of the voiced frames, in order."""

    f0: np.ndarray  # [V], Hz
    harmonicity: np.ndarray  # [V], dB: harmonics to noise

    @property
    def spread(self) -> float:
        """Return the standard deviation of F0 in semitones, alike for low and high voices."""
        return float(np.std(12 * np.log2(self.f0))) if len(self.f0) else 0.0


def find_pitch(wave: np.ndarray, rate: int) -> Pitch:
    """Return the pitch of `wave` [S] at `rate` Hz; of length 0 without a voiced frame."""
    correlation, loud = _autocorrelation(wave, rate)
    f0, strength = _peaks(correlation, rate, LOWEST, HIGHEST)
    voiced = loud & (strength > VOICED)
    if voiced.any():
        low, high = np.quantile(f0[voiced], [0.25, 0.75])
        f0, strength = _peaks(correlation, rate, max(0.75 * low, LOWEST), min(1.5 * high, HIGHEST))
        voiced = loud & (strength > VOICED)
    clear = np.clip(strength[voiced], VOICED, CLEAREST)
    return Pitch(f0[voiced], 10 * np.log10(clear / (1 - clear)))


def _autocorrelation(wave: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the normalised autocorrelation [T, lags] of each frame, and if it is loud [T]."""
    width, shift = int(PERIODS * rate / LOWEST), int(SHIFT * rate)
    lags = int(rate / LOWEST) + 2
    if len(wave) < width:
        return np.zeros((0, lags)), np.zeros(0, bool)
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), width)[::shift]
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = (frames**2).mean(axis=1)
    window = np.hanning(width + 2)[1:-1]
    size = 1 << (width + lags - 1).bit_length()

    def correlate(signal: np.ndarray) -> np.ndarray:
        products = np.fft.irfft(np.abs(np.fft.rfft(signal, size)) ** 2)[..., :lags]
        return products / np.maximum(products[..., :1], 1e-20)

    return correlate(frames * window) / correlate(window), power > QUIET * power.max()


def _peaks(
    correlation: np.ndarray, rate: int, low: float, high: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best pitch of each frame between two frequencies: F0 [T] in Hz, strength [T]."""
    lags = np.arange(max(int(rate / high), 1), min(int(rate / low) + 1, correlation.shape[1] - 1))
    before, here, after = (correlation[:, lags + d] for d in (-1, 0, 1))  # [T, candidates]
    summit = (here >= before) & (here > after)
    worth = np.where(summit, here - OCTAVE_COST * np.log2(lags), -np.inf)
    place = worth.argmax(axis=1)
    rows = np.arange(len(correlation))
    a, b, c = (values[rows, place] for values in (before, here, after))
    # A parabola through the peak and its neighbours finds it between the samples.
    bend = np.minimum(a - 2 * b + c, -1e-12)
    offset = np.clip(0.5 * (a - c) / bend, -0.5, 0.5)
    strength = np.where(summit.any(axis=1), b - 0.25 * (a - c) * offset, 0.0)
    return rate / (lags[place] + offset), strength
