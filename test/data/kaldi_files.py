"""What the tests of data directories share: a tone, and lines of a Kaldi file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE = 8000


def tone(seconds: float, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    """A sine [S] that is not silent anywhere."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
