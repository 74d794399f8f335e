"""Rooms and noises: reverberation, noise of several colours, and mixing at a given SNR.

Signals are float32 [S], 16 kHz where nothing else is said, in -1..1. All randomness comes from the
generator given.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import fft, signal

SAMPLE_RATE = 16000
FRAMES = 50  # in a second
ACTIVE_RANGE_DB = 30.0
# Spectral slope of each coloured noise: amplitude ~ frequency ** -slope.
COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}


@cache
def lowpass(up: int, down: int) -> np.ndarray:
    """The anti-aliasing filter of a change of rate by up/down, 20 zero crossings long."""
    widest = max(up, down)
    return signal.firwin(20 * widest + 1, 1 / widest, window=("kaiser", 5.0))


def resample(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """`samples` at `sample_rate`, polyphase-filtered to 16 kHz."""
    divisor = math.gcd(sample_rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // divisor, sample_rate // divisor
    resampled = signal.resample_poly(samples, up, down, window=lowpass(up, down))
    return resampled.astype(np.float32)


def power(samples: np.ndarray) -> float:
    """The mean square, as float64."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def active_power(speech: np.ndarray, sample_rate: int = SAMPLE_RATE) -> float:
    """The mean square of the frames (20 ms) within 30 dB of the loudest: pauses do not count."""
    length = sample_rate // FRAMES
    whole = speech[: len(speech) // length * length].reshape(-1, length)  # [F, length]
    frames = np.mean(np.square(whole, dtype=np.float64), axis=1)
    return float(frames[frames >= frames.max() * 10 ** (-ACTIVE_RANGE_DB / 10)].mean())


def reverberate(speech: np.ndarray, t60: float, rng: np.random.Generator) -> np.ndarray:
    """`speech` in a room whose echo falls by 60 dB in `t60` seconds; the tail lengthens it.

    The room is a direct path followed, 2 to 10 ms later, by exponentially decaying noise.
    """
    length = int(t60 * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    response = rng.standard_normal(length) * 10 ** (-3 * time / t60)
    response[: int(rng.uniform(0.002, 0.010) * SAMPLE_RATE)] = 0.0
    # The direct path is 3 to 9 dB above all the echo together.
    response *= 10 ** (-rng.uniform(3, 9) / 20) / np.sqrt(np.sum(response**2))
    response[0] = 1.0
    return signal.oaconvolve(speech, response).astype(np.float32)


def coloured(
    colour: str, length: int, rng: np.random.Generator, sample_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """White, pink or brown noise of unit power, flat below 50 Hz."""
    longer = fft.next_fast_len(length, real=True)
    spectrum = fft.rfft(rng.standard_normal(longer))
    frequencies = np.maximum(fft.rfftfreq(longer, 1 / sample_rate), 50.0)
    return unit(fft.irfft(spectrum * frequencies ** -COLOURS[colour], longer)[:length])


def hum(length: int, rng: np.random.Generator) -> np.ndarray:
    """Mains hum of unit power: 50 or 60 Hz with ten falling harmonics, over a little pink noise."""
    time = np.arange(length) / SAMPLE_RATE
    base = rng.choice([50.0, 60.0]) * rng.uniform(0.995, 1.005)
    tones = sum(
        rng.uniform(0.3, 1.0) / k * np.sin(2 * np.pi * (k * base * time + rng.random()))
        for k in range(1, 11)
    )
    return unit(unit(tones) + 0.3 * coloured("pink", length, rng))


def babble(voices: list[np.ndarray], length: int, rng: np.random.Generator) -> np.ndarray:
    """Several talkers at once, each begun at a random place and repeated; unit power."""
    total = np.zeros(length)
    for voice in voices:
        start = rng.integers(len(voice))
        total += unit(np.take(voice, np.arange(start, start + length), mode="wrap"))
    return unit(total)


def music(length: int, rng: np.random.Generator) -> np.ndarray:
    """Something like music, of unit power: an arpeggio or chords of decaying harmonic tones."""
    total = np.zeros(length)
    step = int(SAMPLE_RATE * rng.uniform(0.15, 0.6))
    chord = rng.choice([[0, 4, 7, 12], [0, 3, 7, 12], [0, 5, 9, 12], [0, 4, 7, 11]])
    root = 110 * 2 ** (rng.integers(24) / 12)
    together = rng.random() < 0.5
    for number, start in enumerate(range(0, length, step)):
        if number % 4 == 0:
            root *= 2 ** (rng.choice([-5, 0, 0, 2, 5]) / 12)
            root = float(np.clip(root, 80, 500))
        time = np.arange(min(4 * step, length - start)) / SAMPLE_RATE
        for tone in chord if together else [rng.choice(chord)]:
            pitch = root * 2 ** (tone / 12)
            harmonics = sum(np.sin(2 * np.pi * k * pitch * time) / k**1.5 for k in range(1, 6))
            total[start : start + len(time)] += harmonics * np.exp(-time * SAMPLE_RATE / step)
    return unit(total)


def unit(samples: np.ndarray) -> np.ndarray:
    """`samples` scaled to a mean square of 1, as float32."""
    return (samples / np.sqrt(power(samples) + 1e-12)).astype(np.float32)


def scale_noise(
    speech: np.ndarray, noise: np.ndarray, snr: float, sample_rate: int = SAMPLE_RATE
) -> np.ndarray:
    """`noise` made so loud that the active `speech` is `snr` dB above it."""
    gain = np.sqrt(active_power(speech, sample_rate) / power(noise) * 10 ** (-snr / 10))
    return (noise * gain).astype(np.float32)


def level_gain(samples: np.ndarray, reference: float, decibels: float) -> np.float32:
    """The factor that moves the power `reference` to `decibels` (full scale: 0) in `samples`.

    It is smaller where the samples would otherwise be clipped.
    """
    gain = 10 ** (decibels / 20) / np.sqrt(reference)
    return np.float32(min(gain, 0.98 / np.abs(samples).max()))
