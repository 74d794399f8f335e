"""Whether a hypothesis is right."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.rewards.core.counting import UnitOptions, error_reward
from audiorl.rewards.core.reward import Context, Reward


@dataclass
class Options(UnitOptions):
    """The unit of the errors."""


def build(options: Options, context: Context) -> Reward:
    """Return 1 without any error, else 0."""
    return error_reward(options, context, lambda counts: float(counts.errors == 0))
