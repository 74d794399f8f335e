"""From rewards to advantages: a baseline, then a scale; each a small table of functions.

A sample is one row of its prompt's group, so a group is a row of `rewards` [B, G]. NaN is an
unscorable sample: it is left out of every mean, and its own advantage is 0, so it has no
gradient. Standard deviations have n - 1 below the root, and 1e-4 is added to them (as TRL's).
All is computed in float64; what differs by rounding alone is equal, at any size of the rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPSILON = 1e-4  # TRL's; keeps nearly flat groups from exploding
# Of the largest |reward|: what is nearer to the baseline lies on it. Rewards of models have been
# through float32, whose rounding this is twice.
ROUNDING = 2.0**-22
SMALLEST = 1e-12  # terms that cancel out leave no less, whatever is left of their sum


@dataclass
class Rewards:
    """Rewards and log-probabilities that baselines look at."""

    total: Tensor  # [B, G], NaN where a sample is unscorable
    greedy: Tensor | None = None  # [B], reward of the greedy hypothesis (baseline `greedy`)
    logps: Tensor | None = None  # [B, G], log-probability of each whole hypothesis (`posterior`)


def group_mean(rewards: Rewards) -> Tensor:
    """R - mean of the group: GRPO, the paper's 1.3."""
    return rewards.total - rewards.total.nanmean(1, keepdim=True)


def leave_one_out(rewards: Rewards) -> Tensor:
    """R_i - mean of the others = n / (n - 1) (R_i - mean): RLOO (arXiv 2402.14740)."""
    count = (~rewards.total.isnan()).sum(1, keepdim=True)
    return group_mean(rewards) * count / (count - 1).clamp(min=1)


def batch_mean(rewards: Rewards) -> Tensor:
    """R - mean of the step: REINFORCE++ (arXiv 2501.03262), which needs no group."""
    return rewards.total - rewards.total.nanmean()


def greedy_reward(rewards: Rewards) -> Tensor:
    """R - reward of the greedy hypothesis: ReMax (arXiv 2310.10505)."""
    return rewards.total - rewards.greedy[:, None]


def posterior_mean(rewards: Rewards) -> Tensor:
    """n P_i (R_i - sum_j P_j R_j), P the softmax of the group's sequence log-probabilities: MWER.

    Minimum word error rate training (arXiv 1712.01818) minimises sum_i P_i W_i over an n-best list;
    the gradient of that is sum_i P_i (W_i - sum_j P_j W_j) grad log p_i, which is what a policy
    loss that sums over tokens gives with these advantages. n undoes its mean over the group. A
    hypothesis that was drawn twice counts twice.
    """
    scorable = ~rewards.total.isnan()
    weights = rewards.logps.masked_fill(~scorable, -torch.inf).softmax(1).nan_to_num()  # [B, G]
    mean = (weights * rewards.total.nan_to_num()).sum(1, keepdim=True)
    return rewards.total.size(1) * weights * (rewards.total - mean)


def best_alone(rewards: Rewards) -> Tensor:
    """G / k for each of the k best of a group, 0 for the others: RAFT (arXiv 2304.06767).

    A policy loss then is cross entropy on the best hypothesis. A flat group has no best one, and
    no gradient, as everywhere here.
    """
    total = rewards.total
    highest = total.masked_fill(total.isnan(), -torch.inf).amax(1, keepdim=True)
    gap = _without_rounding(total - highest, _largest(total))
    best, worse = (gap == 0).to(total.dtype), (gap < 0).any(1, keepdim=True)
    shares = total.size(1) * best / best.sum(1, keepdim=True).clamp(min=1)
    return (shares * worse).masked_fill(total.isnan(), torch.nan)


def by_group(rewards: Tensor, centred: Tensor) -> Tensor:
    """Divided by the standard deviation of the group's rewards (GRPO)."""
    return centred / (group_std(rewards)[:, None] + EPSILON)


