"""Interface of speech codecs: tokens of a wave, and a wave of tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from audiorl.data.speech_tokens import CodecInfo
from audiorl.models.codec.settings import CodecSettings


class Codec(Protocol):
    """Speech as a row of whole numbers below `codebook_size`, `token_rate` of them a second."""

    settings: CodecSettings
    codebook_size: int
    token_rate: float  # Hz
    sample_rate: int  # Hz, of the waves that it reads and makes
    speaker_size: int  # of its speaker vectors; 0: its tokens carry the voice

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Return the tokens [T_i] (long, on the host) of waves [S_i] in -1..1."""

    def decode(self, tokens: Sequence[Tensor], speakers: Tensor) -> list[Tensor]:
        """Return waves [S_i] of tokens [T_i] in the voices of speaker vectors [B, speaker_size]."""

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        """Return the speaker vectors [B, speaker_size] of reference recordings [S_i]."""

    def fingerprint(self) -> str:
        """Return a hash of all that tokens depend on: under another, they mean other sounds."""

    def save(self, folder: Path) -> None:
        """Write all that `load_codec` needs, the weights last."""


def codec_info(codec: Codec) -> CodecInfo:
    """Return what a language model of its tokens has to know of a codec."""
    return {
        "fingerprint": codec.fingerprint(),
        "codebook_size": codec.codebook_size,
        "token_rate": codec.token_rate,
    }


def weights_hash(*modules: nn.Module) -> str:
    """Return a hash over the names and values of all weights and buffers that are saved."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
