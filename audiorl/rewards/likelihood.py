"""Likelihood of the text given the speech tokens, by the reward model (arXiv 2509.18798)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import batches
from audiorl.rewards.core.reward import Context, Reward, Sample

if TYPE_CHECKING:
    from audiorl.models.token_recogniser import TokenRecogniser


@dataclass
class Options(RewardOptions):
    """The steepness."""

    needs = ("tokens", "reward_model")

    k: float = key(1 / 3, "steepness in exp(-k NLL), of the NLL per character", gt=0)


def build(options: Options, context: Context) -> Reward:
    """Return exp(-k NLL): the reward model's negative log P(text | tokens) per character.

    It is finer than an error rate: samples that are recognised alike differ. 0 if the tokens are
    too few for the text.
    """

    def reward(samples: Sequence[Sample]) -> list[float]:
        import numpy as np

        found = np.empty(len(samples))
        for rows in batches([len(sample.tokens) for sample in samples]):
            chosen = [samples[row] for row in rows]
            found[rows] = _log_likelihoods(context.models.recogniser, chosen)
        return np.exp(options.k * found).tolist()

    return Reward(reward)


def _log_likelihoods(recogniser: TokenRecogniser, samples: Sequence[Sample]) -> list[float]:
    """Return log P(text | tokens) per character; -inf where there is no room."""
    import torch

    texts = [sample.utterance.text for sample in samples]
    tokens, lengths = recogniser.pad([sample.tokens for sample in samples])
    with torch.no_grad():
        found = recogniser.log_likelihood(recogniser.embed(tokens), lengths, texts)
    units = [recogniser.units(text) for text in texts]
    return [value / n for value, n in zip(found.tolist(), units, strict=True)]
