"""Likeness of a voice to the one that it should be, and to the others of a test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from audiorl.data.audio import audio_info, read_audio
from audiorl.data.utterance import Utterance


class Likeness:
    """The voices that the utterances of a set should have, in vectors of one judge.

    That of an utterance with a prompt is its prompt's (the SIM-o of zero-shot synthesis), that of
    any other the sum of its speaker's recordings of other sentences.
    """

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.prompts = {u.id: u.prompt.id for u in utterances if u.prompt}
        self.audio = {u.id: u.prompt.audio for u in utterances if u.prompt}
        self.speakers = {u.id: u.speaker for u in utterances}
        self.vectors: dict[str, dict[str, Tensor]] = {u.speaker: {} for u in utterances}

    def add(self, recording: Utterance, vector: Tensor | None) -> None:
        """Take the vector of a natural recording, or of a prompt."""
        if vector is not None:
            self.vectors.setdefault(recording.speaker, {})[recording.id] = vector

    def own(self, u: Utterance, vector: Tensor | None) -> float | None:
        """Return the cosine to the voice that the utterance should have; None without any."""
        wanted = self._wanted(u.id)
        if vector is None or wanted is None:
            return None
        return float(cosine_similarity(vector, wanted, dim=0))

    def others(self, u: Utterance, vector: Tensor | None) -> float | None:
        """Return the mean cosine to the prompts of all other speakers; None without prompts."""
        if vector is None or u.prompt is None:
            return None
        # Lists of utterances without speakers repeat prompts.
        strange = (n for n in self.prompts if self.speakers[n] != u.speaker)
        found = {self.audio[n]: self._wanted(n) for n in strange if self.audio[n] != u.prompt.audio}
        vectors = [wanted for wanted in found.values() if wanted is not None]
        if not vectors:
            return None
        return float(cosine_similarity(vector[None], torch.stack(vectors)).mean())

    def _wanted(self, name: str) -> Tensor | None:
        known = self.vectors[self.speakers[name]]
        if name in self.prompts:
            return known.get(self.prompts[name])
        others = [other for uid, other in known.items() if uid != name]
        return sum(others) if others else None


def timed(u: Utterance) -> Utterance:
    """Return the utterance with its duration."""
    return u if u.duration is not None else replace(u, duration=audio_info(u.audio).duration)


def samples_of(u: Utterance, rate: int) -> np.ndarray:
    """Return samples [S]; a wave without any is an empty response."""
    return read_audio(u, rate) if u.duration else np.zeros(0, np.float32)
