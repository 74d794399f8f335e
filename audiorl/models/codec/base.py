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
from audiorl.models.voice import Voice


class Codec(Protocol):
    """Speech as a row of whole numbers below `codebook_size`, `token_rate` of them a second."""

    settings: CodecSettings
    type: str  # of `codec.type`
    codebook_size: int
    token_rate: float  # Hz
    sample_rate: int  # Hz, of the waves that it reads
    output_rate: int  # Hz, of the waves that it makes
    speaker_size: int  # of its speaker vectors; 0: its tokens carry the voice
    continues_prompts: bool  # its decoder reads tokens and mel frames of a voice's prompt, too

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Return the tokens [T_i] (long, on the host) of waves [S_i] in -1..1."""

    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        """Return waves [S_i] of tokens [T_i], each in its voice."""

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        """Return the speaker vectors [B, speaker_size] of reference recordings [S_i]."""

    def prompt(self, wave: Tensor, text: str = "") -> Voice:
        """Return the voice of one recording [S], in which `text` is said."""

    def fingerprint(self) -> str:
        """Return a hash of all that tokens depend on: under another, they mean other sounds."""

    def save(self, folder: Path) -> None:
        """Write all that `load_codec` needs, the weights last."""


def in_voices(vectors: Tensor) -> list[Voice]:
    """Return voices of speaker vectors [B, S]."""
    return [Voice(vector=vector) for vector in vectors]


def codec_info(codec: Codec) -> CodecInfo:
    """Return what a language model of its tokens has to know of a codec."""
    return {
        "kind": codec.type,
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
