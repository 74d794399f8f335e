"""From rewards to advantages, prompt by prompt."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-4  # TRL's; keeps nearly flat groups from exploding


def group_advantages(rewards: Tensor, scale_rewards: str) -> Tensor:
    """A = (R - mean of the group) / (std + 1e-4), the paper's 1.3; rewards [B, G] -> [B, G].

    `scale_rewards`: std of the group, of the batch, or none. Standard deviations have n - 1 below
    the root (as TRL's). NaN is an unscorable sample: it is left out of every mean and its own
    advantage is 0, so it neither learns nor teaches.
    """
    scorable = ~rewards.isnan()
    centred = rewards - rewards.nanmean(1, keepdim=True)
    if scale_rewards == "group":
        centred = centred / (group_std(rewards)[:, None] + EPSILON)
    elif scale_rewards == "batch":
        centred = centred / (group_std(rewards.reshape(1, -1)) + EPSILON)
    return torch.where(scorable, centred, 0.0)


def group_std(rewards: Tensor) -> Tensor:
    """Standard deviation (n - 1) of each group's scorable rewards, [B, G] -> [B]; 0 below two."""
    scorable = ~rewards.isnan()
    count = scorable.sum(1)
    squares = torch.where(scorable, rewards - rewards.nanmean(1, keepdim=True), 0.0).square().sum(1)
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), 0.0).sqrt()


def flat_groups(rewards: Tensor) -> Tensor:
    """Groups [B] in which all scorable rewards are equal: they teach nothing."""
    return group_std(rewards) < 1e-6
