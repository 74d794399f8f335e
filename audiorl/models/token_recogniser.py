"""The token-to-text model that rewards: log P(text | speech tokens), differentiable in the tokens.

As in DiffRO (arXiv 2507.05911), an ASR model whose front end is a table of embeddings, one for each
speech token: a mixture of tokens is a mixture of embeddings, so the text's probability has a
gradient in the mixture. Here an ESPnet encoder with CTC and an attention decoder over characters;
one layer of attention pooling for each other task (its section 2.3).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

with contextlib.redirect_stdout(io.StringIO()):  # ESPnet prints that flash_attn is not there
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

from audiorl.config.field import key
from audiorl.config.recognisers import RewardModelShape
from audiorl.config.schema import Config
from audiorl.data.speech_tokens import CodecInfo
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.models.ctc import BLANK, best_path, ctc_log_likelihood, frames_needed
from audiorl.models.encoder import Encoder
from audiorl.models.settings import load_model, part_of, save_model
from audiorl.runtime.files import write_json
from audiorl.text.normalise import spoken

RECOGNISER_FACTS = "recogniser.json"
TEXT = "text"  # the task that every recogniser has
CTC_WEIGHT = 0.5  # of CTC in log P(text); the attention decoder has the rest
PACES = ("slow", "normal", "fast")  # classes of the task rate
SENTENCE_EDGE = BLANK  # the attention decoder's first input and last output
TRANSCRIBED = 64  # utterances that are transcribed at once


@dataclass
class RewardModelSettings:
    """Sections that a reward model is made of."""

    kind: str = key("reward_model", "kind of model", choices=("reward_model",))
    reward_model: RewardModelShape = key(RewardModelShape, "sizes")

    @classmethod
    def of(cls, config: Config) -> RewardModelSettings:
        """Return those of a recipe."""
        return cls("reward_model", part_of(config.reward_model, RewardModelShape))


@dataclass(frozen=True)
class RecogniserFacts:
    """Facts of the training data that the use of a recogniser depends on."""

    codec: CodecInfo
    characters: str  # label n is characters[n - 1]
    tasks: dict[str, list[str]] = field(default_factory=dict)  # classes of each other task
    rate_bounds: list[float] = field(default_factory=list)  # characters a token, between PACES


def refuse_unread(utterances: Iterable[Utterance], characters: Collection[str]) -> None:
    """Raise UserError for the first text with a character outside of `characters`."""
    for u in utterances:
        text = spoken(u.text)
        if not text:
            raise UserError(f"{u.id}: nothing of its text is spoken; remove the utterance.")
        if strange := sorted(set(text) - set(characters)):
            listed = " ".join(f"{c} (U+{ord(c):04X})" for c in strange[:5])
            raise UserError(
                f"{u.id}: the text has characters that the reward model never read: {listed}; "
                "spell them out, or train it on texts that have them."
            )


class AttentionPooling(nn.Module):
    """Frames [B, T, D] to the logits [B, C] of a task, from a mean with learnt weights."""

    def __init__(self, size: int, classes: int) -> None:
        super().__init__()
        self.attention = nn.Linear(size, 1)
        self.head = nn.Linear(size, classes)

    def forward(self, frames: Tensor, real: Tensor) -> Tensor:
        weights = self.attention(frames).masked_fill(~real[:, :, None], -torch.inf)  # [B, T, 1]
        return self.head((weights.softmax(1) * frames).sum(1))


class TokenRecogniser(nn.Module):
    """Speech tokens in, log-probabilities of texts and of classes out."""

    def __init__(self, settings: RewardModelSettings, facts: RecogniserFacts) -> None:
        super().__init__()
        self.settings = settings
        self.facts = facts
        sizes = settings.reward_model.encoder
        units = len(facts.characters) + 1
        self.table = nn.Embedding(facts.codec["codebook_size"], sizes.output_size)
        self.encoder = Encoder(sizes, sizes.output_size, "linear")
        self.ctc_head = nn.Linear(sizes.output_size, units)
        logging.disable(logging.INFO)  # it logs that it checkpoints no layer
        self.decoder = TransformerDecoder(
            vocab_size=units,
            encoder_output_size=sizes.output_size,
            attention_heads=sizes.attention_heads,
            linear_units=sizes.linear_units,
            num_blocks=1,
            dropout_rate=sizes.dropout_rate,
            positional_dropout_rate=sizes.dropout_rate,
            use_flash_attn=False,
        )
        logging.disable(logging.NOTSET)
        self.tasks = nn.ModuleDict(
            {
                name: AttentionPooling(sizes.output_size, len(classes))
                for name, classes in facts.tasks.items()
            }
        )

    @property
    def device(self) -> torch.device:
        return self.table.weight.device

    def embed(self, tokens: Tensor) -> Tensor:
        """Return the embeddings [B, T, D] of tokens [B, T]."""
        return self.table(tokens)

    def embed_soft(self, weights: Tensor) -> Tensor:
        """Return embeddings [..., D] of mixtures of tokens [..., codebook], each of sum 1."""
        return weights @ self.table.weight

    def log_likelihood(self, embedded: Tensor, lengths: Tensor, texts: Sequence[str]) -> Tensor:
        """Return log P(text | tokens) [B] in nats: CTC's and attention's, weighted.

        embedded [B, T, D], lengths [B]. -inf where the tokens are too few for CTC to write the text
        (`has_room`).
        """
        return self.log_likelihoods(embedded, lengths, texts, {})[TEXT]

    def log_likelihoods(
        self,
        embedded: Tensor,
        lengths: Tensor,
        texts: Sequence[str],
        classes: Mapping[str, Sequence[str]],
        smoothing: float = 0.0,
    ) -> dict[str, Tensor]:
        """Return log P of text and of a class of each task, [B] each: DiffRO (8) and (9).

        `smoothing`: of the labels of all but CTC, for training.
        """
        read = lengths.clamp(min=1)  # an empty response is one frame, in which no text has room
        frames, _ = self.encoder(embedded[:, : int(read.max())], read)
        labels = [self.spell(text) for text in texts]
        ctc = ctc_log_likelihood(self._ctc_logits(frames), lengths, labels)
        attention = self._attention(frames, read, labels, smoothing)
        found = {TEXT: CTC_WEIGHT * ctc + (1 - CTC_WEIGHT) * attention}
        for task, names in classes.items():
            known = self.facts.tasks[task]
            wanted = torch.tensor([known.index(name) for name in names], device=frames.device)
            logits = self.tasks[task](frames, self._real(frames, read)).float()
            found[task] = -F.cross_entropy(
                logits, wanted, reduction="none", label_smoothing=smoothing
            )
        return found

    @torch.no_grad()
    def transcribe(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of each list of tokens: the likeliest character of each frame (CTC)."""
        texts = [""] * len(tokens)
        for rows, frames, lengths in self._batches(tokens):
            for i, path in zip(rows, best_path(self._ctc_logits(frames), lengths), strict=True):
                text = "".join(self.facts.characters[label - 1] for label in path)
                texts[i] = " ".join(text.split())
        return texts

    @torch.no_grad()
    def classify(self, tokens: Sequence[Sequence[int]]) -> dict[str, list[str]]:
        """Return the likeliest class of each list of tokens, by task; of an empty list ``."""
        found = {task: [""] * len(tokens) for task in self.tasks}
        for rows, frames, lengths in self._batches(tokens):
            for task, head in self.tasks.items():
                best = head(frames, self._real(frames, lengths)).argmax(-1).tolist()
                for i, place in zip(rows, best, strict=True):
                    found[task][i] = self.facts.tasks[task][place]
        return found

    def _batches(
        self, tokens: Sequence[Sequence[int]]
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Indices, frames [B, T, D] and lengths [B] of all lists that are not empty."""
        order = sorted(
            (i for i, row in enumerate(tokens) if len(row)), key=lambda i: len(tokens[i])
        )
        for start in range(0, len(order), TRANSCRIBED):
            rows = order[start : start + TRANSCRIBED]
            padded, lengths = self.pad([tokens[i] for i in rows])
            yield rows, self.encoder(self.embed(padded), lengths)[0], lengths

    def pad(self, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return lists of tokens as a batch [B, T], of one column at least, and lengths [B]."""
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        rows = [torch.tensor(row or [0], dtype=torch.long) for row in map(list, tokens)]
        return pad_sequence(rows, batch_first=True).to(self.device), lengths

    def spell(self, text: str) -> Tensor:
        """Return the labels [L] of a text's characters; ValueError for an unknown one."""
        return torch.tensor([self.facts.characters.index(c) + 1 for c in spoken(text)])

    def units(self, text: str) -> int:
        """Return the number of terms in its log-probability: characters, and the end."""
        return len(spoken(text)) + 1

    def has_room(self, text: str, tokens: int) -> bool:
        """Return whether so many tokens can be read as the text at all."""
        return frames_needed(self.spell(text)) <= tokens

    def class_of(self, task: str, utterance: Utterance, tokens: int | None = None) -> str:
        """Return the class of an utterance: its speaker, or its tag of that name, or nothing.

        Without a tag, the rate follows from its text and the number of `tokens`; without these it
        is normal, which synthesis aims at.
        """
        if task == "speaker":
            return utterance.speaker
        if task != "rate" or task in utterance.tags:
            return utterance.tags.get(task, "")
        if tokens is None:
            return PACES[1]
        pace = self.units(utterance.text) / tokens
        return PACES[sum(pace > bound for bound in self.facts.rate_bounds)]

    def refuse_unknown(self, utterances: Sequence[Utterance], tasks: Sequence[str] = ()) -> None:
        """Raise UserError for the first text or class (of `tasks`) that has no probability."""
        refuse_unread(utterances, self.facts.characters)
        for u in utterances:
            for task in tasks:
                if (name := self.class_of(task, u)) not in self.facts.tasks.get(task, ()):
                    raise UserError(
                        f"{u.id}: its {task} `{name}` is none that the reward model learnt; fix "
                        f"the set, or take {task} out of diffro.rewards."
                    )

    def save(self, folder: Path) -> None:
        """Write settings, facts and, last, weights."""
        write_json(folder / RECOGNISER_FACTS, asdict(self.facts))
        save_model(self, folder)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> TokenRecogniser:
        """Return the one saved in `folder`, frozen; UserErrors of `load_model`."""

        def build(settings: RewardModelSettings) -> TokenRecogniser:
            facts = json.loads((folder / RECOGNISER_FACTS).read_text(encoding="utf-8"))
            return cls(settings, RecogniserFacts(**facts)).requires_grad_(False)

        return load_model(folder, "reward model", RewardModelSettings, build, device)

    @staticmethod
    def _real(frames: Tensor, lengths: Tensor) -> Tensor:
        """Mask [B, T] of the frames [B, T, D] that are no padding."""
        return torch.arange(frames.size(1), device=frames.device) < lengths[:, None]

    def _ctc_logits(self, frames: Tensor) -> Tensor:
        """Frames [B, T, D] to [T, B, units]."""
        return self.ctc_head(frames).transpose(0, 1)

    def _attention(
        self, frames: Tensor, lengths: Tensor, labels: Sequence[Tensor], smoothing: float
    ) -> Tensor:
        """log P(labels and the end) of the decoder, [B]."""
        edge = torch.tensor([SENTENCE_EDGE])
        given = pad_sequence([torch.cat([edge, row]) for row in labels], batch_first=True)
        wanted = pad_sequence([torch.cat([row, edge]) for row in labels], batch_first=True)
        sizes = torch.tensor([len(row) + 1 for row in labels])
        logits, _ = self.decoder(frames, lengths, given.to(frames.device), sizes)  # [B, L, units]
        losses = F.cross_entropy(
            logits.float().transpose(1, 2),
            wanted.to(frames.device),
            reduction="none",
            label_smoothing=smoothing,
        )
        real = torch.arange(given.size(1)) < sizes[:, None]
        return -(losses * real.to(losses.device)).sum(1)
