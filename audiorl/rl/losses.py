"""The policy loss of GRPO and its relatives."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_surrogate(
    logps: Tensor, old_logps: Tensor, advantages: Tensor, epsilon: float, epsilon_high: float
) -> tuple[Tensor, Tensor, Tensor]:
    """-min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) per token, r = exp(logp - old).

    logps, old_logps [N, R]; advantages [N]. Returns the loss [N, R], and where the lower and the
    upper clip bite [N, R] (A < 0 below, A > 0 above: elsewhere the clip changes nothing).
    """
    ratio = (logps - old_logps).exp()
    advantages = advantages[:, None]
    clipped = ratio.clamp(1 - epsilon, 1 + epsilon_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    low = (ratio < 1 - epsilon) & (advantages < 0)
    high = (ratio > 1 + epsilon_high) & (advantages > 0)
    return loss, low, high


def kl_k3(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || ref) per token: exp(d) - d - 1, d = ref - logp."""
    difference = ref_logps - logps
    return difference.exp() - difference - 1


def loss_weights(
    mask: Tensor, loss_type: str, max_length: int, step_tokens: int, step_rows: int
) -> Tensor:
    """What each token's loss is multiplied with before everything is summed, [N, R].

    The sums of all micro-batches of a step, each weighted so, add up to the step's loss, however
    the step is cut: `step_tokens` and `step_rows` count the whole step. mask [N, R] of the tokens
    that count.

    - grpo: mean over sequences of each one's mean over tokens (DeepSeekMath)
    - dapo: mean over all tokens of the step (DAPO; verl's token-mean)
    - dr_grpo: sum over tokens / (sequences * max_length) (Dr. GRPO: no length bias)
    """
    mask = mask.float()
    if loss_type == "grpo":
        return mask / mask.sum(1, keepdim=True).clamp(min=1) / step_rows
    if loss_type == "dapo":
        return mask / step_tokens
    if loss_type == "dr_grpo":
        return mask / (step_rows * max_length)
    raise AssertionError(loss_type)
