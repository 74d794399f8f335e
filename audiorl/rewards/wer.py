"""Error rate: R1 of the paper (section 4.1)."""

from __future__ import annotations

from audiorl.rewards.core.counting import UnitOptions as Options
from audiorl.rewards.core.counting import error_reward
from audiorl.rewards.core.reward import Context, Reward


def build(options: Options, context: Context) -> Reward:
    """Return 1 - error rate, floored at -1.

    The floor keeps one burst of insertions from outweighing all else in its group.
    """
    return error_reward(options, context, lambda counts: max(-1.0, 1.0 - counts.rate))
