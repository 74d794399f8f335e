"""Error rate, for which all bad hypotheses are about equally bad (CosyVoice)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.rewards.core.counting import UnitOptions, error_reward
from audiorl.rewards.core.reward import Context, Reward


@dataclass
class Options(UnitOptions):
    """The unit of the error rate, and the steepness."""

    k: float = key(3.0, "steepness in 1 - tanh(k c), of the error rate c", gt=0)


def build(options: Options, context: Context) -> Reward:
    """Return 1 - tanh(k c) of the error rate c."""
    return error_reward(options, context, lambda counts: 1.0 - math.tanh(options.k * counts.rate))
