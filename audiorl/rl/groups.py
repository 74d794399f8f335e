"""A group of responses to each utterance, as an RL step and a difficulty probe need it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from audiorl.config.schema import RLConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.native import Rollout, generate
from audiorl.engines.sampling import Sampling, uniform_table
from audiorl.models.policy import Policy
from audiorl.models.tokenizer import Tokenizer
from audiorl.rewards import Sample

# Makes samples of the B * G rows of a rollout for B utterances.
Interpret = Callable[[Sequence[Utterance], Rollout], list[Sample]]


def rl_sampling(rl: RLConfig) -> Sampling:
    """The distribution that RL samples from and scores."""
    return Sampling(rl.temperature, rl.top_k, rl.top_p)


def read_text(tokenizer: Tokenizer) -> Interpret:
    """Recognition: a response is text as it is."""

    def read(utterances: Sequence[Utterance], rollout: Rollout) -> list[Sample]:
        group = len(rollout) // len(utterances)
        rows = zip(rollout.tokens, rollout.mask, rollout.finished.tolist(), strict=True)
        return [
            Sample(utterances[i // group], tokenizer.decode(tokens[mask].tolist()), finished)
            for i, (tokens, mask, finished) in enumerate(rows)
        ]

    return read


@torch.no_grad()
def sample_groups(
    model: Policy,
    utterances: Sequence[Utterance],
    conditions: Sequence[Tensor],
    step: int,
    greedy: bool = False,
) -> Rollout:
    """Draws G = rl.num_generations responses to each utterance from its condition.

    Returns a rollout of B * G rows, the G of an utterance side by side; with `greedy`, of
    B * (G + 1) rows, the greedy response behind each G. `step` picks the random numbers.
    """
    rl = model.config.rl
    ids, group = [u.id for u in utterances], rl.num_generations
    uniforms = uniform_table(model.config.seed, step, ids, group, rl.max_completion_length)
    if greedy:  # a prefix is then read once for all of them
        uniforms = F.pad(uniforms.view(len(ids), group, -1), (0, 0, 0, 1), value=torch.nan)
        uniforms, group = uniforms.flatten(0, 1), group + 1
    return _roll(model, conditions, group, rl_sampling(rl), uniforms)


@torch.no_grad()
def greedy_group(model: Policy, conditions: Sequence[Tensor]) -> Rollout:
    """The greedy response to each condition."""
    return _roll(model, conditions, 1, Sampling(greedy=True), None)


def _roll(
    model: Policy,
    conditions: Sequence[Tensor],
    group: int,
    sampling: Sampling,
    uniforms: Tensor | None,
) -> Rollout:
    return generate(
        model.llm,
        model.prefix(conditions),
        group=group,
        max_length=model.config.rl.max_completion_length,
        eos_id=model.eos_id,
        pad_id=model.pad_id,
        forbidden=model.forbidden,
        sampling=sampling,
        uniforms=uniforms,
    )
