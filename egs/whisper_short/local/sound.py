"""Conditions of recordings: noise at a stated SNR, rooms, and sounds without speech.

Signals are float32 [S], 16 kHz. What can be heard follows from the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import acoustics
import numpy as np

SAMPLE_RATE = acoustics.SAMPLE_RATE
LEVEL = (-45.0, -20.0)  # dB of a recording without speech; full scale: 0
ROOM = (0.3, 0.8)  # s in which the echo falls by 60 dB


def clicks(length: int, rng: np.random.Generator) -> np.ndarray:
    """Return knocks and clicks, [length], unit power: decaying bursts of noise, a few a second."""
    total = 1e-3 * rng.standard_normal(length)
    for start in rng.integers(length, size=max(1, round(3 * length / SAMPLE_RATE))):
        burst = min(length - start, int(rng.uniform(0.005, 0.1) * SAMPLE_RATE))
        decay = np.exp(-5 * np.arange(burst) / burst)
        total[start : start + burst] += rng.standard_normal(burst) * decay
    return acoustics.unit(total)


def siren(length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a tone that rises and falls, [length], unit power."""
    time = np.arange(length) / SAMPLE_RATE
    low, high = rng.uniform(300, 600), rng.uniform(800, 1600)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * time / rng.uniform(0.8, 4.0))
    phase = 2 * np.pi * np.cumsum(low + (high - low) * swing) / SAMPLE_RATE
    return acoustics.unit(np.sin(phase) + 0.3 * np.sin(2 * phase))


KINDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    **{
        colour: lambda length, rng, colour=colour: acoustics.coloured(colour, length, rng)
        for colour in acoustics.COLOURS
    },
    "hum": acoustics.hum,
    "music": acoustics.music,
    "clicks": clicks,
    "siren": siren,
}


def noisy(
    speech: np.ndarray, kind: str, snr: float, talkers: Sequence[np.ndarray], seed: Sequence[int]
) -> np.ndarray:
    """Return `speech` under noise of a kind, `snr` dB below it; babble is made of `talkers`."""
    rng = np.random.default_rng(list(seed))
    if kind == "babble":
        noise = acoustics.babble(list(talkers), len(speech), rng)
    else:
        noise = KINDS[kind](len(speech), rng)
    return _below_full_scale(speech + acoustics.scale_noise(speech, noise, snr))


def in_a_room(speech: np.ndarray, seed: Sequence[int]) -> np.ndarray:
    """Return `speech` with the echo of a room, its length kept."""
    rng = np.random.default_rng(list(seed))
    return _below_full_scale(acoustics.reverberate(speech, rng.uniform(*ROOM), rng)[: len(speech)])


def without_speech(kind: str, seconds: tuple[float, float], seed: Sequence[int]) -> np.ndarray:
    """Return a recording of a kind of sound, as long as drawn from a range."""
    rng = np.random.default_rng(list(seed))
    sound = KINDS[kind](round(rng.uniform(*seconds) * SAMPLE_RATE), rng)
    return acoustics.level_gain(sound, 1.0, rng.uniform(*LEVEL)) * sound


def _below_full_scale(samples: np.ndarray) -> np.ndarray:
    return samples / max(1.0, np.abs(samples).max() / 0.98)
