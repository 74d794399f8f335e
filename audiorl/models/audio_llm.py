"""The audio LLM: audio encoder, adaptor, and a language model that writes a transcript."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.field import key
from audiorl.config.model import (
    AdaptorConfig,
    EncoderConfig,
    FrontendConfig,
    LLMConfig,
    TokenizerConfig,
)
from audiorl.config.schema import Config
from audiorl.models.encoder import Encoder
from audiorl.models.frontend import Frontend
from audiorl.models.language_model import Prefix, build_lm
from audiorl.models.pretrained_encoder import PretrainedEncoder, saved_encoder
from audiorl.models.recogniser import Recogniser
from audiorl.models.tokenizer import Tokenizer, load_tokenizer, make_tokenizer

PROMPT = "transcribe {audio}"
SCORE_COPIES = 8  # of the attention scores [heads, T, T] that the encoder holds at once


@dataclass
class AudioLLMSettings:
    """Sections that an audio LLM is made of."""

    family: str = key("audio_llm", "policy family")
    sample_rate: int = key(16000, "Hz", ge=1)
    ctc_labels: str = key(
        "byte", "labels of the encoder's CTC head", choices=("none", "byte", "token")
    )
    tokenizer: TokenizerConfig = key(TokenizerConfig, "text units")
    frontend: FrontendConfig = key(FrontendConfig, "features")
    encoder: EncoderConfig = key(EncoderConfig, "audio encoder")
    adaptor: AdaptorConfig = key(AdaptorConfig, "encoder to LM")
    llm: LLMConfig = key(LLMConfig, "language model")

    @classmethod
    def of(cls, config: Config, family: str) -> AudioLLMSettings:
        """Return those of a recipe."""
        wanted = config.sft.ctc_weight > 0 or config.sft.ctc_steps > 0
        return cls(
            family,
            config.data.sample_rate,
            config.sft.ctc_unit if wanted else "none",
            config.tokenizer,
            config.frontend,
            config.encoder,
            config.adaptor,
            config.llm,
        )


class Adaptor(nn.Module):
    """Joins `stack` encoder frames and projects them: [B, T, D] -> [B, ceil(T / stack), H]."""

    def __init__(self, input_size: int, stack: int, hidden_size: int, output_size: int) -> None:
        super().__init__()
        self.stack = stack
        self.layers = nn.Sequential(
            nn.LayerNorm(stack * input_size),
            nn.Linear(stack * input_size, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, output_size),
        )

    def forward(self, frames: Tensor) -> Tensor:
        batch, time, size = frames.shape
        frames = F.pad(frames, (0, 0, 0, -time % self.stack))
        return self.layers(frames.reshape(batch, -1, self.stack * size))


class AudioLLM(Recogniser):
    """Recogniser of our own, built of the sections of a recipe.

    The prefix is the instruction with the audio embeddings in place of `{audio}`; the response is
    the transcript and the end token.
    """

    family = "audio_llm"
    settings_type = AudioLLMSettings
    condition_parts = ("encoder",)

    def __init__(
        self, settings: AudioLLMSettings, tokenizer: Tokenizer, saved: str | None = None
    ) -> None:
        """`saved`: folder of a saved model, whose sizes of the LM are taken."""
        super().__init__()
        self.settings = settings
        self.tokenizer = tokenizer
        self.sample_rate = settings.sample_rate
        self.frontend: Frontend | None = None
        sizes, n_mels = settings.encoder, settings.frontend.n_mels
        if sizes.pretrained:
            name = sizes.pretrained
            self.encoder = PretrainedEncoder.of(name) if saved is None else saved_encoder(saved)
            self.sample_rate, self.seconds = self.encoder.sample_rate, self.encoder.seconds
        else:
            self.frontend = Frontend(settings.frontend, settings.sample_rate)
            self.encoder = Encoder(sizes, n_mels, sizes.input_layer, sizes.init)
        self.llm = build_lm(settings.llm, tokenizer.vocab_size, tokenizer.eos_id, saved)
        frame_size = self.encoder.output_size
        self.adaptor = Adaptor(
            frame_size,
            settings.adaptor.stack,
            settings.adaptor.hidden_size,
            self.llm.config.hidden_size,
        )
        self.ctc_head = None
        if settings.ctc_labels != "none":
            units = 256 if settings.ctc_labels == "byte" else tokenizer.vocab_size
            self.ctc_head = nn.Linear(frame_size, units + 1)  # 0 is the blank
        before, after = (settings.llm.prompt or PROMPT).split("{audio}")
        self._before, self._after = tokenizer.encode(before), tokenizer.encode(after)
        self.forbid(tokenizer.forbidden_ids, tokenizer.vocab_size)
        self.stop_ids, self.pad_id = (tokenizer.eos_id,), tokenizer.pad_id

    @classmethod
    def create(cls, config: Config, texts: Iterable[str]) -> AudioLLM:
        """Return a new model for a recipe; its text units are learnt from `texts`."""
        texts = [*texts, (config.llm.prompt or PROMPT).replace("{audio}", " ")]
        tokenizer = make_tokenizer(config.tokenizer, config.llm.pretrained, texts)
        return cls(cls.settings_type.of(config, cls.family), tokenizer)

    @classmethod
    def from_settings(cls, settings: AudioLLMSettings, folder: Path) -> AudioLLM:
        settings.encoder.init = ""  # its weights are in the saved ones
        return cls(settings, load_tokenizer(settings.tokenizer, folder), saved=str(folder))

    def save_vocabulary(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        if self.frontend is None:
            self.encoder.save(folder)

    def encode(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder frames [T_i, D] of waves [S_i] at `sample_rate`."""
        if self.frontend is None:
            return self.encoder(inputs)
        padded = self.frontend.pad(inputs, self.encoder.shortest, self.device)
        frames, lengths = self.encoder(*self.frontend(*padded))
        return [row[:n] for row, n in zip(frames, lengths.tolist(), strict=True)]

    def encoding_bytes(self, seconds: float) -> float:
        if self.frontend is None:  # attention of transformers keeps no scores
            return super().encoding_bytes(seconds)
        samples = torch.tensor(round(seconds * self.sample_rate))
        frames = self.encoder.num_frames(self.frontend.num_frames(samples)).item()
        return SCORE_COPIES * 4 * self.settings.encoder.attention_heads * frames**2

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """Return the instruction around the audio embeddings of encoder frames [T_i, D]."""
        before, after = (
            self.llm.embed(torch.tensor(ids, dtype=torch.long, device=self.device))
            for ids in (self._before, self._after)
        )
        padded = pad_sequence([row.to(self.device) for row in conditions], batch_first=True)
        audio = self.adaptor(padded).to(before.dtype)  # [B, A, H]
        lengths = [-(-len(row) // self.adaptor.stack) for row in conditions]
        return Prefix.join(
            [torch.cat([before, row[:n], after]) for row, n in zip(audio, lengths, strict=True)]
        )

    def prefix_length(self, condition: Tensor) -> int:
        """Return the audio embeddings of frames [T, D]; the instruction is a few more."""
        return len(condition) // self.adaptor.stack

    def ctc_loss(self, frames: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """Mean over labels. Byte labels need no vocabulary and, being short sounds, align soon."""
        spell = self.tokenizer.encode if self.settings.ctc_labels == "token" else _utf8
        labels = [torch.tensor(list(spell(text)), dtype=torch.long) + 1 for text in texts]
        logp = self.ctc_head(pad_sequence(list(frames))).float().log_softmax(-1)  # [T, B, units]
        lengths = torch.tensor([len(row) for row in frames])
        targets = torch.tensor([len(row) for row in labels])
        # An utterance with more labels than frames has no alignment: it adds nothing.
        loss = F.ctc_loss(
            logp,
            torch.cat(labels).to(logp.device),
            lengths,
            targets,
            reduction="sum",
            zero_infinity=True,
        )
        return loss / targets.sum().clamp(min=1)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8")


Family = AudioLLM
