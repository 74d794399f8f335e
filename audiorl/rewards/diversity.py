"""Diversity of a group's tokens and melody: R3 of the paper's synthesis (section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text.detectors import covered, token_loops

SEMITONES = 12  # of an octave


@dataclass
class Options(RewardOptions):
    """The weight of the melody."""

    kinds = ("group",)

    pitch: float = key(
        0.0, "weight of the deviation of F0 in octaves; above 0 waves are made for it", ge=0
    )

    @property
    def needs(self) -> tuple[str, ...]:
        return ("tokens", "wave") if self.pitch else ("tokens",)


def build(options: Options, context: Context) -> Reward:
    """Return how far the tokens of a sample are from the others' of its group, plus its melody.

    The mean over the others of the edit distance, divided by the longer one's length, from 0 to 1;
    and `pitch` times the standard deviation of its F0 in octaves (without F0: 0; without a wave the
    sample is unscorable). Without tokens, without an end or where most is a loop the distance is 0:
    such speech is unlike any other, and of no use.
    """

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        rows = [s.tokens for s in samples]
        found = [_distance(i, rows) if _is_speech(s) else 0.0 for i, s in enumerate(samples)]
        if options.pitch:
            spreads = [_octaves(sample) for sample in samples]
            return [
                None if spread is None else far + options.pitch * spread
                for far, spread in zip(found, spreads, strict=True)
            ]
        return found

    return Reward(reward)


def _is_speech(sample: Sample) -> bool:
    looped = covered(token_loops(sample.tokens))
    return sample.finished and bool(sample.tokens) and 2 * looped <= len(sample.tokens)


def _distance(place: int, tokens: Sequence[Sequence[int]]) -> float:
    """Return the mean normalised edit distance of one to all others; 0 without others."""
    from rapidfuzz.distance import Levenshtein

    others = [row for i, row in enumerate(tokens) if i != place]
    distances = [Levenshtein.normalized_distance(tokens[place], other) for other in others]
    return sum(distances) / len(others) if others else 0.0


def _octaves(sample: Sample) -> float | None:
    """Return the standard deviation of F0; None without a wave."""
    if sample.wave is None:
        return None
    import numpy as np

    from audiorl.score.pitch import find_pitch

    return find_pitch(np.asarray(sample.wave), sample.sample_rate).spread / SEMITONES
