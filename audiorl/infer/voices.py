"""The voices of a packed system: speakers' vectors on disk, in the place of their recordings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from audiorl.data.tables import read_table, scan_table, write_table
from audiorl.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

VOICES = "spk2vector"  # in Kaldi's text form of vectors: `<speaker> 0.25 -1.5 …`


def write_voices(path: Path, voices: Mapping[str, Tensor]) -> None:
    """Write vectors [S] by speaker; reading gives the same bits."""
    rows = {name: " ".join(map(repr, vector.tolist())) for name, vector in voices.items()}
    write_table(path, rows)


def read_voices(path: Path, speakers: Iterable[str]) -> dict[str, Tensor]:
    """Return the vector [S] of each of `speakers`; UserError where there is none."""
    import torch

    rows = read_table(path)
    voices = {}
    for name in sorted(set(speakers)):
        if name not in rows:
            raise UserError(
                f"{path} has no vector of speaker {name}; let one of its speakers say the texts."
            )
        try:
            voices[name] = torch.tensor([float(number) for number in rows[name].split()])
        except ValueError as error:
            line = scan_table(path).lines[name]
            raise UserError(
                f"{path}:{line}: the vector of {name} is not all numbers; unpack the system again."
            ) from error
    return voices
