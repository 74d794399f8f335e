"""The expected gradient is that of what is to be maximised, on toys where all can be enumerated.

A policy of two parameters says `a` or ends, two tokens at most. The gradient that the loss has on
average over all groups it may draw is compared with finite differences of the objective.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from tiny import random_prefix, tiny_model
from torch import Tensor

from audiorl.engines.sampling import Sampling
from audiorl.rl.advantages import Rewards, advantages
from audiorl.rl.logprobs import response_logprobs
from audiorl.rl.losses import (
    AGGREGATIONS,
    KL,
    RATIOS,
    SURROGATES,
    Clip,
    Update,
    off_policy_weights,
)

MASK = torch.tensor([[1, 0], [1, 1], [1, 1]]).bool()  # of the responses: end; a end; a a
REWARD = torch.tensor([0.0, 1.0, 0.3], dtype=torch.float64)
GREEDY = 1  # `a end` stands for the greedy response
THETA = torch.tensor([0.4, -0.9], dtype=torch.float64)
OTHER = torch.tensor([-0.3, 0.6], dtype=torch.float64)  # a reference, or another rollout engine
LIMIT = 7


def response_logps(theta: Tensor) -> Tensor:
    """Log-probabilities [3, 2] of the responses' tokens, 0 on padding."""
    a, end = torch.nn.functional.logsigmoid(theta), torch.nn.functional.logsigmoid(-theta)
    zero = theta.new_zeros(())
    return torch.stack(
        [torch.stack([end[0], zero]), torch.stack([a[0], end[1]]), torch.stack([a[0], a[1]])]
    )


def probabilities(theta: Tensor) -> Tensor:
    return response_logps(theta).sum(1).exp()


def expected_reward(theta: Tensor) -> Tensor:
    return probabilities(theta) @ REWARD


def slope(function: Callable[[Tensor], Tensor], theta: Tensor = THETA) -> list[float]:
    """Central finite differences."""
    step, found = 1e-5, []
    for i in range(len(theta)):
        shift = torch.zeros_like(theta)
        shift[i] = step
        found.append((function(theta + shift) - function(theta - shift)).item() / (2 * step))
    return found


def ascent(
    baseline: str,
    *,
    prompts: int = 1,
    group: int = 3,
    loss_type: str = "seq-mean-token-sum",
    policy_loss: str = "ppo",
    level: str = "token",
    penalty: Tensor | None = None,
    behaviour: Tensor = THETA,
    cap: float = 0.0,
) -> list[float]:
    """Minus the loss's gradient, averaged over all that the behaviour policy may draw.

    penalty: what is taken off the reward of each response; cap: of importance weights by sequence.
    """
    theta = THETA.clone().requires_grad_()
    logps = response_logps(theta)
    old, drawn_by = logps.detach(), response_logps(behaviour)
    reward = REWARD if penalty is None else REWARD - penalty
    clip = Clip(epsilon_high=5.0 if policy_loss == "cispo" else 0.2)
    total = torch.zeros((), dtype=torch.float64)
    for drawn in itertools.product(range(3), repeat=prompts * group):
        rows = list(drawn)
        rewards = Rewards(
            reward[rows].view(prompts, group),
            reward[GREEDY].expand(prompts),
            old[rows].sum(1).view(prompts, group),
        )
        taught = advantages(rewards, baseline, "none").view(-1, 1)
        mask = MASK[rows]
        ratio = RATIOS[level](logps[rows] - old[rows], mask)
        loss, _ = SURROGATES[policy_loss](ratio, logps[rows], taught, clip)
        if cap:
            loss = loss * off_policy_weights(old[rows], drawn_by[rows], mask, "sequence", cap)
        update = Update(int(mask.sum()), len(rows), group, LIMIT)
        weights = AGGREGATIONS[loss_type](mask.double(), update)
        total = total + drawn_by[rows].sum().exp() * (loss * weights).sum()
    (gradient,) = torch.autograd.grad(-total, theta)
    return gradient.tolist()


def times(factor: float, values: list[float]) -> object:
    return pytest.approx([factor * v for v in values], rel=1e-6)


@pytest.mark.parametrize("level", RATIOS)
@pytest.mark.parametrize("policy_loss", SURROGATES)
def test_rloo_is_unbiased(policy_loss: str, level: str) -> None:
    for group in (2, 3):
        found = ascent("leave_one_out", group=group, policy_loss=policy_loss, level=level)
        assert found == times(1.0, slope(expected_reward))


def test_remax_is_unbiased() -> None:
    assert ascent("greedy") == times(1.0, slope(expected_reward))


@pytest.mark.parametrize("group", [2, 3, 4])
def test_a_group_mean_includes_the_sample_itself(group: int) -> None:
    """Which makes the gradient (G - 1) / G of the true one."""
    assert ascent("group", group=group) == times((group - 1) / group, slope(expected_reward))


def test_a_mean_over_the_step_includes_the_sample_itself() -> None:
    assert ascent("batch", prompts=2, group=2) == times(3 / 4, slope(expected_reward))


def test_dr_grpo_divides_by_the_length_limit() -> None:
    found = ascent("leave_one_out", loss_type="dr_grpo")
    assert found == times(1 / LIMIT, slope(expected_reward))


def test_a_mean_over_a_response_is_another_objective() -> None:
    """It weighs a token of a short response more: GRPO's length bias, which Dr. GRPO takes out."""
    found, true = ascent("leave_one_out", loss_type="grpo"), slope(expected_reward)
    assert found[0] / true[0] != pytest.approx(found[1] / true[1], rel=0.05)


