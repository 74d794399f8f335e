"""Rewards that count the errors of a hypothesis.

Normalisation is that of scoring, and so are the units unless the reward names others, so that the
reward is the metric. An utterance whose reference is empty after normalisation has no error rate:
these rewards do not apply to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.data.utterance import Utterance
from audiorl.rewards.base import Reward, Sample, errors
from audiorl.text.align import Counts
from audiorl.text.normalise import normal_units


def wer(score: ScoreConfig, options: RewardConfig) -> Reward:
    """R1 of the paper (section 4.1): 1 - error rate, floored at -1.

    The floor keeps one burst of insertions from outweighing all else in its group.
    """
    return _by_errors(score, options, lambda counts: max(-1.0, 1.0 - counts.rate))


def wer_exp(score: ScoreConfig, options: RewardConfig) -> Reward:
    """exp(-k c) of the error rate c: steepest where there are few errors (GLM-TTS; k 2.5)."""
    k = options.k or 2.5
    return _by_errors(score, options, lambda counts: math.exp(-k * counts.rate))


def wer_tanh(score: ScoreConfig, options: RewardConfig) -> Reward:
    """1 - tanh(k c) of the error rate c: all that is bad is about equally bad (CosyVoice; k 3)."""
    k = options.k or 3.0
    return _by_errors(score, options, lambda counts: 1.0 - math.tanh(k * counts.rate))


def edit_distance(score: ScoreConfig, options: RewardConfig) -> Reward:
    """Minus the number of errors: long utterances weigh more, as in the corpus' error rate."""
    return _by_errors(score, options, lambda counts: -float(counts.errors), penalty=True)


def exact_match(score: ScoreConfig, options: RewardConfig) -> Reward:
    """1 without any error, else 0."""
    return _by_errors(score, options, lambda counts: float(counts.errors == 0))


def _by_errors(
    score: ScoreConfig,
    options: RewardConfig,
    value: Callable[[Counts], float],
    penalty: bool = False,
) -> Reward:
    unit = options.unit_or(score.unit)

    def units(text: str) -> tuple[str, ...]:
        return normal_units(text, score.normalizer, unit)

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [value(errors(units(s.utterance.text), units(s.text))) for s in samples]

    def applies(utterance: Utterance) -> bool:
        return bool(units(utterance.text))

    return Reward(reward, applies=applies, penalty=penalty)
