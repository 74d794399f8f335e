"""The speech LM: a language model that reads a text and writes the tokens of its speech."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError, nearest
from audiorl.models.language_model import Prefix, build_lm, response_hidden
from audiorl.models.layouts import SpeechFacts, SpeechPrompt, make_layout
from audiorl.models.tokenizer import Tokenizer, load_tokenizer
from audiorl.runtime.files import write_json

FACTS = "speech.json"


class SpeechLM(nn.Module):
    """Text in, speech tokens out; a `Policy`.

    A condition is the ids that the layout reads before speech; the response is speech tokens and
    the stop token. Nothing else can be sampled, and the loss knows that: it is the cross entropy
    among speech tokens and the stop token.
    """

    def __init__(
        self, config: Config, tokenizer: Tokenizer, facts: SpeechFacts, saved: str | None = None
    ) -> None:
        """Raises UserError if tokenizer, codec and `speech.layout` do not fit together."""
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.facts = facts
        self.layout = layout = make_layout(config, tokenizer, facts)
        self.llm = build_lm(config.llm, layout.size, layout.stop_id, saved)
        self.eos_id, self.pad_id = layout.stop_id, layout.pad_id
        end = layout.speech_offset + facts.codec["codebook_size"]
        forbidden = torch.ones(self.llm.get_output_embeddings().weight.size(0), dtype=torch.bool)
        forbidden[layout.speech_offset : end] = False
        forbidden[self.eos_id] = False
        self.register_buffer("forbidden", forbidden, persistent=False)  # [V], never sampled

    @classmethod
    def load(cls, config: Config, folder: Path) -> SpeechLM:
        """The shape of the model saved in `folder`, its weights still to be filled."""
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        facts["speakers"] = tuple(facts["speakers"])
        facts["prompts"] = {name: SpeechPrompt(**p) for name, p in facts["prompts"].items()}
        tokenizer = load_tokenizer(config.tokenizer, folder)
        return cls(config, tokenizer, SpeechFacts(**facts), saved=str(folder))

    def save_vocabulary(self, folder: Path) -> None:
        """Writes the text units and what else its vocabulary follows from."""
        self.tokenizer.save(folder)
        write_json(folder / FACTS, asdict(self.facts))

    @property
    def device(self) -> torch.device:
        return self.forbidden.device

    def condition(self, text: str, speaker: str = "", prompt: SpeechPrompt | None = None) -> Tensor:
        """The ids [T] that are read before speech, on the host.

        The response goes on with the tokens of `prompt`, in its voice; without one, what stands for
        the speaker is as `speech.speakers` says. UserError for a speaker of whom nothing does.
        """
        named = self.config.speech.speakers
        if prompt is None and named != "none":
            if speaker not in self.facts.speakers:
                raise UserError(
                    f"speaker {speaker} is unknown to the speech LM; "
                    f"{nearest(speaker, self.facts.speakers)}"
                )
            prompt = self.facts.prompts.get(speaker)
        return torch.tensor(self.layout.condition(text, speaker, prompt))

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """Conditions [T_i] to the prefix that the LM continues."""
        ids = torch.cat([row.to(self.device) for row in conditions])
        embedded = self.llm.get_input_embeddings()(ids)
        return Prefix.join(list(embedded.split([len(row) for row in conditions])))

    def prefix_length(self, condition: Tensor) -> int:
        """Positions of one prefix."""
        return len(condition)

    def responses(self, token_lists: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """The codec's tokens to ids [B, R], each row with its stop token, and their mask [B, R]."""
        offset = self.layout.speech_offset
        rows = [torch.tensor([*(offset + t for t in row), self.eos_id]) for row in token_lists]
        tokens = pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(tokens.size(1)) < lengths[:, None]
        return tokens.to(self.device), mask.to(self.device)

    def speech_ids(self, response: Tensor) -> list[int]:
        """The codec's tokens of a response [R], up to the stop token."""
        ids = response.tolist()
        if self.eos_id in ids:
            ids = ids[: ids.index(self.eos_id)]
        return [i - self.layout.speech_offset for i in ids]

    def supervised_loss(
        self, conditions: Sequence[Tensor], token_lists: Sequence[Sequence[int]]
    ) -> Tensor:
        """Mean cross entropy of the codec's tokens and the stop token, among these."""
        tokens, mask = self.responses(token_lists)
        read = self._noisy(tokens) if self.training else tokens
        hidden = response_hidden(self.llm, self.prefix(conditions), read, share=False)
        head, allowed = self.llm.get_output_embeddings(), ~self.forbidden
        weight, bias = (None if p is None else p[allowed].float() for p in (head.weight, head.bias))
        logits = F.linear(hidden[mask].float(), weight, bias)  # [tokens, allowed ids]
        places = allowed.cumsum(0) - 1  # of an id among the allowed ones
        smoothing = self.config.sft.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits, places[tokens[mask]], label_smoothing=smoothing)

    def refuse_texts(self, utterances: Iterable[Utterance], max_length: int | None = None) -> None:
        """Raises UserError for the first text that cannot become speech, and says why.

        It is empty, has characters that were never read, an unknown speaker, or needs more than
        `max_length` tokens.
        """
        for u in utterances:
            if not u.text.strip():
                raise UserError(f"{u.id}: the text is empty; remove the utterance.")
            if unknown := self.tokenizer.unknown_characters(u.text):
                listed = ", ".join(f"{c} (U+{ord(c):04X})" for c in unknown[:5])
                raise UserError(
                    f"{u.id}: the speech LM never read {listed}; spell out what the text has "
                    "there, or train on texts that have it."
                )
            try:
                condition = self.condition(u.text, u.speaker)
            except UserError as error:
                raise UserError(f"{u.id}: {error}") from error
            if max_length is not None:
                self._refuse_long(u, len(condition), max_length)

    def _refuse_long(self, u: Utterance, length: int, max_length: int) -> None:
        if length + max_length > (limit := self.llm.config.max_position_embeddings):
            raise UserError(
                f"{u.id}: text and speech need up to {length + max_length} positions, and the LM "
                f"has {limit}; split the text of {len(u.text)} characters."
            )
        if (expected := len(u.text) * self.facts.tokens_per_character) > max_length:
            raise UserError(
                f"{u.id}: the text of {len(u.text)} characters needs about {expected:.0f} tokens "
                f"of speech, and max_completion_length is {max_length}; split it, or raise the key."
            )

    def _noisy(self, tokens: Tensor) -> Tensor:
        """Replaces a share of the speech that the LM reads: it must look at the text."""
        offset, size = self.layout.speech_offset, self.facts.codec["codebook_size"]
        random = torch.randint_like(tokens, offset, offset + size)
        replaced = torch.rand(tokens.shape, device=tokens.device) < self.config.sft.token_noise
        return torch.where(replaced, random, tokens)
