"""Losses and their gradients against plain loops in double precision, axis by axis."""

from __future__ import annotations

import itertools

import pytest
import torch
from slow_formulas import Response, slow_kl, slow_loss
from torch import Tensor

from audiorl.config.rl import RLConfig
from audiorl.rl.losses import (
    AGGREGATIONS,
    KL,
    RATIOS,
    SURROGATES,
    Clip,
    Update,
    cispo,
    off_policy_weights,
    ppo,
    sequence_ratio,
    token_ratio,
)

ROWS, GROUP, LENGTH, LIMIT = 6, 3, 5, 9
SYNONYMS = {
    "seq-mean-token-mean": "grpo",
    "token-mean": "dapo",
    "seq-mean-token-sum-norm": "dr_grpo",
}
CLIPS = {
    "plain": {},
    "clip-higher": {"epsilon_high": 0.28},
    "dual clip": {"delta": 1.4},
    "tight": {"epsilon": 3e-4, "epsilon_high": 4e-4},
    "cispo": {"policy_loss": "cispo", "epsilon_high": 1.3},
    "sapo": {"policy_loss": "sapo"},
}


def some_step() -> dict[str, Tensor]:
    """Numbers [N, R] in double precision; advantages [N]; a mask with an empty row."""
    generator = torch.Generator().manual_seed(4)

    def noise() -> Tensor:
        return torch.randn(ROWS, LENGTH, generator=generator, dtype=torch.float64)

    logps = -noise().abs() - 0.1
    lengths = torch.tensor([5, 3, 4, 1, 5, 0])
    return {
        "logps": logps,
        "old": logps + 0.3 * noise(),
        "reference": logps + 0.3 * noise(),
        "rollout": logps + 0.3 * noise(),
        "advantages": torch.tensor([1.3, -0.7, 0.0, 2.0, -1.5, 0.4], dtype=torch.float64),
        "mask": torch.arange(LENGTH) < lengths[:, None],
    }


def fast_loss(rl: RLConfig, step: dict[str, Tensor], rows: slice = slice(None)) -> Tensor:
    """The axes multiplied, on some rows of the update."""
    mask, logps = step["mask"][rows], step["logps"][rows]
    update = Update(int(step["mask"].sum()), ROWS, GROUP, LIMIT)
    ratio = RATIOS[rl.importance_sampling_level](logps - step["old"][rows], mask)
    clip = Clip(rl.epsilon, rl.epsilon_high, rl.delta)
    taught = step["advantages"][rows, None]
    per_token, _ = SURROGATES[rl.policy_loss](ratio, logps, taught, clip)
    if rl.beta:
        per_token = per_token + rl.beta * KL[rl.kl_estimator](logps, step["reference"][rows])
    return (per_token * AGGREGATIONS[rl.loss_type](mask.double(), update)).sum()


def slow_of(rl: RLConfig, step: dict[str, Tensor]) -> Tensor:
    responses = []
    for i in range(ROWS):
        n = int(step["mask"][i].sum())
        logps = step["logps"][i, :n]
        reference = step["reference"][i].tolist()
        kl = [slow_kl(rl.kl_estimator, logp, reference[t]) for t, logp in enumerate(logps)]
        old, advantage = step["old"][i, :n].tolist(), step["advantages"][i].item()
        response = Response(logps, old, advantage, counted=n > 0)
        response.kl = torch.stack(kl) if rl.beta and n else None
        responses.append(response)
    return slow_loss(rl, [responses[i : i + GROUP] for i in range(0, ROWS, GROUP)])


def same_as_slow(rl: RLConfig, slow_rl: RLConfig) -> None:
    step = some_step()
    logps = step["logps"].requires_grad_()
    loss, expected = fast_loss(rl, step), slow_of(slow_rl, step)
    (gradient,) = torch.autograd.grad(loss, logps)
    (slope,) = torch.autograd.grad(expected, logps)
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, slope, rtol=1e-6, atol=1e-12)
    assert slope.any()


