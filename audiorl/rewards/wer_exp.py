"""Error rate, steepest where there are few errors (GLM-TTS)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.rewards.core.counting import UnitOptions, error_reward
from audiorl.rewards.core.reward import Context, Reward


@dataclass
class Options(UnitOptions):
    """The unit of the error rate, and the steepness."""

    k: float = key(2.5, "steepness in exp(-k c), of the error rate c", gt=0)


def build(options: Options, context: Context) -> Reward:
    """Return exp(-k c) of the error rate c."""
    return error_reward(options, context, lambda counts: math.exp(-options.k * counts.rate))
