"""GRPO steps on sung utterances, and the same steps by slow and obvious code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from tiny import tiny_model
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import Sample, WeightedSum
from audiorl.rl.frames import FrameStore
from audiorl.rl.grpo import GRPO

Reward = Callable[[list[Sample]], list[float | None]]
SPREAD = 3.0  # a random model that sometimes ends a hypothesis before the limit


@dataclass
class Recorder:
    """Stands for the optimizer: keeps the gradients, and changes nothing."""

    model: AudioLLM
    gradients: list[dict[str, Tensor]] = field(default_factory=list)

    def zero_grad(self) -> None:
        self.model.zero_grad()

    def step(self, scale: float, max_norm: float, utterances: list[Utterance]) -> float:
        named = self.model.named_parameters()
        self.gradients.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        return 0.0


def some_reward(samples: list[Sample]) -> list[float]:
    """Differs between the hypotheses of an utterance, and for one hypothesis by utterance."""
    return [(len(s.text) % 7) / 7 + 0.1 * (len(s.utterance.text) % 3) for s in samples]


def learning_model(keys: dict | None = None, seed: int = 0) -> AudioLLM:
    model = tiny_model(keys, seed=seed, spread=SPREAD)
    model.requires_grad_(False)
    for part in model.config.rl.train:
        getattr(model, part).requires_grad_(True)
    return model


def learner(
    model: AudioLLM,
    reward: Reward = some_reward,
    reference: AudioLLM | None = None,
    optimizer: object | None = None,
) -> GRPO:
    frames = FrameStore(model, frozen="encoder" not in model.config.rl.train)
    rewards = WeightedSum({"some": (reward, 1.0)})
    return GRPO(model, reference, rewards, optimizer or Recorder(model), frames)


def one_step(
    utterances: list[Utterance],
    keys: dict | None = None,
    reward: Reward = some_reward,
    reference: AudioLLM | None = None,
    step: int = 0,
):
    """(gradients by parameter, metrics, completions) of one step of a fresh learner."""
    model = learning_model(keys)
    grpo = learner(model, reward, reference)
    output = grpo.step(step, utterances, 1.0)
    return grpo.optimizer.gradients[-1], output.metrics, output.completions


def slow_gradients(
    model: AudioLLM,
    utterances: list[Utterance],
    sampled: dict[tuple[str, int], tuple[list[int], bool]],
    rewards: dict[tuple[str, int], float],
    reference: AudioLLM | None = None,
) -> tuple[dict[str, Tensor], float]:
    """Gradients and loss of an on-policy step, a sample at a time, with the LM's own forward.

    sampled: (utterance id, member) -> token ids and whether they ended; rewards likewise, NaN
    where there is none.
    """
    rl = model.config.rl
    counted = {
        key: ids
        for key, (ids, finished) in sampled.items()
        if not math.isnan(rewards[key]) and (finished or not rl.mask_truncated_completions)
    }
    tokens = sum(len(ids) for ids in counted.values())
    every = [r for r in rewards.values() if not math.isnan(r)]
    total = torch.zeros(())
    for u in utterances:
        group = [rewards[u.id, g] for g in range(rl.num_generations)]
        known = torch.tensor([r for r in group if not math.isnan(r)])
        for g in range(rl.num_generations):
            if (u.id, g) not in counted:
                continue
            advantage = group[g] - known.mean()
            if rl.scale_rewards == "group":
                advantage = advantage / (known.std() + 1e-4 if len(known) > 1 else 1e-4)
            elif rl.scale_rewards == "batch":
                advantage = advantage / (torch.tensor(every).std() + 1e-4)
            ids = counted[u.id, g]
            logps = slow_logps(model, u, ids)
            ratio = (logps - logps.detach()).exp()
            loss = -ratio * advantage
            if reference is not None:
                with torch.no_grad():
                    difference = slow_logps(reference, u, ids)
                difference = difference - logps
                loss = loss + rl.beta * (difference.exp() - difference - 1)
            total = (
                total
                + loss.sum()
                * {
                    "grpo": 1 / (len(ids) * len(sampled)),
                    "dapo": 1 / tokens,
                    "dr_grpo": 1 / (len(sampled) * rl.max_completion_length),
                }[rl.loss_type]
            )
    model.zero_grad()
    total.backward()
    named = model.named_parameters()
    return {n: p.grad.clone() for n, p in named if p.grad is not None}, total.item()


def slow_logps(model: AudioLLM, utterance: Utterance, ids: list[int]) -> Tensor:
    """Log-probabilities [R] of one response, from the wave on, without batch or cache."""
    wave = torch.from_numpy(read_audio(utterance, model.config.data.sample_rate))
    prefix = model.prefix(model.encode([wave])).embeds[0]
    embeds = torch.cat([prefix, model.llm.get_input_embeddings()(torch.tensor(ids))])
    logits = model.llm(inputs_embeds=embeds[None]).logits[0, len(prefix) - 1 : -1]
    logits = logits.masked_fill(model.forbidden, -torch.inf) / model.config.rl.temperature
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids]


def close(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-5) -> None:
    """Equal to `limit` of the largest gradient; no gradient counts as one of zeros."""
    largest = max(g.abs().max().item() for g in expected.values())
    assert largest > 0
    for name in actual.keys() | expected.keys():
        one, other = actual.get(name, torch.zeros(())), expected.get(name, torch.zeros(()))
        difference = (one - other).abs().max().item()
        assert difference <= limit * largest, f"{name}: {difference} of {largest}"