@pytest.mark.parametrize("loss_type", AGGREGATIONS)
@pytest.mark.parametrize("level", RATIOS)
@pytest.mark.parametrize("clip", CLIPS)
def test_loss_and_gradient_are_the_loops(loss_type: str, level: str, clip: str) -> None:
    keys = {"importance_sampling_level": level, "max_completion_length": LIMIT, **CLIPS[clip]}
    slow_type = SYNONYMS.get(loss_type, loss_type)
    same_as_slow(RLConfig(loss_type=loss_type, **keys), RLConfig(loss_type=slow_type, **keys))


@pytest.mark.parametrize("estimator", KL)
@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dapo", "dr_grpo", "seq-mean-token-sum"])
def test_the_kl_term_is_the_loops(loss_type: str, estimator: str) -> None:
    keys = {"beta": 0.5, "kl_estimator": estimator, "max_completion_length": LIMIT}
    rl = RLConfig(loss_type=loss_type, **keys)
    same_as_slow(rl, rl)


@pytest.mark.parametrize("loss_type", AGGREGATIONS)
def test_a_step_in_pieces_is_the_step(loss_type: str) -> None:
    """Pieces of whole groups, as micro-batches are."""
    step, rl = some_step(), RLConfig(loss_type=loss_type, beta=0.1)
    parts = [fast_loss(rl, step, slice(i, i + GROUP)) for i in range(0, ROWS, GROUP)]
    torch.testing.assert_close(sum(parts), fast_loss(rl, step))


@pytest.mark.parametrize("loss_type", AGGREGATIONS)
def test_equal_lengths_make_most_aggregations_equal(loss_type: str) -> None:
    """R tokens each: all means over tokens are one, a sum is R of it, the constant R / limit."""
    weights = AGGREGATIONS[loss_type](torch.ones(6, 5), Update(30, 6, 3, LIMIT))
    factor = {"mean_of_sums": 5, "constant_length": 5 / LIMIT}
    expected = factor.get(AGGREGATIONS[loss_type].__name__, 1) / 30
    torch.testing.assert_close(weights, torch.full((6, 5), expected))


def test_where_clips_bite() -> None:
    logps = torch.tensor([0.5, -0.5, 0.1]).expand(4, -1)  # ratios 1.65, 0.61, 1.11
    ratio = token_ratio(logps, torch.ones(4, 3))
    advantages = torch.tensor([1.0, -1.0, 0.0, 2.0])[:, None]
    _, (low, high) = ppo(ratio, logps, advantages, Clip(0.2, 0.3))
    assert low.tolist() == [[False] * 3, [False, True, False], [False] * 3, [False] * 3]
    assert high.tolist() == [[True, False, False], [False] * 3, [False] * 3, [True, False, False]]
    _, (_, high) = ppo(ratio, logps, advantages, Clip(0.2, 0.3, delta=1.5))
    assert high.tolist()[1] == [True, False, False]  # the dual clip, where the advantage is < 0
    _, (low, high) = cispo(ratio, logps, advantages, Clip(0.2, 1.2))
    assert not low.any()
    assert high.tolist() == [[True, False, False], [False] * 3, [False] * 3, [True, False, False]]


@pytest.mark.parametrize("level", RATIOS)
@pytest.mark.parametrize("policy_loss", SURROGATES)
def test_on_policy_the_loss_is_the_policy_gradient(policy_loss: str, level: str) -> None:
    """Ratio 1: the gradient by logp is -A, whatever the surrogate, its clip and the level."""
    logps = torch.randn(3, 4, requires_grad=True)
    advantages = torch.tensor([[1.0], [-2.0], [0.5]])
    ratio = RATIOS[level](logps - logps.detach(), torch.ones(3, 4))
    clip = Clip(3e-4, 5.0 if policy_loss == "cispo" else 4e-4, delta=3.0)
    loss, (low, high) = SURROGATES[policy_loss](ratio, logps, advantages, clip)
    loss.sum().backward()
    torch.testing.assert_close(logps.grad, -advantages.expand(3, 4))
    assert not (low | high).any()


def test_the_dual_clip_bounds_the_loss() -> None:
    ratio = torch.tensor([[50.0]], requires_grad=True)
    loss, _ = ppo(ratio, ratio.log(), torch.tensor([[-2.0]]), Clip(delta=3.0))
    loss.sum().backward()
    assert loss.item() == pytest.approx(6.0)
    assert ratio.grad.item() == 0


