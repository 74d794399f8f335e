"""GRPO steps on sung utterances, and the same steps by slow and obvious code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from slow_formulas import Response, slow_advantages, slow_gdpo, slow_kl, slow_loss
from tiny import sampler, tiny_model
from torch import Tensor

from audiorl.config.loader import load_recipe
from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.infer.transcribe import encode_utterances
from audiorl.models.audio_llm import AudioLLM
from audiorl.rewards import Sample, WeightedSum
from audiorl.rl import grpo as grpo_module
from audiorl.rl.collect import MorePrompts
from audiorl.rl.frames import FrameStore
from audiorl.rl.groups import Sampler, read_text
from audiorl.rl.grpo import GRPO, StepOutput

Reward = Callable[[list[Sample]], list[float | None]]
Rewards = Reward | dict[str, tuple[Reward, float]]  # several by name, with their weights
SPREAD = 3.0  # a random model that sometimes ends a hypothesis before the limit
ALGORITHMS = sorted(Path(__file__).resolve().parents[2].glob("conf/algorithms/*.yaml"))


def preset(path: Path) -> dict:
    """The keys of a file of conf/algorithms, dotted; lengths fit for tiny hypotheses."""
    recipe = load_recipe(path)
    keys = {key: getattr(recipe.config.rl, key.removeprefix("rl.")) for key in recipe.origins}
    if "rl.overlong_buffer" in keys:
        keys["rl.overlong_buffer"] = 3
    if "rl.mask_truncated_completions" in keys:  # some of each mini-batch are to end
        keys["rl.max_completion_length"] = 30
    return keys


@dataclass
class Recorder:
    """Stands for the optimizer: keeps the gradients, and steps down them at `rate`."""

    model: AudioLLM
    rate: float = 0.0
    gradients: list[dict[str, Tensor]] = field(default_factory=list)

    def zero_grad(self) -> None:
        self.model.zero_grad()

    @torch.no_grad()
    def step(self, scale: float, max_norm: float, utterances: list[Utterance]) -> float:
        named = {n: p for n, p in self.model.named_parameters() if p.grad is not None}
        self.gradients.append({n: p.grad.clone() for n, p in named.items()})
        for parameter in named.values():
            parameter -= self.rate * parameter.grad
        return 0.0


def step_prompts(utterances: list[Utterance], count: int, seed: int, step: int) -> list[Utterance]:
    """Some utterances for a step, none of them twice."""
    order = torch.randperm(
        len(utterances), generator=torch.Generator().manual_seed(1000 * seed + step)
    )
    return [utterances[i] for i in order[:count]]


def more_prompts(
    utterances: list[Utterance], seed: int, step: int, attempt: int, taken: set[str], count: int
) -> list[Utterance]:
    """Some that are not taken, fewer if there are no more."""
    order = step_prompts(utterances, len(utterances), seed, 100 * step + attempt)
    return [u for u in order if u.id not in taken][:count]


def some_reward(samples: list[Sample]) -> list[float]:
    """Differs between the hypotheses of an utterance, and for one hypothesis by utterance."""
    return [(len(s.text) % 7) / 7 + 0.1 * (len(s.utterance.text) % 3) for s in samples]


def brevity(samples: list[Sample]) -> list[float]:
    """Of another size than the other reward."""
    return [-10.0 * len(s.text.split()) for s in samples]


TWO: Rewards = {"some": (some_reward, 1.0), "brevity": (brevity, 0.02)}


def weighted(rewards: Rewards) -> WeightedSum:
    return WeightedSum(rewards if isinstance(rewards, dict) else {"some": (rewards, 1.0)})


def learning_model(keys: dict | None = None, seed: int = 0, spread: float = SPREAD) -> AudioLLM:
    model = tiny_model(keys, seed=seed, spread=spread)
    model.requires_grad_(False)
    for part in model.recipe.rl.train:
        getattr(model, part).requires_grad_(True)
    return model


def other_model() -> AudioLLM:
    """What stands for a reference: the policy a little off."""
    model = learning_model().requires_grad_(False)
    generator = torch.Generator().manual_seed(6)
    for parameter in model.llm.parameters():
        parameter.mul_(1 + 0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def foreign_engine(monkeypatch) -> None:
    """From here on rollouts report log-probabilities that are some way off the policy's own.

    The ratio then differs from 1 in the very first update, so that clips bite there.
    """
    original = Sampler.groups

    def sample(self, utterances, conditions, step):
        rollout = original(self, utterances, conditions, step)
        for i in range(len(rollout)):
            # By what was sampled alone, not by its place in the batch.
            utterance = utterances[i * len(utterances) // len(rollout)]
            seed = sum(utterance.id.encode()) + 7 * int(rollout.tokens[i].sum())
            noise = torch.randn(64, generator=torch.Generator().manual_seed(seed))
            mask = rollout.mask[i]
            rollout.logps[i, mask] += 0.3 * noise[: int(mask.sum())]
        return rollout

    monkeypatch.setattr(Sampler, "groups", sample)


def learner(
    model: AudioLLM,
    reward: Rewards = some_reward,
    reference: AudioLLM | None = None,
    optimizer: object | None = None,
    more: MorePrompts | None = None,
    own: Sampler | None = None,
) -> GRPO:
    frames = FrameStore(model, frozen="encoder" not in model.recipe.rl.train)
    optimizer, read = optimizer or Recorder(model), read_text(model.tokenizer)
    own = own or sampler(model)
    return GRPO(own, reference, weighted(reward), optimizer, frames, read, more)


def one_step(
    utterances: list[Utterance],
    keys: dict | None = None,
    reward: Rewards = some_reward,
    reference: AudioLLM | None = None,
    step: int = 0,
):
    """(gradients by parameter, metrics, completions) of one step of a fresh learner."""
    gradients, output = several_updates(utterances, keys, reward, reference, step=step)
    return gradients[-1], output.metrics, output.completions


def several_updates(
    utterances: list[Utterance],
    keys: dict | None = None,
    reward: Rewards = some_reward,
    reference: AudioLLM | None = None,
    rate: float = 0.0,
    step: int = 0,
) -> tuple[list[dict[str, Tensor]], StepOutput]:
    """The gradients of each update of one step of a fresh learner, which follows them at `rate`."""
    model = learning_model(keys)
    grpo = learner(model, reward, reference, Recorder(model, rate), lambda *_: [])
    output = grpo.step(step, utterances, 1.0)
    return grpo.optimizer.gradients, output


def slow_step(utterances, keys=None, reward=some_reward, reference=None):
    """(gradients, loss) of the same step."""
    gradients, losses = slow_updates(utterances, keys, reward, reference)
    return gradients[-1], losses[-1]


@dataclass
class Sampled:
    """One hypothesis and what is known of it."""

    utterance: Utterance
    ids: list[int]
    finished: bool
    rollout_logps: list[float]
    reward: float = 0.0  # NaN: unscorable
    parts: dict[str, float] = field(default_factory=dict)
    old: list[float] = field(default_factory=list)
    advantage: float = 0.0


def slow_updates(
    utterances: list[Utterance],
    keys: dict | None = None,
    reward: Rewards = some_reward,
    reference: AudioLLM | None = None,
    rate: float = 0.0,
) -> tuple[list[dict[str, Tensor]], list[float]]:
    """Gradients and losses of each update of a step, a hypothesis at a time, with the LM's forward.

    Only sampling is the code under test (test_native.py proves it).
    """
    model = learning_model(keys)
    rl = model.recipe.rl
    groups = slow_groups(model, utterances, weighted(reward), reference)
    gradients, losses = [], []
    for _ in range(rl.num_iterations):
        size = rl.mini_batch_prompts or len(groups)
        for first in range(0, len(groups), size):
            chosen = groups[first : first + size]
            model.zero_grad()
            loss = slow_loss(rl, [slow_responses(model, group, reference) for group in chosen])
            loss.backward()
            recorder = Recorder(model, rate)
            recorder.step(1.0, 1.0, [])
            gradients += recorder.gradients
            losses.append(loss.item())
    return gradients, losses


def slow_groups(
    model: AudioLLM,
    utterances: list[Utterance],
    rewards: WeightedSum,
    reference: AudioLLM | None,
) -> list[list[Sampled]]:
    """The groups of a step with their rewards, advantages and old log-probabilities."""
    rl = model.recipe.rl
    frames = encode_utterances(model, utterances)
    rollout, read = sampler(model).groups(utterances, frames, 0), read_text(model.tokenizer)
    samples = read(utterances, rollout)
    scores = rewards(samples)
    every = []
    for i, sample in enumerate(samples):
        mask = rollout.mask[i]
        ids, logps = rollout.tokens[i][mask].tolist(), rollout.logps[i][mask].tolist()
        found = Sampled(sample.utterance, ids, sample.finished, logps)
        found.parts = {name: values[i] for name, values in scores.parts.items()}
        weights = dict(scores.weights)
        if rl.overlong_buffer:
            over = len(ids) - (rl.max_completion_length - rl.overlong_buffer)
            found.parts["overlong"] = -max(0, over) / rl.overlong_buffer
            weights["overlong"] = 1.0
        found.old = logps
        if rl.rollout_correction not in ("auto", "none"):
            found.old = slow_logps(model, sample.utterance, ids).tolist()
        if rl.kl_in_reward:
            others = slow_logps(reference, sample.utterance, ids).tolist()
            found.parts["kl"] = sum(o - r for o, r in zip(found.old, others, strict=True))
            weights["kl"] = -rl.beta
        found.reward = sum(weights[name] * value for name, value in found.parts.items())
        every.append(found)
    size = rl.num_generations
    groups = [every[i : i + size] for i in range(0, len(every), size)]
    table = [[s.reward for s in group] for group in groups]
    if rl.reward_combination == "gdpo":
        parts = {n: [[s.parts[n] for s in group] for group in groups] for n in every[0].parts}
        taught = slow_gdpo(table, parts, weights)
    else:
        greedy = None
        if rl.baseline == "greedy":
            greedy = rewards(read(utterances, sampler(model).greedy(frames))).total
        logps = [[sum(s.rollout_logps) for s in group] for group in groups]
        taught = slow_advantages(rl, table, greedy, logps)
    for group, row in zip(groups, taught, strict=True):
        for sampled, advantage in zip(group, row, strict=True):
            sampled.advantage = advantage
    return groups


def slow_responses(
    model: AudioLLM, group: list[Sampled], reference: AudioLLM | None
) -> list[Response]:
    """What the model, as it is now, gives to a group."""
    rl = model.recipe.rl
    responses = []
    for s in group:
        counted = not math.isnan(s.reward) and (s.finished or not rl.mask_truncated_completions)
        policy = slow_distribution(model, s.utterance, s.ids)  # [R, V]
        logps = policy[torch.arange(len(s.ids)), s.ids]
        response = Response(logps, s.old, s.advantage, counted)
        if rl.rollout_correction not in ("auto", "none"):
            log_weights = [o - r for o, r in zip(s.old, s.rollout_logps, strict=True)]
            if rl.rollout_correction == "sequence":
                log_weights = [sum(log_weights)] * len(log_weights)
            cap = grpo_module.CORRECTION_CAP
            response.weights = [min(math.exp(w), cap) for w in log_weights]
        if rl.beta and not rl.kl_in_reward:
            with torch.no_grad():
                other = slow_distribution(reference, s.utterance, s.ids)
            if rl.kl_estimator == "exact":
                allowed = ~model.forbidden
                difference = (policy - other)[:, allowed]
                response.kl = (policy[:, allowed].exp() * difference).sum(1)
            else:
                refs = other[torch.arange(len(s.ids)), s.ids].tolist()
                pairs = zip(logps, refs, strict=True)
                response.kl = torch.stack([slow_kl(rl.kl_estimator, p, r) for p, r in pairs])
        if rl.entropy_coef:
            allowed = policy[:, ~model.forbidden]
            response.entropy = -(allowed.exp() * allowed).sum(1)
        responses.append(response)
    return responses


def slow_distribution(model: AudioLLM, utterance: Utterance, ids: list[int]) -> Tensor:
    """Log-probabilities [R, V] at the place of each of `ids`, from the wave on, without a cache."""
    wave = torch.from_numpy(read_audio(utterance, model.recipe.data.sample_rate))
    prefix = model.prefix(model.encode([wave])).embeds[0]
    embeds = torch.cat([prefix, model.llm.embed(torch.tensor(ids))])
    logits = model.llm(embeds[None])[0, len(prefix) - 1 : -1]
    logits = logits.masked_fill(model.forbidden, -torch.inf) / model.recipe.rl.temperature
    return logits.log_softmax(-1)


@torch.no_grad()
def slow_logps(model: AudioLLM, utterance: Utterance, ids: list[int]) -> Tensor:
    """Those of the response's own tokens, [R]."""
    return slow_distribution(model, utterance, ids)[torch.arange(len(ids)), ids]


def close(actual: dict[str, Tensor], expected: dict[str, Tensor], limit: float = 1e-5) -> None:
    """Equal to `limit` of the largest gradient; no gradient counts as one of zeros."""
    largest = max(g.abs().max().item() for g in expected.values())
    assert largest > 0
    for name in actual.keys() | expected.keys():
        one, other = actual.get(name, torch.zeros(())), expected.get(name, torch.zeros(()))
        difference = (one - other).abs().max().item()
        assert difference <= limit * largest, f"{name}: {difference} of {largest}"
