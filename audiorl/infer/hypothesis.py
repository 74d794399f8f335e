"""The result of decoding an utterance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Hypothesis:
    """Transcript of an utterance by the model."""

    text: str
    logp: float  # of the whole response, natural logarithm
    finished: bool  # False if the length limit cut it
