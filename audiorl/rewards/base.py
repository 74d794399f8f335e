"""What a reward is, and how several make one number."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from audiorl.data.utterance import Utterance

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One hypothesis to be rewarded."""

    utterance: Utterance
    text: str
    finished: bool  # False if the length limit cut it


# A reward scores a batch; None means that a sample cannot be scored (it is never worth 0).
Reward = Callable[[Sequence[Sample]], list[float | None]]


@dataclass
class Scores:
    """Rewards of a batch: the weighted sum and each part raw; NaN is unscorable."""

    total: list[float]
    parts: dict[str, list[float]]


class WeightedSum:
    """The sum of rewards times their weights; a sample without one of its parts is unscorable."""

    def __init__(self, rewards: dict[str, tuple[Reward, float]]) -> None:
        self.rewards = rewards

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        parts = {
            name: self._score(name, reward, samples) for name, (reward, _) in self.rewards.items()
        }
        weights = [weight for _, weight in self.rewards.values()]
        total = [
            sum(w * value for w, value in zip(weights, values, strict=True))
            for values in zip(*parts.values(), strict=True)
        ]
        return Scores(total, parts)

    @staticmethod
    def _score(name: str, reward: Reward, samples: Sequence[Sample]) -> list[float]:
        try:
            values = reward(samples)
        except Exception:
            # A reward is a rule, a model or somebody's server: its failure must not pass for a bad
            # hypothesis. The samples are counted as unscorable; over a threshold the run stops.
            log.exception("reward %s failed on %d samples; they are unscorable", name, len(samples))
            return [math.nan] * len(samples)
        if len(values) != len(samples):
            raise AssertionError(f"reward {name}: {len(values)} values for {len(samples)} samples")
        return [math.nan if value is None else float(value) for value in values]
