"""Rewards: each module here is one, under its name, with `Options` and `build(options, context)`.

A reward of your own is `$AUDIORL_PLUGINS/rewards/<name>.py` (see `audiorl.config.variants`), or the
function in the `reward_file` of the reward `file`.
"""

from audiorl.config.variants import extend_path
from audiorl.rewards.core.build import build_reward, build_rewards, reward_files, wants_waves
from audiorl.rewards.core.combine import HarmonicMean, WeightedSum
from audiorl.rewards.core.reward import BatchRewards, Context, Models, Reward, Sample

__path__ = extend_path(__name__, __path__)

__all__ = [
    "BatchRewards",
    "Context",
    "HarmonicMean",
    "Models",
    "Reward",
    "Sample",
    "WeightedSum",
    "build_reward",
    "build_rewards",
    "reward_files",
    "wants_waves",
]
