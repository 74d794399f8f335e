"""Layouts of a speech LM's vocabulary, and the ids that it reads before it speaks.

    native      [speaker] <text> text <speech> | tokens <stop>
    llasa       chat: user "Convert the text to speech:" text, assistant <start> | tokens <end>
    cosyvoice   <sos> [instruction] text <task> | tokens <eos>

A prompt, for a voice to be cloned, puts its text before the text and its tokens before the bar.
Speech tokens lie in one run of the vocabulary, in the codec's order, and are named `<|s_N|>` by the
pretrained models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from audiorl.config.speech import CODECS, SpeechConfig
from audiorl.data.speech_tokens import CodecInfo
from audiorl.errors import UserError
from audiorl.models.tokenizer import PretrainedTokenizer, Tokenizer
from audiorl.models.voice import Voice

SPEECH_TOKEN = re.compile(r"<\|s_(\d+)\|>")


@dataclass(frozen=True)
class SpeechFacts:
    """Facts of the training data that the use of a speech LM depends on."""

    codec: CodecInfo
    speakers: tuple[str, ...] = ()  # of the train set, sorted
    prompts: dict[str, Voice] = field(default_factory=dict)  # an utterance of each of them
    tokens_per_character: float = 0.0  # mean of the train set; 0: not known


class Layout(Protocol):
    """Places in the vocabulary, and the ids of a condition."""

    size: int  # ids in use, at most; the LM has at least as many rows
    speech_offset: int  # id of the codec's token 0
    stop_id: int
    pad_id: int

    def condition(self, text: str, voice: Voice) -> list[int]:
        """Return the ids that are read before the first token of a text in a voice."""


class NativeLayout:
    """Text units, marks, speech tokens and the stop token, in this order.

    With `speech.speakers: mark` each speaker of the train set has a mark: how fast and how one
    speaks is theirs, and an LM without it would pick one of them at random.
    """

    def __init__(
        self, speech: SpeechConfig, name: str, tokenizer: Tokenizer, facts: SpeechFacts
    ) -> None:
        self._tokenizer = tokenizer
        self._text_mark = tokenizer.vocab_size
        self._speech_mark = self._text_mark + 1
        speakers = facts.speakers if speech.speakers == "mark" else ()
        first = self._speech_mark + 1
        self._marks = {name: first + place for place, name in enumerate(speakers)}
        self.speech_offset = first + len(speakers)
        self.stop_id = self.speech_offset + facts.codec["codebook_size"]
        self.size = self.stop_id + 1
        self.pad_id = tokenizer.pad_id

    def condition(self, text: str, voice: Voice) -> list[int]:
        mark = [self._marks[voice.speaker]] if voice.speaker in self._marks else []
        texts = filter(None, (voice.text, text))
        text_ids = [i for part in texts for i in self._tokenizer.encode(part)]
        speech_ids = [self.speech_offset + token for token in voice.tokens]
        return [*mark, self._text_mark, *text_ids, self._speech_mark, *speech_ids]


class LlasaLayout:
    """Llasa (arXiv 2502.04128): Llama with the tokens of xcodec2, asked in a chat."""

    REQUEST = "Convert the text to speech:<|TEXT_UNDERSTANDING_START|>{}<|TEXT_UNDERSTANDING_END|>"
    START, END = "<|SPEECH_GENERATION_START|>", "<|SPEECH_GENERATION_END|>"
    RATE = 50.0

    def __init__(
        self, speech: SpeechConfig, name: str, tokenizer: PretrainedTokenizer, facts: SpeechFacts
    ) -> None:
        self._tokenizer = tokenizer
        known = tokenizer.vocabulary()
        self.speech_offset, count = speech_run(known, name)
        _refuse_other_codec(facts.codec, CODECS["llasa"], count, self.RATE)
        self.stop_id = _id_of(self.END, known, name)
        _id_of(self.START, known, name)
        self.size = tokenizer.vocab_size
        self.pad_id = tokenizer.pad_id

    def condition(self, text: str, voice: Voice) -> list[int]:
        asked = self._tokenizer.chat(
            [
                {"role": "user", "content": self.REQUEST.format(f"{voice.text} {text}".lstrip())},
                {"role": "assistant", "content": self.START},
            ]
        )
        return [*self._tokenizer.encode(asked), *(self.speech_offset + t for t in voice.tokens)]


class CosyVoiceLayout:
    """CosyVoice 2 (arXiv 2412.10117) and 3 (2505.17589) as `audiorl.models.cosyvoice` writes them.

    Both have three and more tokens that end speech; the LM learnt to write the first of version 2
    and the second of version 3. The others are never sampled.
    """

    RATE = 25.0
    END_OF_INSTRUCTION = "<|endofprompt|>"

    def __init__(
        self, speech: SpeechConfig, name: str, tokenizer: PretrainedTokenizer, facts: SpeechFacts
    ) -> None:
        self._tokenizer = tokenizer
        self._instruction = speech.instruction
        known = tokenizer.vocabulary()
        self.speech_offset, count = speech_run(known, name)
        self.version = 2 if "<|eos1|>" in known else 3
        if self.version == 2:
            marks = (_id_of(mark, known, name) for mark in ("<|sos|>", "<|eos1|>", "<|task_id|>"))
        else:
            count -= V3_CONTROLS  # the last of the run are no sounds
            marks = (self.speech_offset + count + place for place in range(3))
        self._sos, self.stop_id, self._task = marks
        kind = f"cosyvoice{self.version}"
        _refuse_other_codec(facts.codec, (kind,), count, self.RATE)
        if self.version == 3 and self.END_OF_INSTRUCTION not in self._instruction:
            raise UserError(
                "speech.instruction: CosyVoice 3 reads one before each text; set "
                f'"You are a helpful assistant.{self.END_OF_INSTRUCTION}".'
            )
        self.size = tokenizer.vocab_size
        self.pad_id = tokenizer.pad_id

    def condition(self, text: str, voice: Voice) -> list[int]:
        # Apart, as CosyVoice reads them: no token spans two of the texts.
        parts = (self._instruction, voice.text, text)
        ids = [i for part in parts if part for i in self._tokenizer.encode(part)]
        return [
            self._sos,
            *ids,
            self._task,
            *(self.speech_offset + token for token in voice.tokens),
        ]


V3_CONTROLS = 200  # rows behind the codebook: sos, eos, task, fill, and room for more
LAYOUTS = {"native": NativeLayout, "llasa": LlasaLayout, "cosyvoice": CosyVoiceLayout}


def make_layout(
    speech: SpeechConfig, name: str, tokenizer: Tokenizer, facts: SpeechFacts
) -> Layout:
    """Return the layout of `speech.layout` for the LM `name`; UserError if they do not fit."""
    return LAYOUTS[speech.layout](speech, name, tokenizer, facts)


def speech_run(vocabulary: dict[str, int], model: str) -> tuple[int, int]:
    """Return the id of `<|s_0|>` and the number of `<|s_N|>`."""
    found = ((SPEECH_TOKEN.fullmatch(name), i) for name, i in vocabulary.items())
    ids = {int(match[1]): i for match, i in found if match}
    first = ids.get(0, 0)
    if not ids or any(ids.get(n) != first + n for n in range(len(ids))):
        raise UserError(
            f"llm.pretrained: {model} has no run of speech tokens <|s_0|>, <|s_1|>, …; set "
            "speech.layout: native for an LM of text, or name another."
        )
    return first, len(ids)


def _id_of(token: str, vocabulary: dict[str, int], model: str) -> int:
    if token not in vocabulary:
        raise UserError(
            f"llm.pretrained: {model} has no token {token}; set another speech.layout, or name "
            "another LM."
        )
    return vocabulary[token]


def _refuse_other_codec(
    codec: CodecInfo, kinds: Sequence[str], codebook_size: int, token_rate: float
) -> None:
    found = codec["kind"], codec["codebook_size"], codec["token_rate"]
    if found not in [(kind, codebook_size, token_rate) for kind in kinds]:
        raise UserError(
            f"the codec has {codec['token_rate']:g} tokens a second of {codec['codebook_size']} "
            f"{codec['kind']} codes, and the pretrained LM speaks {token_rate:g} of "
            f"{codebook_size} {' or '.join(kinds)} codes; take the codec that it was trained with."
        )
