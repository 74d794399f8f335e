"""Codecs that run in an environment of their own: CosyVoice's, and X-codec2 as published.

The environment variable AUDIORL_CODEC_SERVER holds the command that serves one; codec.pretrained
follows it as the last argument. A config names no command, so that none from outside is run. Its
answers (`audiorl.runtime.line_server`; numbered tensors, one of each wave or row of tokens):

    hello                                     kind, fingerprint, codebook_size, token_rate,
                                              sample_rate, output_rate, speaker_size
    encode  wave_0 …                          tokens_0 …
    prompt  wave_0                            tokens_0, vector_0, mel_0 (the last two if
                                              speaker_size is not 0)
    decode  tokens_0, prompt_0, vector_0,     wave_0 …
            mel_0 …
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from audiorl.config.codec import CODEC_SERVER
from audiorl.errors import UserError
from audiorl.models.codec.settings import CodecSettings
from audiorl.models.settings import save_model
from audiorl.models.voice import Voice
from audiorl.runtime.line_server import LineServer

SERVED_SECONDS = 600.0  # that an answer may take
SERVED_FACTS = "codebook_size token_rate sample_rate output_rate speaker_size".split()


class ServedCodec(nn.Module):
    """A `Codec` that another program computes; the fingerprint stands in the place of weights."""

    codebooks = 1

    def __init__(self, settings: CodecSettings, saved: bool = False) -> None:
        """Start the program; `saved`: the fingerprint that it has to have follows.

        UserError if there is none, or if it serves a codec of another kind.
        """
        super().__init__()
        self.settings, self.type = settings, settings.codec.type
        command = shlex.split(os.environ.get(CODEC_SERVER, ""))
        if not command:
            raise UserError(
                f"{CODEC_SERVER} is not set; set it to the command that serves {self.type}."
            )
        name = f"the server of {self.type} ({CODEC_SERVER})"
        self.server = LineServer(name, [*command, settings.codec.pretrained], SERVED_SECONDS)
        facts, _ = self.server.call("hello")
        for fact in SERVED_FACTS:
            setattr(self, fact, facts[fact])
        self.continues_prompts = self.speaker_size > 0  # else tokens carry the voice
        if facts["kind"] != self.type:
            raise UserError(f"{name} serves {facts['kind']}; set codec.type, or start another.")
        known = torch.tensor(list(bytes.fromhex(facts["fingerprint"])), dtype=torch.uint8)
        self.served = facts["fingerprint"]
        self.register_buffer("identity", torch.zeros_like(known) if saved else known)

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        _, found = self.server.call("encode", _numbered(wave=waves))
        return [found[f"tokens_{place}"].long() for place in range(len(waves))]

    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        """Return waves as `Codec.decode`; without tokens an empty one."""
        loud = [place for place, row in enumerate(tokens) if len(row)]
        waves = [torch.zeros(0) for _ in tokens]
        chosen = [voices[place] for place in loud]
        _, found = self.server.call(
            "decode",
            _numbered(
                tokens=[tokens[place] for place in loud],
                prompt=[torch.tensor(voice.tokens, dtype=torch.long) for voice in chosen],
                vector=[voice.vector for voice in chosen],
                mel=[voice.mel for voice in chosen],
            ),
        )
        for number, place in enumerate(loud):
            waves[place] = found[f"wave_{number}"]
        return waves

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        if not self.speaker_size:
            return torch.zeros(len(waves), 0)
        return torch.stack([self.prompt(wave).vector for wave in waves])

    def prompt(self, wave: Tensor, text: str = "") -> Voice:
        _, found = self.server.call("prompt", _numbered(wave=[wave]))
        parts = {name: found[f"{name}_0"] for name in ("vector", "mel") if self.speaker_size}
        return Voice(text, found["tokens_0"].tolist(), **parts)

    def fingerprint(self) -> str:
        """Return what the server says; UserError if a saved codec had another."""
        if bytes(self.identity.tolist()).hex() != self.served:
            raise UserError(
                f"{CODEC_SERVER} serves another {self.type} than was used in stage 3; serve that "
                "one, or run stage 3 again."
            )
        return self.served

    def save(self, folder: Path) -> None:
        save_model(self, folder)


def _numbered(**rows: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{n}_{place}": row for n, listed in rows.items() for place, row in enumerate(listed)}
