"""Counting and comparing, for several rewards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import CACHED_TEXTS, normal_units

BATCH = 32  # samples that a model is given at once


@dataclass
class UnitOptions(RewardOptions):
    """Options of a reward that counts units of text."""

    unit: str = key(
        "auto", "what is counted; auto: score.unit", choices=("auto", "word", "char", "mixed")
    )

    def splitter(self, context: Context) -> Callable[[str], tuple[str, ...]]:
        """Return the function that normalises a text as scoring does and splits it into units."""
        unit = context.score.unit if self.unit == "auto" else self.unit
        return lambda text: normal_units(text, context.score.normalizer, unit)


def error_reward(
    options: UnitOptions, context: Context, value: Callable[[Counts], float]
) -> Reward:
    """Return the reward that is `value` of the errors of a hypothesis.

    It does not apply where the reference is empty after normalisation: there is no error rate.
    """
    units = options.splitter(context)

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [value(errors(units(s.utterance.text), units(s.text))) for s in samples]

    return Reward(reward, applies=lambda utterance: bool(units(utterance.text)))


@functools.lru_cache(maxsize=CACHED_TEXTS)
def errors(ref: tuple[str, ...], hyp: tuple[str, ...]) -> Counts:
    """Count the errors of a hypothesis; cached, because several rewards ask in a batch."""
    return count_errors(ref, hyp)


def deviation(length: float, wanted: float) -> float:
    """Return -|length - wanted| / wanted, floored at -1."""
    if length == wanted:
        return 0.0
    return -min(1.0, abs(length - wanted) / wanted) if wanted else -1.0


def deviations_from_median(lengths: Sequence[int]) -> list[float]:
    """Return the deviation of each length from their median."""
    middle = median(lengths)
    return [deviation(length, middle) for length in lengths]


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return places in batches of `BATCH`, similar lengths together."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]
