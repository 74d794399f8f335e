"""Similarity of the voice to recordings of its speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import batches
from audiorl.rewards.core.reward import Context, Reward, Sample


@dataclass
class Options(RewardOptions):
    """No options of its own."""

    needs = ("wave", "speaker")


def build(options: Options, context: Context) -> Reward:
    """Return (1 + c) / 2 of the cosine c between the speaker vectors of wave and recordings.

    It applies to speakers with recordings; a sample without a wave is unscorable.
    """
    models = context.models

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        found: list[float | None] = [None] * len(samples)
        spoken = [i for i, sample in enumerate(samples) if sample.wave is not None]
        for rows in batches([len(samples[i].wave) for i in spoken]):
            places = [spoken[row] for row in rows]
            vectors = models.speaker([samples[i].wave for i in places]).cpu()
            for i, vector in zip(places, vectors, strict=True):
                cosine = vector @ models.voices[samples[i].utterance.speaker].cpu()
                found[i] = (1 + float(cosine)) / 2
        return found

    return Reward(reward, applies=lambda utterance: utterance.speaker in models.voices)
