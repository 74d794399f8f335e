"""What every speech codec offers: tokens of a wave, and a wave of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from audiorl.data.speech_tokens import CodecInfo


class Codec(Protocol):
    """Speech as a row of whole numbers below `codebook_size`, `token_rate` of them a second."""

    codebook_size: int
    token_rate: float  # Hz
    sample_rate: int  # Hz, of the waves that it reads and makes
    speaker_size: int  # of its speaker vectors; 0: its tokens carry the voice

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Waves [S_i] in -1..1 to tokens [T_i] (long, on the host)."""

    def decode(self, tokens: Sequence[Tensor], speakers: Tensor) -> list[Tensor]:
        """Tokens [T_i], and a speaker vector for each [B, speaker_size], to waves [S_i]."""

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        """Reference recordings [S_i] to speaker vectors [B, speaker_size]."""

    def fingerprint(self) -> str:
        """Of all that tokens depend on: tokens of another fingerprint mean other sounds."""

    def save(self, folder: Path) -> None:
        """Writes all that `load_codec` needs, the weights last."""


def codec_info(codec: Codec) -> CodecInfo:
    """What a language model of its tokens has to know of a codec."""
    return {
        "fingerprint": codec.fingerprint(),
        "codebook_size": codec.codebook_size,
        "token_rate": codec.token_rate,
    }


def weights_hash(*modules: nn.Module) -> str:
    """A hash over the names and values of all weights and buffers that are saved."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
