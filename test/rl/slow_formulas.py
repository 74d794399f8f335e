"""The formulas of the field by loops of double precision: one sample, one token at a time.

Of TRL 1.16 where it has them (advantages, losses), else of the paper. `rl` is the `RLConfig` that
the code under test obeys too.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

import torch
from torch import Tensor

from audiorl.config.rl import RLConfig

Groups = list[list[float]]  # a number for each member of each prompt's group; NaN: unscorable


def known(values: list[float]) -> list[float]:
    return [v for v in values if not math.isnan(v)]


def mean(values: list[float]) -> float:
    """Of the known ones; 0 where nothing is."""
    return sum(known(values)) / max(1, len(known(values)))


def deviation(values: list[float]) -> float:
    """n - 1 below the root, as torch.std and so TRL; 0 where there is nothing to compare."""
    return statistics.stdev(known(values)) if len(known(values)) > 1 else 0.0


def flat(groups: Groups) -> list[float]:
    return [value for group in groups for value in group]


def softmax(values: list[float]) -> list[float]:
    largest = max(values, default=0.0)
    weights = [math.exp(v - largest) for v in values]
    return [w / sum(weights) for w in weights]


def slow_centred(
    rl: RLConfig, rewards: Groups, greedy: list[float] | None = None, logps: Groups | None = None
) -> Groups:
    """Each reward less its baseline."""
    centred = []
    for i, group in enumerate(rewards):
        row = []
        for j, reward in enumerate(group):
            others = known(group[:j] + group[j + 1 :])
            if rl.baseline == "group":
                row.append(reward - mean(group))
            elif rl.baseline == "leave_one_out":
                row.append(reward - mean(others) if others else reward * 0)
            elif rl.baseline == "batch":
                row.append(reward - mean(flat(rewards)))
            elif rl.baseline == "greedy":
                row.append(reward - greedy[i])
            else:
                row.append(math.nan)
        if rl.baseline == "posterior":
            places = [j for j, reward in enumerate(group) if not math.isnan(reward)]
            weights = softmax([logps[i][j] for j in places])
            expected = sum(w * group[j] for w, j in zip(weights, places, strict=True))
            for w, j in zip(weights, places, strict=True):
                row[j] = len(group) * w * (group[j] - expected)
        if rl.baseline == "best":
            best = [r == max(known(group)) for r in known(group)]
            each = len(group) / sum(best) if 0 < sum(best) < len(best) else 0.0
            row = [r if math.isnan(r) else each * (r == max(known(group))) for r in group]
        centred.append(row)
    return centred


def slow_scaled(rl: RLConfig, rewards: Groups, centred: Groups) -> Groups:
    """The advantages of what is left of rewards; 0 for unscorable samples."""
    result = []
    for group, row in zip(rewards, centred, strict=True):
        if rl.scale_rewards == "group":
            row = [c / (deviation(group) + 1e-4) for c in row]
        elif rl.scale_rewards == "batch":
            row = [c / (deviation(flat(rewards)) + 1e-4) for c in row]
        elif rl.scale_rewards == "whiten":
            shift, divisor = mean(flat(centred)), deviation(flat(centred)) + 1e-4
            row = [(c - shift) / divisor for c in row]
        result.append([0.0 if math.isnan(c) else c for c in row])
    return result


def slow_advantages(
    rl: RLConfig, rewards: Groups, greedy: list[float] | None = None, logps: Groups | None = None
) -> Groups:
    return slow_scaled(rl, rewards, slow_centred(rl, rewards, greedy, logps))


def slow_gdpo(rewards: Groups, parts: dict[str, Groups], weights: dict[str, float]) -> Groups:
    """Each part by its group's mean and deviation, summed, then whitened over all samples."""
    nothing, everything = RLConfig(), RLConfig(scale_rewards="whiten")
    summed = [[0.0 if not math.isnan(r) else math.nan for r in group] for group in rewards]
    for name, values in parts.items():
        counted = [
            [math.nan if math.isnan(r) else v for r, v in zip(*both, strict=True)]
            for both in zip(rewards, values, strict=True)
        ]
        normalised = slow_advantages(nothing, counted)
        for row, more in zip(summed, normalised, strict=True):
            for j, value in enumerate(more):
                row[j] += weights[name] * value
    return slow_scaled(everything, summed, summed)


@dataclass
class Response:
    """One response, token by token: tensors [R] where a gradient is wanted, else numbers."""

    logps: Tensor
    old: list[float]
    advantage: float
    counted: bool = True
    weights: list[float] = field(default_factory=list)  # importance; empty: 1
    kl: Tensor | None = None
    entropy: Tensor | None = None


def slow_surrogate(rl: RLConfig, ratio: Tensor, logp: Tensor, advantage: float) -> Tensor:
    """The loss of one token."""
    if rl.policy_loss == "cispo":
        return -min(ratio.item(), rl.epsilon_high) * advantage * logp
    if rl.policy_loss == "sapo":
        tau = rl.sapo_temperature_pos if advantage > 0 else rl.sapo_temperature_neg
        return -advantage * 4 / tau / (1 + torch.exp(-tau * (ratio - 1)))
    inside = ratio.clamp(1 - rl.epsilon, 1 + rl.epsilon_high)
    if rl.delta:
        ratio = ratio.clamp(max=rl.delta)
    return -torch.minimum(ratio * advantage, inside * advantage)


def slow_kl(estimator: str, logp: Tensor, reference: float) -> Tensor:
    """Of one sampled token."""
    if estimator == "k1":
        return logp - reference
    if estimator == "k2":
        return (logp - reference) ** 2 / 2
    return torch.exp(reference - logp) - (reference - logp) - 1


def slow_loss(rl: RLConfig, groups: list[list[Response]]) -> Tensor:
    """The loss of one update on these groups."""
    rows = sum(len(group) for group in groups)
    tokens = sum(len(r.old) for group in groups for r in group if r.counted)
    total = torch.zeros((), dtype=torch.float64)
    for group in groups:
        in_group = sum(len(r.old) for r in group if r.counted)
        for r in (r for r in group if r.counted):
            weight = {
                "grpo": 1 / (len(r.old) * rows),
                "bnpo": 1 / (in_group * len(groups)),
                "dapo": 1 / tokens,
                "seq-mean-token-sum": 1 / rows,
                "dr_grpo": 1 / (rows * rl.max_completion_length),
            }[rl.loss_type]
            logs = [logp - old for logp, old in zip(r.logps, r.old, strict=True)]
            if rl.importance_sampling_level == "sequence":
                logs = [sum(logs) / len(logs)] * len(logs)
            for t, log_ratio in enumerate(logs):
                loss = slow_surrogate(rl, torch.exp(log_ratio), r.logps[t], r.advantage)
                if r.weights:
                    loss = loss * r.weights[t]
                if r.kl is not None:
                    loss = loss + rl.beta * r.kl[t]
                if r.entropy is not None:
                    total = total - rl.entropy_coef * r.entropy[t] / tokens
                total = total + weight * loss
    return total
