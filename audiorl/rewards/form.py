"""Rewards that look at what a hypothesis is like rather than at what it says."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from statistics import median

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.rewards.base import Reward, Sample, deviation
from audiorl.text.detectors import covered, foreign
from audiorl.text.normalise import normal_units


def language(score: ScoreConfig, options: RewardConfig) -> Reward:
    """-1 if half of the hypothesis or more is in a script or language other than the reference's.

    A gate unless it is asked to be a term of the sum (Fun-ASR: the wrong language makes the total
    -1). It applies to utterances with a reference.
    """

    def units(text: str) -> tuple[str, ...]:
        return normal_units(text, score.normalizer, "mixed")

    def one(sample: Sample) -> float:
        hyp = units(sample.text)
        strange = covered(foreign(hyp, units(sample.utterance.text)))
        return -1.0 if strange and 2 * strange >= len(hyp) else 0.0

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [one(sample) for sample in samples]

    return Reward(reward, options.actual_kind, lambda u: bool(units(u.text)), penalty=True)


def format(score: ScoreConfig, options: RewardConfig) -> Reward:
    """-1 unless the hypothesis ends by itself and the whole of it, as output, matches `pattern`."""
    pattern = re.compile(options.pattern)

    def reward(samples: Sequence[Sample]) -> list[float]:
        fits = [s.finished and pattern.fullmatch(s.text) for s in samples]
        return [0.0 if ok else -1.0 for ok in fits]

    return Reward(reward, options.actual_kind, penalty=True)


def length(score: ScoreConfig, options: RewardConfig) -> Reward:
    """-|n - m| / m, floored at -1: n units against the m of the reference, where it has any."""
    units = _counter(score, options)

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [deviation(units(s.text), units(s.utterance.text)) for s in samples]

    return Reward(reward, applies=lambda u: units(u.text) > 0, penalty=True)


def group_length(score: ScoreConfig, options: RewardConfig) -> Reward:
    """-|n - m| / m, floored at -1: n units against the median m of the group (needs no reference).

    The duration reward of the paper's synthesis (section 5), on text.
    """
    units = _counter(score, options)

    def reward(samples: Sequence[Sample]) -> list[float]:
        lengths = [units(sample.text) for sample in samples]
        middle = median(lengths)
        return [deviation(n, middle) for n in lengths]

    return Reward(reward, options.actual_kind, penalty=True)


def _counter(score: ScoreConfig, options: RewardConfig) -> Callable[[str], int]:
    unit = options.unit_or(score.unit)
    return lambda text: len(normal_units(text, score.normalizer, unit))
