"""Rewards from their options in a config."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from audiorl.config.rewards import REWARDS, RewardOptions
from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.rewards.core.combine import HarmonicMean, WeightedSum
from audiorl.rewards.core.reward import Context, Models, Reward


def build_rewards(config: Config, models: Models | None = None) -> WeightedSum:
    """Return the rewards of `rl.rewards`, combined as `rl.reward_combination` says.

    `models`: those that rewards of synthesis need. Raises UserError if a user's own file is missing
    or cannot be loaded.
    """
    reward_files(config)
    context = Context(config.score, models or Models())
    rewards = {
        options.label or options.name: (build_reward(options, context), options.weight)
        for options in config.rl.rewards
    }
    # In recognition the wave of a sample is its recording; in synthesis it is spoken.
    rate = config.data.sample_rate if wants_waves(config) and not config.speaks else None
    combination = HarmonicMean if config.rl.reward_combination == "harmonic" else WeightedSum
    return combination(rewards, rate)


def build_reward(options: RewardOptions, context: Context) -> Reward:
    """Return one reward, of the kind that its options say."""
    reward = REWARDS.module(options.name).build(options, context)
    return replace(reward, kind=options.actual_kind, penalty=options.penalty)


def wants_waves(config: Config) -> bool:
    """Return whether a reward looks at `Sample.wave`, which then has to be made or read."""
    return any("wave" in options.needs for options in config.rl.rewards)


def reward_files(config: Config) -> dict[str, Path]:
    """Return the users' code among the rewards, by its path in the experiment.

    Raises UserError if a `reward_file` does not exist.
    """
    files = {}
    for options in config.rl.rewards:
        if plugin := REWARDS.plugin(options.name):
            files[f"rewards/{plugin.name}"] = plugin
        files |= {str(path): path for path in options.files}
    for path in files.values():
        if not path.is_file():
            raise UserError(f"{path} does not exist; fix reward_file of rl.rewards.")
    return files
