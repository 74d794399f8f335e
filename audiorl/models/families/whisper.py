"""Whisper (arXiv 2212.04356) of every size as a policy: an encoder-decoder hears, then writes.

A condition is the encoder's states of an utterance. The prefix is the start tokens, and the states
are read through cross attention, once for all responses to an utterance.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.whisper.modeling_whisper import WhisperAttention

from audiorl.config.field import key
from audiorl.config.schema import Config
from audiorl.config.whisper import WhisperOptions
from audiorl.errors import UserError, reason
from audiorl.models import WEIGHTS, load_weights, save_weights
from audiorl.models.hub import UNLOADABLE, load_whole
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.memory import KeysValues, Memory
from audiorl.models.recogniser import Recogniser
from audiorl.models.settings import build_model, save_settings
from audiorl.models.tokenizer import PretrainedTokenizer
from audiorl.runtime.files import write_json

SAMPLES_A_STATE = 320  # of 16 kHz: mel frames of 10 ms, two to a state
START = "<|startoftranscript|>"
SIZES = ("embed_dim", "num_heads", "dropout", "layer_idx", "config")  # of an attention


@dataclass
class WhisperSettings:
    """Sections that a Whisper policy is made of."""

    family: str = key("whisper", "policy family")
    whisper: WhisperOptions = key(WhisperOptions, "window and start tokens")
    dtype: str = key("float32", "weights and activations", choices=("float32", "bfloat16"))


class WhisperTokenizer(PretrainedTokenizer):
    """Whisper writes a space before the first word."""

    def encode(self, text: str) -> list[int]:
        return super().encode(f" {text.strip()}" if text.strip() else "")

    def decode(self, ids: Iterable[int]) -> str:
        return super().decode(ids).strip()

    def save(self, folder: Path) -> None:
        """Write also the files of before `tokenizer.json`, which whisper.cpp's converter reads."""
        super().save(folder)
        self._tokenizer.save_vocabulary(str(folder))
        added = self._tokenizer.added_tokens_decoder.items()
        write_json(folder / "added_tokens.json", {token.content: i for i, token in added})


class CrossAttention(WhisperAttention):
    """Cross attention of a decoder's layer that reads a `Memory`, with its mask.

    Whisper's own knows no mask, since all of its windows are 30 s long, and copies the states to
    every response.
    """

    @classmethod
    def of(cls, attention: WhisperAttention) -> CrossAttention:
        """Return one of the same weights, by the same names."""
        sizes = {name: getattr(attention, name) for name in SIZES}
        with torch.device("meta"):
            new = cls(**sizes, is_decoder=True)
        new.load_state_dict(attention.state_dict(), assign=True)
        return new

    def keys_values(self, states: Tensor) -> KeysValues:
        """Return the keys and values [B, K, T, D] of encoder states [B, T, D]."""
        states = states.to(self.k_proj.weight.dtype)
        return self._heads(self.k_proj(states)), self._heads(self.v_proj(states))

    def forward(
        self, hidden_states: Tensor, key_value_states: Memory, **_: object
    ) -> tuple[Tensor, None]:
        query = self._heads(self.q_proj(hidden_states) * self.scaling)
        mixed = key_value_states.attend(self.layer_idx, query)
        return self.out_proj(mixed.transpose(1, 2).flatten(2)), None

    def _heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)


