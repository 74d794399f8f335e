"""Duration of speech, compared with the group: R2 of the paper's synthesis (section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import deviations_from_median
from audiorl.rewards.core.reward import Context, Reward, Sample


@dataclass
class Options(RewardOptions):
    """No options of its own."""

    kinds, needs, penalty = ("group",), ("tokens",), True


def build(options: Options, context: Context) -> Reward:
    """Return -|n - m| / m, floored at -1: n tokens against the median m of the group.

    It takes back what a policy gains in accuracy by speaking slowly.
    """

    def reward(samples: Sequence[Sample]) -> list[float]:
        return deviations_from_median([len(sample.tokens) for sample in samples])

    return Reward(reward)
