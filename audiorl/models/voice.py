"""A voice to speak in: what a speech LM and a codec know of one, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audiorl.data.utterance import Utterance


def _nothing() -> Tensor:
    return torch.zeros(0)


@dataclass(frozen=True)
class Voice:
    """One voice, on the host. Each model reads the parts that it was trained with.

    A speech LM continues the prompt, text and tokens, or reads the mark of the speaker; a codec
    takes the vector or, where its decoder continues a prompt too, its tokens and mel frames.
    """

    text: str = ""  # said in the prompt
    tokens: Sequence[int] = ()  # the codec's, of the prompt
    vector: Tensor = field(
        default_factory=_nothing, compare=False
    )  # [S] of the codec's speaker encoder
    mel: Tensor = field(default_factory=_nothing, compare=False)  # [N, bands] of the prompt
    speaker: str = ""  # of the train set


class Voices:
    """The voice of each utterance: that of its prompt or, without one, of its speaker."""

    def __init__(
        self, speakers: Mapping[str, Voice], prompts: Mapping[tuple, Voice] | None = None
    ) -> None:
        """`speakers`: by name; `prompts`: by `prompt_key`."""
        self.speakers, self.prompts = dict(speakers), dict(prompts or {})

    def __contains__(self, utterance: Utterance) -> bool:
        if utterance.prompt:
            return prompt_key(utterance.prompt) in self.prompts
        return utterance.speaker in self.speakers

    def __getitem__(self, utterance: Utterance) -> Voice:
        if utterance.prompt:
            return self.prompts[prompt_key(utterance.prompt)]
        return self.speakers[utterance.speaker]


def prompt_key(prompt: Utterance) -> tuple:
    """Return what tells a prompt from others."""
    return prompt.audio, prompt.start, prompt.end, prompt.text