class Whisper(Recogniser):
    """Policy of recognition: audio in, text without timestamps out.

    Its parts: `llm`, the decoder's layers; `encoder`; and `embeddings`, the decoder's tables. The
    table of tokens is the head, too, so that each update moves the rows of all tokens, AdamW moves
    those that are never written as far as the others, and it has two thirds of a small decoder's
    weights: RL usually leaves it as it is.
    """

    family = "whisper"
    settings_type = WhisperSettings
    part_names = ("llm", "encoder", "embeddings")
    condition_parts = ("encoder",)

    def __init__(
        self,
        settings: WhisperSettings,
        hf: WhisperForConditionalGeneration,
        tokenizer: WhisperTokenizer,
        extractor: WhisperFeatureExtractor,
    ) -> None:
        """Raises UserError for a language or a task that the model does not know."""
        super().__init__()
        self.settings, self.tokenizer, self.extractor = settings, tokenizer, extractor
        self.hf = hf
        self.sample_rate = extractor.sampling_rate
        self.encoder = hf.model.encoder
        self._longest = self.encoder.config.max_source_positions  # states
        self.seconds = (0.0, self._longest * SAMPLES_A_STATE / self.sample_rate)
        self.llm = LanguageModel(_decoder(hf), hf.proj_out)
        self.stop_ids, self.pad_id = (tokenizer.eos_id,), tokenizer.eos_id
        self._start = _start_ids(settings.whisper, hf, tokenizer.vocabulary())
        self.forbid(self._never_written(), tokenizer.eos_id + 1)

    @classmethod
    def create(cls, config: Config, texts: Iterable[str]) -> Whisper:
        """Return the model `model.pretrained`; its text units are its own."""
        return cls._made(config, functools.partial(load_whole, WhisperForConditionalGeneration))

    @classmethod
    def without_weights(cls, config: Config) -> Whisper:
        """Return the same with its model on the meta device: no weights are read."""

        def shape(name: str, dtype: torch.dtype) -> WhisperForConditionalGeneration:
            with torch.device("meta"):
                hf = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(name))
            hf.generation_config = GenerationConfig.from_pretrained(name)
            return hf.to(dtype)

        return cls._made(config, shape)

    @classmethod
    def _made(cls, config: Config, load: Callable[..., WhisperForConditionalGeneration]) -> Whisper:
        name = config.model.pretrained
        settings = WhisperSettings(cls.family, config.whisper, config.llm.dtype)
        try:
            hf = load(name, dtype=getattr(torch, settings.dtype))
            extractor = WhisperFeatureExtractor.from_pretrained(name)
        except UNLOADABLE as error:
            raise UserError(
                f"model.pretrained: {name} cannot be loaded ({reason(error)}); give a folder or a "
                "hub name of a Whisper."
            ) from error
        return cls(settings, hf.eval(), WhisperTokenizer(name), extractor)

    @classmethod
    def from_settings(cls, settings: WhisperSettings, folder: Path) -> Whisper:
        shape = WhisperConfig.from_pretrained(folder)
        hf = WhisperForConditionalGeneration(shape).to(getattr(torch, settings.dtype))
        hf.generation_config = GenerationConfig.from_pretrained(folder)
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        return cls(settings, hf, WhisperTokenizer(folder), extractor)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Whisper:
        model = build_model(
            folder, "model", cls.settings_type, lambda s: cls.from_settings(s, folder)
        )
        load_weights(model.hf, folder / WEIGHTS)
        return model.to(device).eval()

    def save_vocabulary(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        self.extractor.save_pretrained(folder)

    def save(self, folder: Path) -> None:
        """Write the layout of transformers, and of those who convert it; the weights last."""
        folder.mkdir(parents=True, exist_ok=True)
        self.save_vocabulary(folder)
        self.hf.config.save_pretrained(folder)
        self.hf.generation_config.save_pretrained(folder)
        save_settings(self, folder)
        save_weights(self.hf, folder / WEIGHTS)

    @property
    def adapted_module(self) -> nn.Module:
        return self.hf

    def part(self, name: str) -> list[nn.Module]:
        decoder = self.llm.model
        if name == "llm":
            return [decoder.layers, decoder.layer_norm]
        if name == "embeddings":
            return [decoder.embed_tokens, decoder.embed_positions]
        return [self.encoder]

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder states [T_i, D], 50 a second, of waves [S_i] at `sample_rate`."""
        counts = [self._states(len(wave)) for wave in inputs]
        features = [self._features(wave, n) for wave, n in zip(inputs, counts, strict=True)]
        states = self._encode(pad_sequence(features, batch_first=True), counts)
        return [row[:n] for row, n in zip(states, counts, strict=True)]

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """Return the start tokens, and encoder states [T_i, D] as their memory."""
        memory = pad_sequence([row.to(self.device) for row in conditions], batch_first=True)
        start = torch.tensor([self._start] * len(conditions), device=self.device)
        mask = torch.ones_like(start, dtype=torch.bool)
        lengths = [len(row) for row in conditions]
        return Prefix(
            self.llm.embed(start), mask, memory=memory, memory_mask=_real(lengths, memory)
        )

    def responses(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        tokens, mask = super().responses(texts)
        most = self.llm.config.max_target_positions - len(self._start) + 1
        if tokens.size(1) > most:
            longest = max(texts, key=lambda text: len(self.tokenizer.encode(text)))
            raise UserError(
                f"a transcript has {tokens.size(1)} tokens, and this Whisper writes {most}; leave "
                f"it out, by data.max_text_length say: {longest[:60]}"
            )
        return tokens, mask

    def prefix_length(self, condition: Tensor) -> int:
        """Return the number of start tokens: the memory is not among the LM's positions."""
        return len(self._start)

    def longest_prefix(self, seconds: float) -> tuple[int, int]:
        """Return the start tokens, and the states of audio of that length, or of the longest."""
        return len(self._start), self._states(int(min(seconds, self.seconds[1]) * self.sample_rate))

    def _states(self, samples: int) -> int:
        """Number of encoder states of a wave; UserError if it is longer than the window."""
        if samples > self._longest * SAMPLES_A_STATE:
            raise UserError(
                f"a {self.family} hears {self.seconds[1]:g} s, and audio of "
                f"{samples / self.sample_rate:.2f} s would be cut; split it."
            )
        if self.settings.whisper.window == "full":
            return self._longest
        wanted = samples + self.settings.whisper.margin * self.sample_rate
        return max(1, min(self._longest, math.ceil(wanted / SAMPLES_A_STATE)))

    def _features(self, wave: Tensor, states: int) -> Tensor:
        """Log-mel frames [2 T, n_mels] of a wave with silence behind it, for `states` states."""
        padded = F.pad(wave.cpu(), (0, states * SAMPLES_A_STATE - len(wave)))
        found = self.extractor(
            padded.numpy(), sampling_rate=self.sample_rate, padding=False, return_tensors="pt"
        )
        return found.input_features[0].T.to(self.device, self.encoder.dtype)

    def _encode(self, features: Tensor, counts: list[int]) -> Tensor:
        """States [B, T, D] of features [B, 2 T, n_mels]: Whisper's encoder over T positions.

        What is behind an utterance's own window is silenced at every layer that looks sideways.
        """
        encoder, drop = self.encoder, self.encoder.config.dropout
        real = _real(counts, features)
        hidden = F.gelu(encoder.conv1(features.transpose(1, 2)))
        hidden = hidden * real.repeat_interleave(2, 1)[:, None]
        hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)
        hidden = hidden + encoder.embed_positions.weight[: hidden.size(1)]
        hidden = F.dropout(hidden, drop, self.training)
        unseen = None
        if not real.all():
            unseen = hidden.new_zeros(real.shape).masked_fill(~real, -torch.inf)[:, None, None]
        for layer in encoder.layers:
            hidden = layer(hidden, unseen)
        return encoder.layer_norm(hidden)

    def _never_written(self) -> set[int]:
        """Ids beside those above the end of text: those that Whisper suppresses, if wanted."""
        if not self.settings.whisper.suppress:
            return set()
        listed = self.hf.generation_config.suppress_tokens or []
        return {i for i in listed if i <= self.tokenizer.eos_id} - {self.tokenizer.eos_id}


