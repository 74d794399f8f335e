"""Number of errors: long utterances weigh more, as in the error rate of a corpus."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.rewards.core.counting import UnitOptions, error_reward
from audiorl.rewards.core.reward import Context, Reward


@dataclass
class Options(UnitOptions):
    """The unit of the errors."""

    penalty, bounded = True, False


def build(options: Options, context: Context) -> Reward:
    """Return minus the number of errors."""
    return error_reward(options, context, lambda counts: -float(counts.errors))
