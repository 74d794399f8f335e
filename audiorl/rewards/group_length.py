"""Length of the hypothesis, compared with its group: `duration` for text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.rewards.core.counting import UnitOptions, deviations_from_median
from audiorl.rewards.core.reward import Context, Reward, Sample


@dataclass
class Options(UnitOptions):
    """The unit of the length."""

    kinds, penalty = ("group",), True


def build(options: Options, context: Context) -> Reward:
    """Return -|n - m| / m, floored at -1: n units against the median m of the group.

    It needs no reference, but that somebody speaks: where nobody does, the median is made up.
    """
    units = options.splitter(context)

    def reward(samples: Sequence[Sample]) -> list[float]:
        return deviations_from_median([len(units(sample.text)) for sample in samples])

    return Reward(reward, applies=lambda utterance: utterance.has_speech)