def test_importance_weights_correct_for_another_rollout_engine() -> None:
    """Uncapped, by sequence, and with a baseline that the rollout does not change."""
    true = slope(expected_reward)
    assert ascent("greedy", behaviour=OTHER, cap=1e9) == times(1.0, true)
    assert ascent("greedy", behaviour=OTHER) != pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 1], [0, 0, 1, 2], [1, 2, 0, 2]])
def test_mwer_descends_the_expected_error_of_its_list(rows: list[int]) -> None:
    """Of one group, and of the mean over two; the weights are the sampling policy's."""

    def objective(theta: Tensor) -> Tensor:
        weights = response_logps(theta)[rows].sum(1).softmax(0)
        return weights @ REWARD[rows]

    theta = THETA.clone().requires_grad_()
    logps = response_logps(theta)[rows * 2]
    total = REWARD[rows * 2].view(2, -1)
    lists = logps.detach().sum(1).view(2, -1)
    taught = advantages(Rewards(total, logps=lists), "posterior", "none").view(-1, 1)
    loss, _ = SURROGATES["ppo"]((logps - logps.detach()).exp(), logps, taught, Clip())
    mask = MASK[rows * 2]
    weights = AGGREGATIONS["seq-mean-token-sum"](
        mask.double(), Update(int(mask.sum()), len(mask), len(rows), LIMIT)
    )
    (gradient,) = torch.autograd.grad(-(loss * weights).sum(), theta)
    assert gradient.tolist() == pytest.approx(slope(objective), rel=1e-4)


def divergence(theta: Tensor) -> Tensor:
    """KL(policy || other) over whole responses."""
    return probabilities(theta) @ (response_logps(theta) - response_logps(OTHER)).sum(1)


def penalised(theta: Tensor) -> Tensor:
    return expected_reward(theta) - 0.7 * divergence(theta)


def kl_penalty(estimator: str) -> Tensor:
    return 0.7 * KL[estimator](response_logps(THETA), response_logps(OTHER)).sum(1)


def test_k1_in_the_reward_is_the_gradient_of_the_penalised_reward() -> None:
    found = ascent("leave_one_out", penalty=kl_penalty("k1"))
    assert found == times(1.0, slope(penalised))
    assert found != pytest.approx(slope(expected_reward), rel=0.05)


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_no_other_estimator_belongs_in_the_reward(estimator: str) -> None:
    """Each response's k2 or k3 is at least 0, whichever side of the reference the policy is on."""
    found = ascent("leave_one_out", penalty=kl_penalty(estimator))
    held = [f - s for f, s in zip(found, slope(expected_reward), strict=True)]
    true = [-0.7 * s for s in slope(divergence)]
    assert max(abs(h - t) for h, t in zip(held, true, strict=True)) > 0.5 * max(map(abs, true))


def first_token(theta: Tensor) -> Tensor:
    """Log-probabilities of `a` and of the end, where a response begins."""
    logsigmoid = torch.nn.functional.logsigmoid
    return torch.stack([logsigmoid(theta[0]), logsigmoid(-theta[0])])


def forward_kl(theta: Tensor) -> Tensor:
    ours, others = first_token(theta), first_token(OTHER)
    return (ours.exp() * (ours - others)).sum()


def reverse_kl(theta: Tensor) -> Tensor:
    ours, others = first_token(theta), first_token(OTHER)
    return (others.exp() * (others - ours)).sum()


@pytest.mark.parametrize(
    ("estimator", "objective"),
    [("k1", lambda theta: theta[0] * 0), ("k2", forward_kl), ("k3", reverse_kl)],
)
def test_what_an_estimator_holds_back_as_a_loss(estimator: str, objective: Callable) -> None:
    """k1 nothing; k2 the KL; k3 the KL the other way round."""
    theta = THETA.clone().requires_grad_()
    ours = first_token(theta)
    loss = (ours.detach().exp() * KL[estimator](ours, first_token(OTHER))).sum()
    (gradient,) = torch.autograd.grad(loss, theta)
    assert gradient[0].item() == pytest.approx(slope(objective)[0], rel=1e-6, abs=1e-9)


def test_the_exact_divergence_of_an_lm() -> None:
    """Its slope along a random direction of all weights, by finite differences."""
    model, reference = tiny_model(spread=3.0), tiny_model(seed=1, spread=3.0)
    prefix = random_prefix(32, [6])
    tokens = torch.tensor([[7], [9]])
    settings = {"sampling": Sampling(temperature=1.5), "forbidden": model.forbidden, "share": True}

    def kl() -> Tensor:
        mask = torch.ones(2, 1, dtype=torch.bool)
        lms = {"reference": (reference.llm, prefix), **settings}
        found = response_logprobs(model.llm, prefix, tokens, mask, **lms).kl
        assert found[0].item() == pytest.approx(found[1].item())  # whatever was sampled
        return found[0, 0]

    parameters = list(model.llm.parameters())
    gradient = torch.autograd.grad(kl(), parameters)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator) for p in parameters]
    along = sum((g * d).sum().item() for g, d in zip(gradient, direction, strict=True))

    @torch.no_grad()
    def shifted(amount: float) -> float:
        for p, d in zip(parameters, direction, strict=True):
            p.add_(amount * d)
        return kl().item()

    step = 1e-3
    upper, lower = shifted(step), shifted(-2 * step)
    assert along == pytest.approx((upper - lower) / (2 * step), rel=0.02)
    assert abs(along) > 0.05
