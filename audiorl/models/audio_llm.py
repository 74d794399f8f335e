"""The audio LLM: audio encoder, adaptor, and a language model that writes what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.schema import Config
from audiorl.models.encoder import Encoder
from audiorl.models.frontend import Frontend
from audiorl.models.language_model import Prefix, build_lm, response_hidden
from audiorl.models.tokenizer import Tokenizer, load_tokenizer

IGNORED = -100  # cross entropy's label of padding


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


@dataclass
class SupervisedLoss:
    """What supervised training minimises, and its parts."""

    total: Tensor
    lm: Tensor  # mean cross entropy per token, end token included
    ctc: Tensor  # mean CTC loss per label


class AudioLLM(nn.Module):
    """Audio in, text out: the `Policy` of recognition.

    The prefix is the instruction with the audio embeddings in place of `{audio}`; the response is
    the transcript and the end token.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, saved: str | None = None) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.frontend = Frontend(config.frontend, config.data.sample_rate)
        self.encoder = Encoder(config.encoder, config.frontend.n_mels)
        self.llm = build_lm(config.llm, tokenizer.vocab_size, tokenizer.eos_id, saved)
        hidden_size = self.llm.config.hidden_size
        self.adaptor = Adaptor(
            config.encoder.output_size,
            config.adaptor.stack,
            config.adaptor.hidden_size,
            hidden_size,
        )
        self.ctc_head = None
        if config.sft.ctc_weight > 0 or config.sft.ctc_steps > 0:
            units = 256 if config.sft.ctc_unit == "byte" else tokenizer.vocab_size
            self.ctc_head = nn.Linear(config.encoder.output_size, units + 1)  # 0 is the blank
        before, after = config.llm.prompt.split("{audio}")
        self._before = tokenizer.encode(before.strip())
        self._after = tokenizer.encode(after.strip())
        vocab = self.llm.get_output_embeddings().weight.size(0)
        forbidden = torch.zeros(vocab, dtype=torch.bool)
        forbidden[tokenizer.forbidden_ids] = True
        forbidden[tokenizer.vocab_size :] = True  # rows that pad a pretrained embedding table
        self.register_buffer("forbidden", forbidden, persistent=False)  # [V], never sampled
        self.eos_id, self.pad_id = tokenizer.eos_id, tokenizer.pad_id

    @classmethod
    def load(cls, config: Config, folder: Path) -> AudioLLM:
        """The shape of the model saved in `folder`, its weights still to be filled."""
        config.encoder.init = ""  # its weights are in the saved ones
        return cls(config, load_tokenizer(config.tokenizer, folder), saved=str(folder))

    def save_vocabulary(self, folder: Path) -> None:
        """Writes the text units."""
        self.tokenizer.save(folder)

    @property
    def device(self) -> torch.device:
        return self.forbidden.device

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        """Waves [S_i] to encoder frames, one [T_i, D] for each utterance."""
        padded = self.frontend.pad(waves, self.encoder.shortest, self.device)
        frames, lengths = self.encoder(*self.frontend(*padded))
        return [row[:n] for row, n in zip(frames, lengths.tolist(), strict=True)]

    def prefix(self, frames: Sequence[Tensor]) -> Prefix:
        """Encoder frames [T_i, D] of each utterance to the prefix that the LM continues."""
        embeddings = self.llm.get_input_embeddings()
        before = embeddings(torch.tensor(self._before, dtype=torch.long, device=self.device))
        after = embeddings(torch.tensor(self._after, dtype=torch.long, device=self.device))
        padded = pad_sequence([row.to(self.device) for row in frames], batch_first=True)
        audio = self.adaptor(padded).to(before.dtype)  # [B, A, H]
        lengths = [-(-len(row) // self.adaptor.stack) for row in frames]
        return Prefix.join(
            [torch.cat([before, row[:n], after]) for row, n in zip(audio, lengths, strict=True)]
        )

    def prefix_length(self, condition: Tensor) -> int:
        """Audio embeddings of an utterance's frames [T, D]; the instruction is a few more."""
        return len(condition) // self.adaptor.stack

    def responses(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Transcripts to token ids [B, R], each with its end token, and their mask [B, R]."""
        rows = [
            torch.tensor([*self.tokenizer.encode(text), self.tokenizer.eos_id]) for text in texts
        ]
        tokens = pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.size(1)) < lengths[:, None]
        return tokens.to(self.device), mask.to(self.device)

    def supervised_loss(
        self, frames: Sequence[Tensor], texts: Sequence[str], ctc_weight: float
    ) -> SupervisedLoss:
        """(1 - ctc_weight) * cross entropy of the transcripts + ctc_weight * CTC on the frames."""
        lm = ctc = frames[0].new_zeros(())
        if ctc_weight < 1:
            lm = self._lm_loss(frames, texts)
        if ctc_weight > 0:
            ctc = self._ctc_loss(frames, texts)
        return SupervisedLoss((1 - ctc_weight) * lm + ctc_weight * ctc, lm.detach(), ctc.detach())

    def _lm_loss(self, frames: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """Mean over tokens, the end token included."""
        tokens, mask = self.responses(texts)
        heard = self._noisy(tokens) if self.training else tokens
        hidden = response_hidden(self.llm, self.prefix(frames), heard, share=False)
        logits = self.llm.get_output_embeddings()(hidden[mask])  # [tokens, V]
        smoothing = self.config.sft.label_smoothing
        return F.cross_entropy(logits.float(), tokens[mask], label_smoothing=smoothing)

    def _noisy(self, tokens: Tensor) -> Tensor:
        """Replaces a share of what the LM reads: it learns to listen sooner, and to recover."""
        random = torch.randint_like(tokens, self.tokenizer.vocab_size)
        replaced = torch.rand(tokens.shape, device=tokens.device) < self.config.sft.token_noise
        return torch.where(replaced, random, tokens)

    def _ctc_loss(self, frames: Sequence[Tensor], texts: Sequence[str]) -> Tensor:
        """Mean over labels. Byte labels need no vocabulary and, being short sounds, align soon."""
        spell = self.tokenizer.encode if self.config.sft.ctc_unit == "token" else _utf8
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
