"""A group of hypotheses for each utterance, as an RL step and a difficulty probe need it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiorl.config.schema import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import Sample
from audiorl.rollout.native import Rollout, generate
from audiorl.rollout.sampling import Sampling, uniform_table


def rl_sampling(rl: RLConfig) -> Sampling:
    """The distribution that RL samples from and scores."""
    return Sampling(rl.temperature, rl.top_k, rl.top_p)


@torch.no_grad()
def sample_groups(
    model: AudioLLM, utterances: Sequence[Utterance], frames: Sequence[Tensor], step: int
) -> tuple[Rollout, list[Sample]]:
    """Draws G = rl.num_generations hypotheses of each utterance from its frames [T_i, D].

    Returns the rollout and its samples, both of B * G rows, the G of an utterance side by side.
    `step` picks the random numbers.
    """
    rl = model.config.rl
    ids = [u.id for u in utterances]
    uniforms = uniform_table(
        model.config.seed, step, ids, rl.num_generations, rl.max_completion_length
    )
    return _roll(model, utterances, frames, rl.num_generations, rl_sampling(rl), uniforms)


@torch.no_grad()
def greedy_samples(
    model: AudioLLM, utterances: Sequence[Utterance], frames: Sequence[Tensor]
) -> list[Sample]:
    """The greedy hypothesis of each utterance."""
    return _roll(model, utterances, frames, 1, Sampling(greedy=True), None)[1]


def _roll(
    model: AudioLLM,
    utterances: Sequence[Utterance],
    frames: Sequence[Tensor],
    group: int,
    sampling: Sampling,
    uniforms: Tensor | None,
) -> tuple[Rollout, list[Sample]]:
    tokenizer = model.tokenizer
    rollout = generate(
        model.llm,
        model.prefix(frames),
        group=group,
        max_length=model.config.rl.max_completion_length,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
        forbidden=model.forbidden,
        sampling=sampling,
        uniforms=uniforms,
    )
    rows = zip(rollout.tokens, rollout.mask, rollout.finished.tolist(), strict=True)
    samples = [
        Sample(utterances[i // group], tokenizer.decode(tokens[mask].tolist()), finished)
        for i, (tokens, mask, finished) in enumerate(rows)
    ]
    return rollout, samples
