"""Pretrained codecs of `transformers`: xcodec2, neucodec, mimi, dac.

A language model here writes one token at a time, so one codebook is used. xcodec2 and NeuCodec
have one; NeuCodec speaks at 24 kHz what it has read at 16. The first codebook of Mimi carries the
words (it is distilled from WavLM), the others the sound; those of DAC are all acoustic, coarse to
fine. Their decoders were trained with fewer codebooks at random and decode the first alone, which
is intelligible and poor in detail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from audiorl.errors import UserError, reason
from audiorl.models.codec.base import weights_hash
from audiorl.models.codec.settings import CodecSettings
from audiorl.models.settings import save_model
from audiorl.models.voice import Voice

ONE_CODEBOOK = ("xcodec2", "neucodec")


class PretrainedCodec(nn.Module):
    """One of transformers' codecs as a `Codec`; the voice is in its tokens, so none is given.

    Recordings go through it one at a time: its convolutions would let padding in.
    """

    speaker_size = 0
    continues_prompts = False

    def __init__(self, settings: CodecSettings, source: str | Path, saved: bool = False) -> None:
        """`source`: folder or hub name; `saved`: written by `save`, its weights follow."""
        super().__init__()
        self.settings = settings
        self.type = settings.codec.type
        self.extractor = None
        try:
            if saved:
                self.model = AutoModel.from_config(AutoConfig.from_pretrained(source))
            else:
                self.model = AutoModel.from_pretrained(source, dtype=torch.float32)
            if self.type in ONE_CODEBOOK:  # it also reads Kaldi features
                self.extractor = AutoFeatureExtractor.from_pretrained(source)
        except (OSError, ValueError, SafetensorError) as error:
            raise UserError(
                f"codec.pretrained: {source} cannot be loaded ({reason(error)}); give a "
                f"folder or a hub name of a codec of type {self.type}."
            ) from error
        sizes = self.model.config
        if sizes.model_type != self.type:
            raise UserError(
                f"codec.pretrained: {source} is of type {sizes.model_type}, not {self.type}; set "
                "codec.type to what it is, or name another."
            )
        two_rates = self.type == "neucodec"
        self.sample_rate = sizes.input_sampling_rate if two_rates else sizes.sampling_rate
        self.output_rate = sizes.output_sampling_rate if two_rates else self.sample_rate
        if self.type in ONE_CODEBOOK:
            self.codebooks = 1
            self.codebook_size = math.prod(sizes.quantization_levels)
            self.token_rate = self.output_rate / sizes.hop_length
        elif self.type == "mimi":
            self.codebooks = sizes.num_quantizers
            self.codebook_size = sizes.codebook_size
            self.token_rate = float(sizes.frame_rate)
        else:
            self.codebooks = sizes.n_codebooks
            self.codebook_size = sizes.codebook_size
            self.token_rate = self.sample_rate / sizes.hop_length
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.no_grad()
    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        return [self._encode(wave).cpu().long() for wave in waves]

    @torch.no_grad()
    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        """Return waves as `Codec.decode`, without tokens an empty one."""
        return [self._decode(row).cpu() if len(row) else torch.zeros(0) for row in tokens]

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        return torch.zeros(len(waves), 0)

    def prompt(self, wave: Tensor, text: str = "") -> Voice:
        return Voice(text, self.encode([wave])[0].tolist())

    def fingerprint(self) -> str:
        return weights_hash(self.model)

    def save(self, folder: Path) -> None:
        self.model.config.save_pretrained(folder)
        if self.extractor is not None:
            self.extractor.save_pretrained(folder)
        save_model(self, folder)

    def _encode(self, wave: Tensor) -> Tensor:
        """Tokens [T] of the first codebook for a wave [S]."""
        if self.type in ONE_CODEBOOK:
            inputs = self.extractor(
                audio=wave.cpu(), sampling_rate=self.sample_rate, return_tensors="pt"
            )
            return self.model.encode(**inputs.to(self.device)).audio_codes[0, 0]
        wave = wave.to(self.device)[None, None]
        if self.type == "mimi":
            return self.model.encode(wave, num_quantizers=1).audio_codes[0, 0]
        wave = F.pad(wave, (0, -wave.size(-1) % self.model.config.hop_length))
        return self.model.encode(wave, n_quantizers=1).audio_codes[0, 0]

    def _decode(self, tokens: Tensor) -> Tensor:
        """Wave [S] of tokens [T]."""
        codes = tokens.to(self.device)[None, None]
        return self.model.decode(audio_codes=codes).audio_values.flatten().clamp(-1, 1)
