"""Sound inside a page: players and spectrograms as data, so that the page needs no other file."""

from __future__ import annotations

import base64
import io

import numpy as np
import soundfile
from matplotlib import colormaps
from PIL import Image

from audiorl.report.markup import Html, element
from audiorl.score.sound import mel_levels

LONGEST = 30  # s of audio in a player
BANDS = 64  # of a spectrogram
COLOURS = 16  # of a spectrogram: four bits a point
RANGE = 60.0  # dB from the darkest colour to the brightest


def player(samples: np.ndarray, rate: int, name: str) -> Html:
    """Samples [S] at `rate` Hz as MP3: small, and every browser plays it. `name`: what it is."""
    stream = io.BytesIO()
    cut = samples[: LONGEST * rate]
    soundfile.write(stream, cut, rate, format="MP3", subtype="MPEG_LAYER_III")
    return element(
        "audio",
        controls=True,
        preload="metadata",
        aria_label=f"audio of {name}",
        src=f"data:audio/mpeg;base64,{base64.b64encode(stream.getvalue()).decode()}",
    )


def spectrogram(samples: np.ndarray, rate: int, name: str) -> Html:
    """The mel spectrogram of samples [S], low frequencies below, as a small picture."""
    padded = np.pad(samples[: LONGEST * rate], (0, max(0, rate // 10 - len(samples))))
    levels = mel_levels(padded, rate, BANDS)  # [T, BANDS]
    brightness = np.clip(1 + (levels - levels.max()) / RANGE, 0, 1)
    points = np.round(brightness * (COLOURS - 1)).astype(np.uint8).T[::-1]  # [BANDS, T]
    picture = Image.fromarray(np.ascontiguousarray(points)).convert("P")
    shades = colormaps["magma"](np.linspace(0, 1, COLOURS))[:, :3]
    picture.putpalette((shades * 255).astype(np.uint8).tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True, bits=4)
    seconds = len(samples) / rate
    return element(
        "img",
        alt=f"Mel spectrogram of {name}, {seconds:.1f} s, 0 to {rate / 2000:g} kHz.",
        src=f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}",
    )
