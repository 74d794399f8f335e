"""Rewards by the names that a config uses."""

from __future__ import annotations

from audiorl.config.schema import Config
from audiorl.rewards.accuracy import wer
from audiorl.rewards.base import Sample, Scores, WeightedSum

REWARDS = {"wer": wer}

__all__ = ["REWARDS", "Sample", "Scores", "WeightedSum", "build_rewards"]


def build_rewards(config: Config) -> WeightedSum:
    """The rewards of `rl.rewards`, summed with their weights."""
    return WeightedSum(
        {r.name: (REWARDS[r.name](config.score), r.weight) for r in config.rl.rewards}
    )
