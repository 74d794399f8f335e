"""Length of the hypothesis, compared with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.rewards.core.counting import UnitOptions, deviation
from audiorl.rewards.core.reward import Context, Reward, Sample


@dataclass
class Options(UnitOptions):
    """The unit of the length."""

    penalty = True


def build(options: Options, context: Context) -> Reward:
    """Return -|n - m| / m, floored at -1: n units against the m of the reference.

    It applies where the reference has any.
    """
    units = options.splitter(context)

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [deviation(len(units(s.text)), len(units(s.utterance.text))) for s in samples]

    return Reward(reward, applies=lambda utterance: bool(units(utterance.text)))
