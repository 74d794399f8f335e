"""Rewards that compare a hypothesis with its reference."""

from __future__ import annotations

from collections.abc import Sequence

from audiorl.config.schema import ScoreConfig
from audiorl.data.text import normalizer, split_units
from audiorl.rewards.base import Reward, Sample
from audiorl.score.align import count_errors


def wer(score: ScoreConfig) -> Reward:
    """R1 of the paper (section 4.1): 1 - error rate, floored at -1.

    Normalisation and units are those of scoring, so that the reward is the metric. The floor keeps
    one burst of insertions from outweighing all else in its group. A reference that is empty after
    normalisation has no rate: its samples are unscorable.
    """
    clean = normalizer(score.normalizer)

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        return [one(sample.utterance.text, sample.text) for sample in samples]

    def one(reference: str, hypothesis: str) -> float | None:
        expected = split_units(clean(reference), score.unit)
        if not expected:
            return None
        counts = count_errors(expected, split_units(clean(hypothesis), score.unit))
        return max(-1.0, 1.0 - counts.rate)

    return reward
