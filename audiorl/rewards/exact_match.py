"""Whether a hypothesis is right."""

from __future__ import annotations

from audiorl.rewards.core.counting import UnitOptions as Options
from audiorl.rewards.core.counting import error_reward
from audiorl.rewards.core.reward import Context, Reward


def build(options: Options, context: Context) -> Reward:
    """Return 1 without any error, else 0."""
    return error_reward(options, context, lambda counts: float(counts.errors == 0))
