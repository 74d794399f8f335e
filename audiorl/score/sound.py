"""Measurements of speech without a trained model: its tempo, pitch, noise and spectrum.

These numbers stand beside the judge's, not in its place. A mean opinion score would need a model
that was trained on opinions; nothing here claims to be one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from audiorl.score.pitch import SHIFT, find_pitch

FRAME = 0.025  # s
SILENCE = 35.0  # dB below the loudest frame: not speech
FLOOR = 50.0  # dB below the loudest band: what is fainter is not compared
BANDS, CEPSTRA = 40, 13


@dataclass(frozen=True)
class Sound:
    """One utterance. Without a voiced frame it has no pitch: None."""

    seconds: float  # of the whole wave
    speech_seconds: float  # from the first frame of speech to the last, pauses included
    f0: float | None  # Hz, mean of the voiced frames
    f0_spread: float | None  # semitones, standard deviation of them
    hnr: float | None  # dB, harmonics to noise, their mean: falls with buzz, hiss and hoarseness


def measure(wave: np.ndarray, rate: int) -> Sound:
    """Measure `wave` [S] at `rate` Hz."""
    pitch = find_pitch(wave, rate)
    start, end = speech_span(wave, rate)
    seconds = len(wave) / rate, (end - start) / rate
    if not len(pitch.f0):
        return Sound(*seconds, None, None, None)
    return Sound(*seconds, float(pitch.f0.mean()), pitch.spread, float(pitch.harmonicity.mean()))


def speech_span(wave: np.ndarray, rate: int) -> tuple[int, int]:
    """Return the first sample of speech and the one after the last; (0, 0) if all is silent."""
    width, shift = int(FRAME * rate), int(SHIFT * rate)
    padded = np.pad(wave.astype(np.float64), (0, max(0, width - len(wave))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, width)[::shift]
    power = (frames**2).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-SILENCE / 10))
    if not len(loud):
        return 0, 0
    return int(loud[0]) * shift, min(int(loud[-1]) * shift + width, len(wave))


def spectral_distance(wave: np.ndarray, other: np.ndarray, rate: int) -> float | None:
    """Return the mel-cepstral distortion of two recordings in dB; None if one is silent.

    That is the root mean square, over frequency, of the difference of their spectral envelopes,
    levels aside (Kubichek 1993), between frames that dynamic time warping puts together: how far a
    synthesiser's spectrum is from the speaker's own. Another reading of the sentence has a
    distance too, so this never gets to 0.
    """
    one, two = (_cepstra(w[slice(*speech_span(w, rate))], rate) for w in (wave, other))
    if not len(one) or not len(two):
        return None
    squares = ((one[:, None] - two[None]) ** 2).sum(-1)  # [T, U]
    return _warp(np.sqrt(squares / BANDS))


def mel_levels(wave: np.ndarray, rate: int, bands: int = BANDS) -> np.ndarray:
    """Return the power in mel bands of each 10 ms, [T, bands] in dB; T is 0 below a frame."""
    width, shift = int(FRAME * rate), int(SHIFT * rate)
    if len(wave) < width:
        return np.zeros((0, bands))
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), width)[::shift]
    size = 1 << (width - 1).bit_length()
    power = np.abs(np.fft.rfft(frames * np.hanning(width), size)) ** 2
    return 10 * np.log10(power @ _mel_filters(rate, size, bands) + 1e-12)


def _cepstra(wave: np.ndarray, rate: int) -> np.ndarray:
    """[T, CEPSTRA] of the levels of mel bands; the first, their mean, is left out."""
    levels = mel_levels(wave, rate)
    return np.maximum(levels, levels.max(initial=-np.inf) - FLOOR) @ _cosines()


@cache
def _mel_filters(rate: int, size: int, bands: int) -> np.ndarray:
    """Triangles on the mel scale: [size / 2 + 1, bands]."""
    edges = np.linspace(0, 2595 * np.log10(1 + rate / 2 / 700), bands + 2)
    hertz = 700 * (10 ** (edges / 2595) - 1)
    places = np.arange(size // 2 + 1)[:, None] * rate / size
    rise = (places - hertz[:-2]) / (hertz[1:-1] - hertz[:-2])
    fall = (hertz[2:] - places) / (hertz[2:] - hertz[1:-1])
    return np.maximum(np.minimum(rise, fall), 0)


@cache
def _cosines() -> np.ndarray:
    """Orthonormal cosine transform without its constant: [BANDS, CEPSTRA]."""
    place = (np.arange(BANDS)[:, None] + 0.5) * np.arange(1, CEPSTRA + 1) * np.pi / BANDS
    return np.sqrt(2 / BANDS) * np.cos(place)


def _warp(costs: np.ndarray) -> float:
    """Mean cost [T, U] along the cheapest path from the first pair of frames to the last.

    Cells of an antidiagonal do not depend on each other: they are computed at once.
    """
    rows, columns = costs.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    steps = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0.0
    for diagonal in range(rows + columns - 1):
        i = np.arange(max(0, diagonal - columns + 1), min(rows, diagonal + 1))
        j = diagonal - i
        before = np.stack([total[i, j], total[i, j + 1], total[i + 1, j]])
        way = before.argmin(axis=0)
        taken = np.arange(len(i))
        total[i + 1, j + 1] = before[way, taken] + costs[i, j]
        counted = np.stack([steps[i, j], steps[i, j + 1], steps[i + 1, j]])
        steps[i + 1, j + 1] = counted[way, taken] + 1
    return float(total[rows, columns] / steps[rows, columns])
