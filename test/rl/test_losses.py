"""Losses and their gradients against plain loops in double precision."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from audiorl.rl.advantages import Rewards, advantages
from audiorl.rl.losses import AGGREGATIONS, Clip, Update, kl_k3, ppo, token_ratio

ROWS, LENGTH, LIMIT = 6, 5, 9
LOSS_TYPES = ["grpo", "dapo", "dr_grpo"]


def some_step() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """logps, old, reference [N, R]; advantages [N]; mask [N, R], one row of it empty."""
    generator = torch.Generator().manual_seed(4)

    def noise() -> Tensor:
        return torch.randn(ROWS, LENGTH, generator=generator, dtype=torch.float64)

    logps = -noise().abs() - 0.1
    old, reference = logps + 0.3 * noise(), logps + 0.3 * noise()
    advantages = torch.tensor([1.3, -0.7, 0.0, 2.0, -1.5, 0.4], dtype=torch.float64)
    lengths = torch.tensor([5, 3, 4, 1, 5, 0])
    mask = torch.arange(LENGTH) < lengths[:, None]
    return logps, old, reference, advantages, mask


def slow_token_loss(
    logp: float, old: float, ref: float, advantage: float, low: float, high: float, beta: float
) -> float:
    ratio = math.exp(logp - old)
    clipped = min(max(ratio, 1 - low), 1 + high)
    kl = math.exp(ref - logp) - (ref - logp) - 1
    return -min(ratio * advantage, clipped * advantage) + beta * kl


def slow_slope(logp: float, old: float, ref: float, advantage: float, low, high, beta) -> float:
    """d loss / d logp: the ratio times the advantage where no clip bites, and that of the KL."""
    ratio = math.exp(logp - old)
    bites = ratio < 1 - low if advantage < 0 else ratio > 1 + high
    return (0.0 if bites else -ratio * advantage) + beta * (1 - math.exp(ref - logp))


def slow_weight(loss_type: str, mask: Tensor, row: int) -> float:
    return {
        "grpo": 1 / max(int(mask[row].sum()), 1) / ROWS,
        "dapo": 1 / int(mask.sum()),
        "dr_grpo": 1 / (ROWS * LIMIT),
    }[loss_type]


def clipped_surrogate(logps, old, advantages, low, high):
    ratio = token_ratio(logps - old, torch.ones_like(logps))
    loss, (at_low, at_high) = ppo(ratio, logps, advantages[:, None], Clip(low, high))
    return loss, at_low, at_high


def loss_weights(mask: Tensor, loss_type: str, limit: int, tokens: int, rows: int) -> Tensor:
    return AGGREGATIONS[loss_type](mask.double(), Update(tokens, rows, 1, limit))


def fast_loss(step, loss_type, low, high, beta, rows=slice(None)) -> Tensor:
    logps, old, reference, advantages, mask = step
    per_token, _, _ = clipped_surrogate(logps[rows], old[rows], advantages[rows], low, high)
    per_token = per_token + beta * kl_k3(logps[rows], reference[rows])
    weights = loss_weights(mask[rows], loss_type, LIMIT, int(mask.sum()), ROWS)
    return (per_token * weights).sum()


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
@pytest.mark.parametrize(
    ("low", "high", "beta"), [(0.2, 0.2, 0.0), (0.2, 0.28, 0.0), (0.1, 0.3, 0.5)]
)
def test_loss_and_gradient_are_the_loops(loss_type, low, high, beta) -> None:
    logps, old, reference, advantages, mask = some_step()
    logps.requires_grad_()
    loss = fast_loss((logps, old, reference, advantages, mask), loss_type, low, high, beta)
    loss.backward()
    total, gradient = 0.0, torch.zeros_like(logps)
    for row, t in itertools.product(range(ROWS), range(LENGTH)):
        if mask[row, t]:
            values = (logps[row, t], old[row, t], reference[row, t], advantages[row])
            numbers = [v.item() for v in values]
            weight = slow_weight(loss_type, mask, row)
            total += weight * slow_token_loss(*numbers, low, high, beta)
            gradient[row, t] = weight * slow_slope(*numbers, low, high, beta)
    torch.testing.assert_close(loss.item(), total, rtol=1e-6, atol=0)
    torch.testing.assert_close(logps.grad, gradient.detach(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_a_step_in_pieces_is_the_step(loss_type: str) -> None:
    step = some_step()
    whole = fast_loss(step, loss_type, 0.2, 0.2, 0.1)
    pieces = [slice(0, 1), slice(1, 4), slice(4, 6)]
    parts = [fast_loss(step, loss_type, 0.2, 0.2, 0.1, rows) for rows in pieces]
    torch.testing.assert_close(sum(parts), whole)


def test_where_clips_bite() -> None:
    old = torch.zeros(4, 3)
    logps = torch.tensor([0.5, -0.5, 0.1]).expand(4, -1)  # ratios 1.65, 0.61, 1.11
    _, low, high = clipped_surrogate(logps, old, torch.tensor([1.0, -1.0, 0.0, 2.0]), 0.2, 0.3)
    assert low.tolist() == [[False] * 3, [False, True, False], [False] * 3, [False] * 3]
    assert high.tolist() == [[True, False, False], [False] * 3, [False] * 3, [True, False, False]]


def test_on_policy_the_loss_is_the_policy_gradient() -> None:
    """Ratio 1: the gradient by logp is -A, whatever the clip."""
    logps = torch.randn(3, 4, requires_grad=True)
    advantages = torch.tensor([1.0, -2.0, 0.5])
    loss, low, high = clipped_surrogate(logps, logps.detach(), advantages, 0.2, 0.2)
    loss.sum().backward()
    torch.testing.assert_close(logps.grad, -advantages[:, None].expand(3, 4))
    assert not (low | high).any()


def test_k3_estimates_the_divergence() -> None:
    """Never below 0, 0 for equal distributions, and its mean is KL(policy || reference)."""
    policy = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    reference = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    k3 = kl_k3(policy.log(), reference.log())
    assert (k3 >= 0).all()
    exact = (policy * (policy / reference).log()).sum()
    torch.testing.assert_close((policy * k3).sum(), exact)
    assert kl_k3(policy.log(), policy.log()).abs().max() == 0


@pytest.mark.parametrize("theta", [-1.5, 0.0, 0.4, 2.0])
@pytest.mark.parametrize("group", [2, 3, 5])
def test_the_expected_gradient_is_that_of_the_expected_reward(theta: float, group: int) -> None:
    """Two tokens, reward 1 for the first: E[R] = sigmoid(theta), its slope known.

    All groups are enumerated with their probabilities. The group mean as baseline includes the
    sample itself, which makes the gradient (G - 1) / G of the true one.
    """

    def expected_reward(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    logit = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    logp = torch.stack([logit, torch.zeros_like(logit)]).log_softmax(0)
    total = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product((0, 1), repeat=group):
        rewards = torch.tensor([[1.0 - token for token in drawn]], dtype=torch.float64)
        values = advantages(Rewards(rewards), "group", "none")[0]
        logps = logp[list(drawn)][:, None]
        loss, _, _ = clipped_surrogate(logps, logps.detach(), values, 0.2, 0.2)
        weights = loss_weights(torch.ones(group, 1, dtype=torch.bool), "dr_grpo", 1, group, group)
        total = total + logps.detach().sum().exp() * (loss * weights).sum()
    total.backward()
    step = 1e-5
    slope = (expected_reward(theta + step) - expected_reward(theta - step)) / (2 * step)
    assert -logit.grad.item() * group / (group - 1) == pytest.approx(slope, rel=1e-6)
