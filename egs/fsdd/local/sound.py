"""From a planned string of digits to its sound, and to the file that holds it.

Signals are float32 [S], 8 kHz. Rooms and noises are those of egs/mini_asr/local/acoustics.py.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import acoustics
import numpy as np
import soundfile
from strings import DigitString, Recording

from audiorl.data.audio import read_samples
from audiorl.errors import UserError
from audiorl.runtime.files import atomic_write

SAMPLE_RATE = 8000
GAP = (0.0, 0.3)  # s between two digits
EDGE = (0.1, 0.4)  # s before the first and after the last
GAIN = (-4.0, 4.0)  # dB of a digit against the others
LEVEL = (-30.0, -20.0)  # dB of the speech; full scale: 0


def write_string(path: Path, utterance: DigitString) -> None:
    """Renders and writes one utterance (8 kHz, 16 bits)."""
    speech, noise = render(utterance)
    encoded = io.BytesIO()
    soundfile.write(encoded, speech + noise, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with atomic_write(path, "wb") as stream:
        stream.write(encoded.getvalue())


def render(utterance: DigitString) -> tuple[np.ndarray, np.ndarray]:
    """The speech and the noise of an utterance, [S] each; their sum is what is heard."""
    rng = np.random.default_rng(list(utterance.seed))
    speech = join(utterance.recordings, rng)
    if utterance.noise == "babble":
        talkers = [join(recordings, rng) for recordings in utterance.talkers]
        noise = acoustics.babble(talkers, len(speech), rng)
    else:
        noise = acoustics.coloured(utterance.noise, len(speech), rng, SAMPLE_RATE)
    noise = acoustics.scale_noise(speech, noise, utterance.snr, SAMPLE_RATE)
    loudness = acoustics.active_power(speech, SAMPLE_RATE)
    gain = acoustics.level_gain(speech + noise, loudness, rng.uniform(*LEVEL))
    return gain * speech, gain * noise


def join(recordings: tuple[Recording, ...], rng: np.random.Generator) -> np.ndarray:
    """Digits after each other at varied loudness, with gaps between and silence at both ends."""
    parts = [silence(rng, EDGE)]
    for number, recording in enumerate(recordings, start=1):
        gain = np.float32(10 ** (rng.uniform(*GAIN) / 20))
        parts += [gain * levelled(recording.path)]
        parts += [silence(rng, GAP if number < len(recordings) else EDGE)]
    return np.concatenate(parts)


def silence(rng: np.random.Generator, seconds: tuple[float, float]) -> np.ndarray:
    return np.zeros(round(rng.uniform(*seconds) * SAMPLE_RATE), np.float32)


@cache
def levelled(path: Path) -> np.ndarray:
    """A recording with an active power of 1: speakers were recorded up to 20 dB apart.

    Raises UserError when it cannot be read, is silent, or has another sample rate.
    """
    samples, rate = read_samples(str(path))  # [S, C]
    if rate != SAMPLE_RATE or not samples.any():
        raise UserError(
            f"{path}: expected speech at {SAMPLE_RATE} Hz, found {rate} Hz and a peak of "
            f"{np.abs(samples).max(initial=0):g}; get the file anew."
        )
    mono = samples.mean(axis=1)
    return mono / np.float32(np.sqrt(acoustics.active_power(mono, SAMPLE_RATE)))
