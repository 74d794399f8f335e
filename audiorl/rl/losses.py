"""The policy loss as a product of axes: ratio, surrogate, KL, aggregation; each a small table.

The ratio is r = pi(token) / pi_old(token), pi_old the policy that sampled. All tensors are [N, R]
(N responses of R tokens, those that count in `mask`) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """Limits of the ratio."""

    epsilon: float = 0.2
    epsilon_high: float = 0.2
    delta: float = 0.0  # dual clip; 0: off
    sapo_positive: float = 1.0
    sapo_negative: float = 1.05


FAR = 7.0  # log(ref / pi) of a token, from where k3 is a straight line
FARTHEST = 20.0  # largest log of a ratio (verl's limit): its exponential stays finite

# Where the lower and the upper limit bite, for the log.
Clipped = tuple[Tensor, Tensor]


def token_ratio(difference: Tensor, mask: Tensor) -> Tensor:
    """r of each token; difference = log pi - log pi_old."""
    return difference.clamp(max=FARTHEST).exp()


def sequence_ratio(difference: Tensor, mask: Tensor) -> Tensor:
    """exp(mean over tokens of log r), the same for all tokens of a response: GSPO (2507.18071)."""
    mean = (difference * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return mean.clamp(max=FARTHEST).exp().expand_as(difference)


def ppo(ratio: Tensor, logps: Tensor, advantages: Tensor, clip: Clip) -> tuple[Tensor, Clipped]:
    """-min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A): PPO, GRPO; DAPO with clip-higher.

    With `delta` also r <= delta, which bounds the loss of a bad token that has become likely (dual
    clip, arXiv 1912.09729).
    """
    inside = ratio.clamp(1 - clip.epsilon, 1 + clip.epsilon_high)
    low = (ratio < 1 - clip.epsilon) & (advantages < 0)
    high = (ratio > 1 + clip.epsilon_high) & (advantages > 0)
    if clip.delta:
        high = high | ((ratio > clip.delta) & (advantages < 0))
        ratio = ratio.clamp(max=clip.delta)
    return -torch.minimum(ratio * advantages, inside * advantages), (low, high)


def cispo(ratio: Tensor, logps: Tensor, advantages: Tensor, clip: Clip) -> tuple[Tensor, Clipped]:
    """-sg[min(r, epsilon_high)] A log pi: CISPO (2506.13585); no token loses its gradient."""
    high = (ratio > clip.epsilon_high) & (advantages > 0)
    weight = ratio.clamp(max=clip.epsilon_high).detach()
    return -weight * advantages * logps, (torch.zeros_like(high), high)


def sapo(ratio: Tensor, logps: Tensor, advantages: Tensor, clip: Clip) -> tuple[Tensor, Clipped]:
    """-4 / tau sigmoid(tau (r - 1)) A, tau by the sign of A: SAPO (2511.20347), a soft clip."""
    tau = torch.where(advantages > 0, clip.sapo_positive, clip.sapo_negative)
    never = torch.zeros_like(ratio, dtype=torch.bool)
    return -4 / tau * (tau * (ratio - 1)).sigmoid() * advantages, (never, never)


def kl_k1(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """log pi - log ref: unbiased in value; as a loss its gradient is 0 on average."""
    return logps - ref_logps


def kl_k2(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """(log pi - log ref)^2 / 2: biased in value, and its gradient is that of the KL."""
    return (logps - ref_logps).square() / 2


def kl_k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """exp(d) - d - 1, d = log ref - log pi: unbiased in value, never negative (Schulman; GRPO's).

    Its gradient is on average that of KL(ref || pi), which near the reference is the same. Beyond
    d = `FAR` the exponential goes on as a straight line: a token that the policy has given up is
    drawn back by a force that stays finite.
    """
    difference = ref_logps - logps
    near = difference.clamp(max=FAR)
    return near.exp() * (1 + (difference - near)) - difference - 1


@dataclass(frozen=True)
class Update:
    """Sizes that one update sums over, however it is cut into micro-batches."""

    tokens: int  # that count, in all its responses
    rows: int  # responses, those without a token that counts included
    group: int  # responses of a prompt; they lie in consecutive rows
    max_length: int  # rl.max_completion_length


def mean_of_responses(mask: Tensor, update: Update) -> Tensor:
    """Mean over responses of each one's mean over tokens (DeepSeekMath's GRPO)."""
    return mask / mask.sum(1, keepdim=True).clamp(min=1) / update.rows


def mean_of_groups(mask: Tensor, update: Update) -> Tensor:
    """Mean over prompts of the mean over the tokens of each one's group (BNPO).

    TRL's `bnpo` is the token mean of whatever lies in a device's batch; the group is the one batch
    that does not depend on how an update is cut.
    """
    groups = mask.view(-1, update.group * mask.size(1))  # [N / G, G * R]
    means = groups / groups.sum(1, keepdim=True).clamp(min=1) * update.group / update.rows
    return means.view_as(mask)


def mean_of_tokens(mask: Tensor, update: Update) -> Tensor:
    """Mean over all tokens of the update (DAPO)."""
    return mask / update.tokens


def mean_of_sums(mask: Tensor, update: Update) -> Tensor:
    """Mean over responses of each one's sum over tokens: REINFORCE of whole responses."""
    return mask / update.rows


def constant_length(mask: Tensor, update: Update) -> Tensor:
    """Mean of sums over max_length: Dr. GRPO (2503.20783), whose loss favours no length."""
    return mask / (update.rows * update.max_length)


Surrogate = Callable[[Tensor, Tensor, Tensor, Clip], tuple[Tensor, Clipped]]

RATIOS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "token": token_ratio,
    "sequence": sequence_ratio,
}
SURROGATES: dict[str, Surrogate] = {"ppo": ppo, "cispo": cispo, "sapo": sapo}
KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
# What each token's loss is multiplied with before everything is summed; verl's names beside TRL's.
AGGREGATIONS: dict[str, Callable[[Tensor, Update], Tensor]] = {
    "grpo": mean_of_responses,
    "seq-mean-token-mean": mean_of_responses,
    "bnpo": mean_of_groups,
    "dapo": mean_of_tokens,
    "token-mean": mean_of_tokens,
    "seq-mean-token-sum": mean_of_sums,
    "dr_grpo": constant_length,
    "seq-mean-token-sum-norm": constant_length,
}


def off_policy_weights(
    old_logps: Tensor, rollout_logps: Tensor, mask: Tensor, level: str, cap: float
) -> Tensor:
    """min(pi_old / pi_rollout, cap) by token or sequence: truncated importance correction.

    For a rollout engine that is another program, whose probabilities differ from the policy's own
    by kernels and precision. Of a sequence it is the product over its tokens, [N, R].
    """
    difference = (old_logps - rollout_logps) * mask
    if level == "sequence":
        difference = difference.sum(1, keepdim=True).expand_as(difference)
    return difference.exp().clamp(max=cap)