def _decoder(hf: WhisperForConditionalGeneration) -> nn.Module:
    """The decoder, with a config of its own: layers are counted and attention is replaced there."""
    decoder = hf.model.decoder
    shape = copy.deepcopy(decoder.config)
    shape.encoder_layers = shape.decoder_layers  # transformers calls these num_hidden_layers
    for module in decoder.modules():
        if hasattr(module, "config"):
            module.config = shape
    for layer in decoder.layers:
        layer.encoder_attn = CrossAttention.of(layer.encoder_attn)
    return decoder


def _start_ids(
    options: WhisperOptions, hf: WhisperForConditionalGeneration, vocabulary: dict[str, int]
) -> list[int]:
    """Start of a text without timestamps; UserError for a language or task that is not known."""
    # The vocabulary of English-only models has the tokens of all languages, too.
    multilingual = getattr(hf.generation_config, "is_multilingual", hf.config.vocab_size >= 51865)
    names = [START, "<|notimestamps|>"]
    if multilingual:
        names[1:1] = [f"<|{options.language}|>", f"<|{options.task}|>"]
    elif (options.language, options.task) != ("en", "transcribe"):
        raise UserError(
            "whisper.language, whisper.task: this Whisper transcribes English alone, and cannot "
            f"{options.task} {options.language}; take a multilingual one."
        )
    for name in names:
        if name not in vocabulary:
            raise UserError(
                f"whisper.language: this Whisper has no token {name}; name another language, or "
                "fix the folder's tokenizer."
            )
    return [vocabulary[name] for name in names]


def _real(lengths: Sequence[int], like: Tensor) -> Tensor:
    """Mask [B, longest] of rows of these lengths."""
    places = torch.arange(max(lengths), device=like.device)
    return places < torch.tensor(lengths, device=like.device)[:, None]


Family = Whisper
