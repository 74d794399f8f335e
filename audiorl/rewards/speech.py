"""Rewards of synthesis (the paper's section 5; paper.md 1.7): they look at tokens and waves.

How well the speech is understood is for the rewards of accuracy: a sample's text is what a
recogniser hears in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.rewards.base import Reward, Sample, deviation
from audiorl.score.pitch import find_pitch

if TYPE_CHECKING:
    from torch import Tensor

    from audiorl.models.token_recogniser import TokenRecogniser

BATCH = 32  # samples that a model is given at once
SEMITONES = 12  # of an octave


@dataclass
class Models:
    """What rewards ask that need a model; they are scored in the training process."""

    recogniser: TokenRecogniser | None = None
    # Waves [S_i] to vectors [B, S] of their speakers, of unit length.
    speaker: Callable[[Sequence[Tensor]], Tensor] | None = None
    # By speaker, such a vector [S] of recordings.
    voices: Mapping[str, Tensor] = field(default_factory=dict)
    sample_rate: int = 16000  # Hz, of Sample.wave
    token_rate: float = 25.0  # Hz, of Sample.tokens


def duration(score: ScoreConfig, options: RewardConfig, models: Models) -> Reward:
    """R2 of the paper: -|n - m| / m, floored at -1: n tokens against the median m of the group.

    What a policy gains in accuracy by speaking slowly, it loses here.
    """

    def reward(samples: Sequence[Sample]) -> list[float]:
        lengths = [len(sample.tokens) for sample in samples]
        middle = median(lengths)
        return [deviation(n, middle) for n in lengths]

    return Reward(reward, "group", penalty=True)


def tempo(score: ScoreConfig, options: RewardConfig, models: Models) -> Reward:
    """-|n - m| / m, floored at -1: n tokens against the m of the utterance's own duration.

    That is the recording's; of a text alone, how long the start model spoke it (stage 4). R2 lets a
    group drift as a whole, since its median drifts with it; this one holds it.
    """

    def reward(samples: Sequence[Sample]) -> list[float]:
        seconds = [len(sample.tokens) / models.token_rate for sample in samples]
        wanted = [sample.utterance.duration for sample in samples]
        return [deviation(n, m) for n, m in zip(seconds, wanted, strict=True)]

    return Reward(reward, applies=lambda u: u.duration is not None, penalty=True)


def diversity(score: ScoreConfig, options: RewardConfig, models: Models) -> Reward:
    """R3 of the paper: how far a sample's tokens are from the others' of its group, and its melody.

    The mean over the others of the edit distance, divided by the longer one's length, from 0 to 1;
    and `pitch` times the standard deviation of its F0 in octaves (no F0: 0).
    """

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        found = [_distance(i, [s.tokens for s in samples]) for i in range(len(samples))]
        if options.pitch:
            spreads = [_octaves(sample, models.sample_rate) for sample in samples]
            return [
                None if spread is None else far + options.pitch * spread
                for far, spread in zip(found, spreads, strict=True)
            ]
        return found

    return Reward(reward, "group", waves=options.pitch > 0)


def likelihood(score: ScoreConfig, options: RewardConfig, models: Models) -> Reward:
    """exp(-k NLL): the reward model's negative log P(text | tokens) per character (k 1/3).

    Finer than an error rate: it tells samples apart that are recognised alike (arXiv 2509.18798).
    0 if the tokens are too few for the text.
    """
    k = options.k or 1 / 3

    def reward(samples: Sequence[Sample]) -> list[float]:
        found = np.empty(len(samples))
        for rows in _batches([len(sample.tokens) for sample in samples]):
            found[rows] = _log_likelihoods(models.recogniser, [samples[row] for row in rows])
        return np.exp(k * found).tolist()

    return Reward(reward)


def speaker_similarity(score: ScoreConfig, options: RewardConfig, models: Models) -> Reward:
    """(1 + c) / 2: the cosine c of a wave's speaker vector and that of the speaker's recordings.

    It applies to speakers with recordings; None where a sample has no wave.
    """

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        found: list[float | None] = [None] * len(samples)
        sounding = [i for i, sample in enumerate(samples) if sample.wave is not None]
        for rows in _batches([len(samples[i].wave) for i in sounding]):
            places = [sounding[row] for row in rows]
            vectors = models.speaker([samples[i].wave for i in places]).cpu()
            for i, vector in zip(places, vectors, strict=True):
                cosine = vector @ models.voices[samples[i].utterance.speaker].cpu()
                found[i] = (1 + float(cosine)) / 2
        return found

    return Reward(reward, applies=lambda u: u.speaker in models.voices, waves=True)


def _distance(place: int, tokens: Sequence[Sequence[int]]) -> float:
    """Mean normalised edit distance of one to all others; 0 without others."""
    others = [row for i, row in enumerate(tokens) if i != place]
    distances = [Levenshtein.normalized_distance(tokens[place], other) for other in others]
    return sum(distances) / len(others) if others else 0.0


def _octaves(sample: Sample, sample_rate: int) -> float | None:
    """Standard deviation of F0; None without a wave."""
    if sample.wave is None:
        return None
    return find_pitch(np.asarray(sample.wave), sample_rate).spread / SEMITONES


def _log_likelihoods(recogniser: TokenRecogniser, samples: Sequence[Sample]) -> list[float]:
    """log P(text | tokens) per character; -inf where there is no room."""
    import torch

    texts = [sample.utterance.text for sample in samples]
    tokens, lengths = recogniser.pad([sample.tokens for sample in samples])
    with torch.no_grad():
        found = recogniser.log_likelihood(recogniser.embed(tokens), lengths, texts)
    units = [recogniser.units(text) for text in texts]
    return [value / n for value, n in zip(found.tolist(), units, strict=True)]


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Places, `BATCH` at once, like lengths side by side."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
