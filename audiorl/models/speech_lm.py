"""The speech LM: a language model that reads a text and writes speech tokens."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from audiorl.config.field import key
from audiorl.config.model import LLMConfig, TokenizerConfig
from audiorl.config.schema import Config
from audiorl.config.speech import SpeechConfig
from audiorl.data.speech_tokens import CodecInfo
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError, nearest
from audiorl.models import SPEECH_FACTS
from audiorl.models.language_model import Prefix, build_lm
from audiorl.models.layouts import SpeechFacts, make_layout
from audiorl.models.policy import Policy
from audiorl.models.tokenizer import Tokenizer, load_tokenizer, make_tokenizer
from audiorl.models.voice import Voice, Voices
from audiorl.runtime.files import write_json


@dataclass
class SpeechLMSettings:
    """Sections that a speech LM is made of."""

    family: str = key("speech_lm", "policy family")
    tokenizer: TokenizerConfig = key(TokenizerConfig, "text units")
    llm: LLMConfig = key(LLMConfig, "language model")
    speech: SpeechConfig = key(SpeechConfig, "text and speech tokens")

    @classmethod
    def of(cls, config: Config, family: str) -> SpeechLMSettings:
        """Return those of a recipe."""
        return cls(family, config.tokenizer, config.llm, config.speech)


class SpeechLM(Policy):
    """Policy of synthesis: text in, speech tokens out.

    A condition is the ids that the layout reads before speech; the response is speech tokens and
    the stop token. Nothing else can be sampled, and the loss knows that: it is the cross entropy
    among speech tokens and the stop token.
    """

    family, task = "speech_lm", "tts"
    settings_type = SpeechLMSettings

    def __init__(
        self,
        settings: SpeechLMSettings,
        tokenizer: Tokenizer,
        facts: SpeechFacts,
        saved: str | None = None,
    ) -> None:
        """Raises UserError if tokenizer, codec and `speech.layout` do not fit together."""
        super().__init__()
        self.settings = settings
        self.tokenizer = tokenizer
        self.facts = facts
        self.voices = Voices(facts.prompts)  # and those of prompts that a stage has read
        name = settings.llm.pretrained
        self.layout = layout = make_layout(settings.speech, name, tokenizer, facts)
        self.llm = build_lm(settings.llm, layout.size, layout.stop_id, saved)
        self._refuse_other_codec(facts.codec)
        self.stop_ids, self.pad_id = (layout.stop_id,), layout.pad_id
        speech = range(layout.speech_offset, layout.speech_offset + facts.codec["codebook_size"])
        rows = self.llm.vocab_size
        self.forbid(set(range(rows)) - {*speech, layout.stop_id}, rows)

    def _refuse_other_codec(self, codec: CodecInfo) -> None:
        named = getattr(self.llm.config, "tokens_of", None) or {}
        if differing := [part for part, value in named.items() if codec.get(part) != value]:
            raise UserError(
                f"llm.pretrained: the LM learnt the tokens of {named['kind']}, and the codec is "
                f"another {differing[0]}; take the one that it was trained with."
            )

    @classmethod
    def create(cls, config: Config, texts: Iterable[str], facts: SpeechFacts) -> SpeechLM:
        """Return a new model for a recipe; its text units are learnt from `texts`."""
        tokenizer = make_tokenizer(config.tokenizer, config.llm.pretrained, texts)
        return cls(cls.settings_type.of(config, cls.family), tokenizer, facts)

    @classmethod
    def from_settings(cls, settings: SpeechLMSettings, folder: Path) -> SpeechLM:
        facts = json.loads((folder / SPEECH_FACTS).read_text(encoding="utf-8"))
        facts["speakers"] = tuple(facts["speakers"])
        facts["prompts"] = {name: Voice(**p) for name, p in facts["prompts"].items()}
        tokenizer = load_tokenizer(settings.tokenizer, folder)
        return cls(settings, tokenizer, SpeechFacts(**facts), saved=str(folder))

    def save_vocabulary(self, folder: Path) -> None:
        self.tokenizer.save(folder)
        prompts = self.facts.prompts.items()
        facts = asdict(replace(self.facts, prompts={}))
        spoken = {name: {"text": v.text, "tokens": list(v.tokens)} for name, v in prompts}
        write_json(folder / SPEECH_FACTS, facts | {"prompts": spoken})

    def encode(self, inputs: Sequence[Utterance]) -> list[Tensor]:
        """Return the condition [T_i] of each text, on the host; nothing in it learns."""
        return [self.condition(u.text, self.voice(u)) for u in inputs]

    def meet(self, voices: Voices) -> None:
        """Know the prompts of these voices from now on."""
        self.voices.prompts |= voices.prompts

    def voice(self, utterance: Utterance) -> Voice:
        """Return the voice that an utterance is spoken in, as `speech.speakers` says.

        UserError for a speaker who is unknown, and has no prompt that could be continued.
        """
        kind, speaker = self.settings.speech.speakers, utterance.speaker
        if kind == "none":
            return Voice()
        if kind == "prompt" and utterance in self.voices:
            return self.voices[utterance]
        if kind == "prompt" or speaker not in self.facts.speakers:
            fix = nearest(speaker, self.facts.speakers)
            if kind == "mark" and utterance.prompt:
                fix = "train one with speech.speakers: prompt, which continues any voice"
            raise UserError(f"speaker {speaker} is unknown to the speech LM; {fix}")
        return Voice(speaker=speaker)

    def condition(self, text: str, voice: Voice) -> Tensor:
        """Return the ids [T] that are read before speech, on the host.

        The response continues the tokens of the voice's prompt, if it has one.
        """
        return torch.tensor(self.layout.condition(text, voice))

    def prefix(self, conditions: Sequence[Tensor]) -> Prefix:
        """Return the embeddings of conditions [T_i]."""
        ids = torch.cat([row.to(self.device) for row in conditions])
        return Prefix.join(list(self.llm.embed(ids).split([len(row) for row in conditions])))

    def prefix_length(self, condition: Tensor) -> int:
        return len(condition)

    def responses(self, token_lists: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Return the ids [B, R] of codec tokens, each row with its stop token, and their mask."""
        offset, end = self.layout.speech_offset, self.stop_ids[0]
        return self.pad_responses(
            [torch.tensor([*(offset + t for t in row), end]) for row in token_lists]
        )

    def speech_tokens(self, response: Tensor) -> list[int]:
        """Return the codec's tokens of a response [R], up to the stop token."""
        ids, end = response.tolist(), self.stop_ids[0]
        if end in ids:
            ids = ids[: ids.index(end)]
        return [i - self.layout.speech_offset for i in ids]

    def supervised_loss(
        self,
        conditions: Sequence[Tensor],
        token_lists: Sequence[Sequence[int]],
        *,
        token_noise: float = 0.0,
    ) -> Tensor:
        """Return the mean cross entropy of codec tokens and the stop token, among these.

        token_noise: share of the speech tokens the LM reads that are random ones, so that it looks
        at the text; in training mode only.
        """
        tokens, mask = self.responses(token_lists)
        read = tokens
        if self.training:
            offset, size = self.layout.speech_offset, self.facts.codec["codebook_size"]
            random = torch.randint_like(tokens, offset, offset + size)
            replaced = torch.rand(tokens.shape, device=tokens.device) < token_noise
            read = torch.where(replaced, random, tokens)
        states = self.llm.response_states(self.prefix(conditions), read, share=False)
        allowed = ~self.forbidden
        logits = self.llm.logits_among(states[mask], allowed)  # [tokens, allowed ids]
        places = allowed.cumsum(0) - 1  # of an id among the allowed ones
        return F.cross_entropy(logits, places[tokens[mask]])

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
                condition = self.condition(u.text, self.voice(u))
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


Family = SpeechLM
