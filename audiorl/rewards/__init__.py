"""Rewards by the names that a config uses."""

from __future__ import annotations

from collections.abc import Callable

from audiorl.config.schema import Config, RewardConfig, ScoreConfig
from audiorl.rewards import accuracy, external, form, speech
from audiorl.rewards.base import Reward, Sample, Scores
from audiorl.rewards.combine import HarmonicMean, WeightedSum
from audiorl.rewards.external import reward_files
from audiorl.rewards.hallucination import hallucination
from audiorl.rewards.keywords import keywords
from audiorl.rewards.speech import Models

REWARDS: dict[str, Callable[[ScoreConfig, RewardConfig], Reward]] = {
    "wer": accuracy.wer,
    "wer_exp": accuracy.wer_exp,
    "wer_tanh": accuracy.wer_tanh,
    "edit_distance": accuracy.edit_distance,
    "exact_match": accuracy.exact_match,
    "hallucination": hallucination,
    "keywords": keywords,
    "language": form.language,
    "format": form.format,
    "length": form.length,
    "group_length": form.group_length,
    "file": external.file,
    "http": external.server,
}
# Those of synthesis, which are given models too.
SPEECH_REWARDS: dict[str, Callable[[ScoreConfig, RewardConfig, Models], Reward]] = {
    "duration": speech.duration,
    "tempo": speech.tempo,
    "diversity": speech.diversity,
    "likelihood": speech.likelihood,
    "speaker_similarity": speech.speaker_similarity,
}

__all__ = [
    "REWARDS",
    "SPEECH_REWARDS",
    "HarmonicMean",
    "Models",
    "Reward",
    "Sample",
    "Scores",
    "WeightedSum",
    "build_rewards",
    "reward_files",
]


def build_rewards(config: Config, models: Models | None = None) -> WeightedSum:
    """The rewards of `rl.rewards`, as `rl.reward_combination` puts them together.

    `models`: those that rewards of synthesis ask. Raises UserError if a user's own file is missing
    or cannot be loaded.
    """
    external.reward_files(config)
    combination = HarmonicMean if config.rl.reward_combination == "harmonic" else WeightedSum

    def build(options: RewardConfig) -> Reward:
        if options.name in SPEECH_REWARDS:
            return SPEECH_REWARDS[options.name](config.score, options, models or Models())
        return REWARDS[options.name](config.score, options)

    return combination(
        {
            options.label or options.name: (build(options), options.weight)
            for options in config.rl.rewards
        }
    )
