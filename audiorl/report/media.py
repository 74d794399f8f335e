"""Audio in a page: players and spectrograms as data, so that the page needs no other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import soundfile
from matplotlib import colormaps
from PIL import Image

from audiorl.score.sound import mel_levels

PLAYED = 30  # s of audio in a player
PICTURED_BANDS = 64  # of a spectrogram
SHADES = 16  # of a spectrogram: four bits a point
DARKEST = 60.0  # dB from the darkest color to the brightest


@dataclass(frozen=True)
class AudioClip:
    """Audio of an utterance as the page has it, or why there is none."""

    name: str
    audio: str = ""  # URL with the data of an MP3
    spectrogram: str = ""  # URL with the data of a PNG
    description: str = ""  # of the spectrogram
    error: str = ""


def clip(samples: np.ndarray, rate: int, name: str, picture: bool = False) -> AudioClip:
    """Return the clip of samples [S] at `rate` Hz; `picture`: with a spectrogram."""
    if not picture:
        return AudioClip(name, mp3(samples, rate))
    seconds = len(samples) / rate
    text = f"Mel spectrogram of {name}, {seconds:.1f} s, 0 to {rate / 2000:g} kHz."
    return AudioClip(name, mp3(samples, rate), spectrogram(samples, rate), text)


def mp3(samples: np.ndarray, rate: int) -> str:
    """Return samples [S] at `rate` Hz as MP3: it is small, and every browser plays it."""
    stream = io.BytesIO()
    cut = samples[: PLAYED * rate]
    soundfile.write(stream, cut, rate, format="MP3", subtype="MPEG_LAYER_III")
    return _data_url("audio/mpeg", stream)


def spectrogram(samples: np.ndarray, rate: int) -> str:
    """Return the mel spectrogram of samples [S], low frequencies at the bottom, as a PNG."""
    padded = np.pad(samples[: PLAYED * rate], (0, max(0, rate // 10 - len(samples))))
    levels = mel_levels(padded, rate, PICTURED_BANDS)  # [T, PICTURED_BANDS]
    brightness = np.clip(1 + (levels - levels.max()) / DARKEST, 0, 1)
    points = np.round(brightness * (SHADES - 1)).astype(np.uint8).T[::-1]  # [PICTURED_BANDS, T]
    picture = Image.fromarray(np.ascontiguousarray(points)).convert("P")
    shades = colormaps["magma"](np.linspace(0, 1, SHADES))[:, :3]
    picture.putpalette((shades * 255).astype(np.uint8).tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True, bits=4)
    return _data_url("image/png", stream)


def _data_url(kind: str, stream: io.BytesIO) -> str:
    return f"data:{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
