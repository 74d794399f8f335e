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
    weights: dict[str, float]  # of the parts in the sum

    def add(self, name: str, values: list[float], weight: float) -> None:
        """One more part of the sum."""
        self.parts, self.weights = {**self.parts, name: values}, {**self.weights, name: weight}
        self.total = [t + weight * v for t, v in zip(self.total, values, strict=True)]

    def select(self, rows: Sequence[int]) -> Scores:
        """Those of some samples."""
        parts = {name: [values[r] for r in rows] for name, values in self.parts.items()}
        return Scores([self.total[r] for r in rows], parts, self.weights)

    def join(self, other: Scores) -> Scores:
        """Those of both batches."""
        parts = {name: values + other.parts[name] for name, values in self.parts.items()}
        return Scores(self.total + other.total, parts, self.weights)


class WeightedSum:
    """The sum of rewards times their weights; a sample without one of its parts is unscorable."""

    def __init__(self, rewards: dict[str, tuple[Reward, float]]) -> None:
        self.rewards = rewards

    def submit(self, samples: Sequence[Sample]) -> Callable[[], Scores]:
        """Scores them at once, for whoever could wait (see `RewardWorkers`)."""
        scores = self(samples)
        return lambda: scores

    def __call__(self, samples: Sequence[Sample]) -> Scores:
        parts = {
            name: self._score(name, reward, samples) for name, (reward, _) in self.rewards.items()
        }
        weights = {name: weight for name, (_, weight) in self.rewards.items()}
        total = [
            sum(w * value for w, value in zip(weights.values(), values, strict=True))
            for values in zip(*parts.values(), strict=True)
        ]
        return Scores(total, parts, weights)

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
        # What is infinite has no distance from its group, no more than what is missing.
        return [float(v) if v is not None and math.isfinite(v) else math.nan for v in values]