def by_batch(rewards: Tensor, centred: Tensor) -> Tensor:
    """Divided by the standard deviation of the step's rewards (TRL's `batch`, Lite-PPO)."""
    return centred / (group_std(rewards.reshape(1, -1)) + EPSILON)


def whitened(rewards: Tensor, centred: Tensor) -> Tensor:
    """The step's advantages brought to mean 0 and deviation 1 (REINFORCE++ and its kin)."""
    step = centred.reshape(1, -1)
    # Where the groups' means were taken off, the step's is 0 but for rounding.
    shifted = _without_rounding(step - step.nanmean(), _largest(step)).view_as(centred)
    return shifted / (group_std(step) + EPSILON)


def unscaled(rewards: Tensor, centred: Tensor) -> Tensor:
    """As they are (Dr. GRPO, RLOO)."""
    return centred


BASELINES: dict[str, Callable[[Rewards], Tensor]] = {
    "group": group_mean,
    "leave_one_out": leave_one_out,
    "batch": batch_mean,
    "greedy": greedy_reward,
    "posterior": posterior_mean,
    "best": best_alone,
}
SCALES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "group": by_group,
    "batch": by_batch,
    "whiten": whitened,
    "none": unscaled,
}


def advantages(rewards: Rewards, baseline: str, scale: str) -> Tensor:
    """A [B, G] of each sample; 0 where it is unscorable, or equals its baseline to rounding."""
    precision = rewards.total.dtype
    doubled = (None if value is None else value.double() for value in vars(rewards).values())
    rewards = Rewards(*doubled)
    size = _largest(rewards.total)
    if rewards.greedy is not None:
        size = torch.maximum(size, _largest(rewards.greedy[:, None]))
    if baseline == "batch":
        size = size.amax()
    centred = _without_rounding(BASELINES[baseline](rewards), size)
    return SCALES[scale](rewards.total, centred).nan_to_num(nan=0.0).to(precision)


def decoupled(total: Tensor, parts: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """GDPO (arXiv 2601.05242): each reward normalised in its group, summed, whitened over the step.

    A reward of small spread then counts as much as one of large spread, instead of drowning in
    their sum. total, parts: rewards [B, G], NaN in all of them where a sample is unscorable; a part
    that is NaN where the total is not does not apply there, and adds nothing. Returns A [B, G].
    """
    terms = (
        weight * by_group(part, from_mean(part)).nan_to_num()
        for part, weight in zip(parts, weights, strict=True)
    )
    summed = sum(terms).masked_fill(total.isnan(), torch.nan)
    return whitened(summed, summed).nan_to_num(nan=0.0).to(total.dtype)


def from_mean(rewards: Tensor) -> Tensor:
    """R - mean of the group [B, G], in float64; 0 where that is rounding alone."""
    rewards = rewards.double()
    return _without_rounding(group_mean(Rewards(rewards)), _largest(rewards))


def _largest(values: Tensor) -> Tensor:
    """Return the largest magnitude in each row, [B, G] -> [B, 1]; NaN counts as 0."""
    return values.abs().nan_to_num().amax(1, keepdim=True)


def _without_rounding(values: Tensor, size: Tensor) -> Tensor:
    """Set to 0 what is rounding alone of numbers of a size; a deviation near 0 would blow it up."""
    return torch.where(values.abs() <= (ROUNDING * size).clamp(min=SMALLEST), 0.0, values)


def group_std(rewards: Tensor) -> Tensor:
    """Standard deviation (n - 1) of each group's scorable rewards, [B, G] -> [B]; 0 below two.

    In float64; 0 where rewards differ by rounding alone.
    """
    count = (~rewards.isnan()).sum(1)
    squares = from_mean(rewards).nan_to_num().square().sum(1)
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), 0.0).sqrt()


def flat_groups(rewards: Tensor) -> Tensor:
    """Mark groups [B] in which all scorable rewards are equal: they have no gradient."""
    return group_std(rewards) == 0
