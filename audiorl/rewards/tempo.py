"""Duration of speech, compared with the utterance's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import deviation
from audiorl.rewards.core.reward import Context, Reward, Sample


@dataclass
class Options(RewardOptions):
    """No options of its own."""

    needs, penalty = ("tokens", "token_rate"), True


def build(options: Options, context: Context) -> Reward:
    """Return -|n - m| / m, floored at -1: n seconds against the m of the utterance's duration.

    That is the recording's or, of a text alone, how long the start model spoke it (stage 4). With
    `duration` a group can drift as a whole, since its median drifts along; this reward holds it.
    """
    rate = context.models.token_rate

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [deviation(len(s.tokens) / rate, s.utterance.duration) for s in samples]

    return Reward(reward, applies=lambda utterance: utterance.duration is not None)
