"""How hard utterances are for a policy: sample each several times and look at the rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from audiorl.data.utterance import Utterance
from audiorl.files import progress
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import WeightedSum
from audiorl.rl.advantages import flat_groups, group_std
from audiorl.rollout.groups import sample_groups
from audiorl.rollout.transcribe import batches_by_seconds, encode_utterances

PROBE_STEP = 2**31  # no step of a training run draws the same random numbers


@dataclass(frozen=True)
class Difficulty:
    """Rewards of the hypotheses that a policy sampled for one utterance."""

    reward_mean: float
    reward_std: float
    reward_best: float
    flat: bool  # all rewards equal: such a group teaches nothing


def probe(
    model: AudioLLM, utterances: Sequence[Utterance], rewards: WeightedSum
) -> dict[str, Difficulty]:
    """Samples `rl.num_generations` hypotheses of each utterance, as the first RL step would."""
    group = model.config.rl.num_generations
    found: dict[str, Difficulty] = {}
    with progress(desc="probing difficulty", total=len(utterances), unit="utt") as bar:
        for batch in batches_by_seconds(utterances, model.config.decode.batch_seconds / group):
            _, samples = sample_groups(model, batch, encode_utterances(model, batch), PROBE_STEP)
            scored = torch.tensor(rewards(samples).total).view(len(batch), group)
            rows = zip(
                batch,
                scored.nanmean(1).tolist(),
                group_std(scored).tolist(),
                scored.nan_to_num(-torch.inf).max(1).values.tolist(),
                flat_groups(scored).tolist(),
                strict=True,
            )
            found.update({u.id: Difficulty(*numbers) for u, *numbers in rows})
            bar.update(len(batch))
    return found