def test_no_token_loses_its_gradient_under_cispo() -> None:
    logps = torch.tensor([[3.0, 0.0, -3.0]], requires_grad=True)
    ratio = (logps - torch.zeros(1, 3)).exp()
    loss, _ = cispo(ratio, logps, torch.ones(1, 1), Clip(epsilon_high=5.0))
    loss.sum().backward()
    torch.testing.assert_close(logps.grad, -torch.tensor([[5.0, 1.0, 0.0498]]), atol=1e-4, rtol=0)


def test_the_ratio_of_a_sequence_is_the_mean_of_what_counts() -> None:
    difference = torch.tensor([[0.3, 0.1, 99.0], [0.2, 0.4, 0.6], [5.0, 5.0, 5.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]]).bool()
    found = sequence_ratio(difference, mask)
    expected = torch.tensor([0.2, 0.4, 0.0]).exp()[:, None].expand(3, 3)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_estimators_of_the_divergence(estimator: str) -> None:
    """0 for equal distributions, and their mean is KL(policy || reference)."""
    policy = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    reference = torch.tensor([0.25, 0.25, 0.25, 0.25], dtype=torch.float64)
    found = KL[estimator](policy.log(), reference.log())
    assert estimator == "k1" or (found >= 0).all()
    torch.testing.assert_close((policy * found).sum(), (policy * (policy / reference).log()).sum())
    assert KL[estimator](policy.log(), policy.log()).abs().max() == 0


@pytest.mark.parametrize("gap", [0.5, 6.0, 8.0, 30.0, 60.0, 100.0, 800.0])
def test_k3_draws_back_what_the_policy_has_given_up(gap: float) -> None:
    """Never below 0, growing with the distance, and a number with its gradient at any of it."""
    logps = torch.tensor([-gap, -gap - 1], requires_grad=True)
    near, far = KL["k3"](logps, torch.zeros(2))
    (near + far).backward()
    assert 0 <= near < far < 1e6
    assert logps.grad.isfinite().all() and logps.grad.max() < 0 and logps.grad.min() > -1200


def test_k3_near_the_reference_is_the_formula() -> None:
    difference = torch.linspace(-9, 6.9, 200)
    assert torch.equal(KL["k3"](-difference, torch.zeros(200)), difference.exp() - difference - 1)


@pytest.mark.parametrize("gap", [30.0, 60.0, 89.0, 100.0, 1e4])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_a_ratio_out_of_reach_is_still_a_number(surrogate: str, ratio: str, gap: float) -> None:
    """Several updates on one rollout may make likely what hardly was."""
    old, mask = torch.full((2, 3), -gap), torch.ones(2, 3).bool()
    logps = torch.full((2, 3), -0.01, requires_grad=True)
    reached = RATIOS[ratio](logps - old, mask)
    loss, _ = SURROGATES[surrogate](reached, logps, torch.tensor([[1.0], [-1.0]]), Clip())
    loss.sum().backward()
    assert loss.isfinite().all() and logps.grad.isfinite().all()


def test_importance_weights_are_the_loops() -> None:
    step = some_step()
    old, rollout, mask = step["old"], step["rollout"], step["mask"]
    for level, cap in itertools.product(("token", "sequence"), (1.1, 2.0, 1e9)):
        found = off_policy_weights(old, rollout, mask, level, cap)
        assert found.shape == old.shape
        for i in range(ROWS):
            differences = (old[i] - rollout[i])[mask[i]]
            if level == "sequence":
                differences = differences.sum().expand(len(differences))
            torch.testing.assert_close(found[i][mask[i]], differences.exp().clamp(max=cap))


def test_importance_weights_never_overflow() -> None:
    old, rollout = torch.full((1, 4), -1.0), torch.full((1, 4), -60.0)
    for level in ("token", "sequence"):
        found = off_policy_weights(old, rollout, torch.ones(1, 4).bool(), level, 2.0)
        assert found.tolist() == [[2.0] * 4]
