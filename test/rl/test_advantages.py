"""Advantages against slow loops of double precision: each baseline with each scale."""

from __future__ import annotations

import math

import pytest
import torch
from slow_formulas import deviation, slow_advantages, slow_gdpo

from audiorl.config.rl import RLConfig
from audiorl.rl.advantages import (
    BASELINES,
    SCALES,
    Rewards,
    advantages,
    decoupled,
    flat_groups,
    group_std,
)

NAN = math.nan
REWARDS = {
    "plain": [[0.1, 0.9, 0.4, 0.4], [1.0, 0.0, -1.0, 0.5], [0.2, 0.2, 0.2, 0.7]],
    "flat": [[0.3, 0.3, 0.3, 0.3], [0.0, 1.0, 0.0, 1.0]],
    "nearly flat": [[0.3, 0.3003, 0.3, 0.3], [0.0, 1.0, 0.0, 1.0]],
    "unscorable": [[0.1, NAN, 0.4, 0.9], [NAN, NAN, NAN, 0.5], [NAN] * 4, [0.0, 1.0, NAN, 0.0]],
    "pairs": [[0.1, 0.2], [0.9, 0.1]],
    "one group": [[0.1, 0.2, 0.5]],
    "nothing": [[NAN, NAN], [NAN, NAN]],
}


def around(rewards: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Rewards of greedy hypotheses and log-probabilities for these groups."""
    generator = torch.Generator().manual_seed(len(rewards))
    greedy = torch.rand(len(rewards), generator=generator, dtype=torch.float64)
    shape = len(rewards), len(rewards[0])
    logps = -8 * torch.rand(shape, generator=generator, dtype=torch.float64)
    return greedy.tolist(), logps.tolist()


def fast(rewards: list[list[float]], baseline: str, scale: str, dtype=torch.float64):
    total, greedy, logps = (torch.tensor(v, dtype=dtype) for v in (rewards, *around(rewards)))
    return advantages(Rewards(total, greedy, logps), baseline, scale)


def slow(rewards: list[list[float]], baseline: str, scale: str) -> torch.Tensor:
    rl = RLConfig(baseline=baseline, scale_rewards=scale)
    return torch.tensor(slow_advantages(rl, rewards, *around(rewards)), dtype=torch.float64)


def group_advantages(rewards: torch.Tensor, scale: str) -> torch.Tensor:
    return advantages(Rewards(rewards), "group", scale)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("name", REWARDS)
def test_advantages_are_the_loops(name: str, baseline: str, scale: str) -> None:
    """`group` with `group`, `batch` and `none`, and `leave_one_out` with `none`: TRL's."""
    actual = fast(REWARDS[name], baseline, scale)
    expected = slow(REWARDS[name], baseline, scale)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)
    assert actual[torch.tensor(REWARDS[name]).isnan()].eq(0).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_single_precision_is_enough(baseline: str, scale: str) -> None:
    rewards = torch.rand(16, 8, generator=torch.Generator().manual_seed(0)).double().tolist()
    actual = fast(rewards, baseline, scale, torch.float32)
    expected = slow(rewards, baseline, scale)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", REWARDS)
def test_deviations_and_flat_groups(name: str) -> None:
    rewards = torch.tensor(REWARDS[name], dtype=torch.float64)
    expected = [deviation(group) for group in REWARDS[name]]
    assert group_std(rewards).tolist() == pytest.approx(expected, abs=1e-12)
    assert flat_groups(rewards).tolist() == [std < 1e-6 for std in expected]


@pytest.mark.parametrize("group", [2, 3, 7, 8])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", ["group", "leave_one_out", "posterior"])
def test_a_flat_group_learns_nothing(baseline: str, scale: str, group: int) -> None:
    """Exactly nothing, in single precision and beside a group that is not flat."""
    for value in (0.0, 0.1, 1 / 3, -0.7, 0.999):
        rewards = [[value] * group, [0.3 * i / group for i in range(group)]]
        taught = fast(rewards, baseline, scale, torch.float32)
        assert flat_groups(torch.tensor(rewards)).tolist() == [True, False]
        assert (taught[0] == 0).all()
        assert (taught[1] != 0).any()


@pytest.mark.parametrize("group", [3, 6, 7])
@pytest.mark.parametrize("scale", SCALES)
def test_a_flat_step_learns_nothing(scale: str, group: int) -> None:
    """Nothing that rounding left is scaled up to a lesson."""
    rewards = [[value] * group for value in (0.1, 1 / 3, -0.7, 0.999, 0.83)]
    for baseline in ("group", "leave_one_out", "posterior"):
        assert (fast(rewards, baseline, scale, torch.float32) == 0).all()
    assert (fast([rewards[1]] * 3, "batch", scale, torch.float32) == 0).all()
    total = torch.tensor(rewards)
    assert (decoupled(total, [total, 1 - total], [1.0, 0.5]) == 0).all()


# Sums and means of equal numbers, in single precision as in double, at any size.
ANY_SIZE = (66.7, 33.3, 100.1, 1000.1, -87.1, 1e6 + 0.3, 1e12 / 7, 1e-3 / 7, 1e-9 / 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("group", [6, 8, 12])
@pytest.mark.parametrize("scale", SCALES)
def test_equal_rewards_teach_nothing_at_any_size(scale: str, group: int, dtype) -> None:
    for value in ANY_SIZE:
        total = torch.full((3, group), value, dtype=dtype)
        assert flat_groups(total).all() and group_std(total).eq(0).all(), value
        for baseline in BASELINES:
            one = Rewards(total, total[:, 0], -torch.rand(3, group))
            assert advantages(one, baseline, scale).eq(0).all(), (value, baseline)
        assert decoupled(total, [total, 2 * total], [1.0, 0.5]).eq(0).all(), value


@pytest.mark.parametrize("value", ANY_SIZE)
def test_what_differs_by_single_precision_alone_is_equal(value: float) -> None:
    """A reward that went through float32 on one row and not on the next."""
    near = torch.tensor([[value, torch.tensor(value).item()] * 3], dtype=torch.float64)
    assert flat_groups(near).all()
    assert group_advantages(near, "group").eq(0).all()


@pytest.mark.parametrize("value", [66.7, 1000.1, 1e6, -1e6, 1e-3, 1e-5])
def test_a_difference_that_means_something_is_a_lesson_at_any_size(value: float) -> None:
    total = torch.tensor([[value, value * (1 + 1e-6), value, value]], dtype=torch.float64)
    assert not flat_groups(total).any()
    assert group_advantages(total, "none")[0, 1] != 0


def test_terms_that_cancel_out_are_no_lesson() -> None:
    total = torch.tensor([[0.3 - 3 * 0.1, 0.0, 0.7 - 0.7, 0.1 + 0.2 - 0.3]], dtype=torch.float64)
    assert total.ne(0).any()
    assert flat_groups(total).all() and group_advantages(total, "group").eq(0).all()


def test_outside_baselines_teach_flat_groups() -> None:
    rewards = torch.tensor([[0.5, 0.5], [1.0, 1.0]])
    greedy = advantages(Rewards(rewards, torch.tensor([0.2, 1.0])), "greedy", "none")
    torch.testing.assert_close(greedy, torch.tensor([[0.3, 0.3], [0.0, 0.0]]))
    batch = advantages(Rewards(rewards), "batch", "none")
    torch.testing.assert_close(batch, torch.tensor([[-0.25, -0.25], [0.25, 0.25]]))


def test_groups_do_not_see_each_other() -> None:
    rewards = torch.tensor(REWARDS["plain"])
    for scale in ("group", "none"):
        together = group_advantages(rewards, scale)
        alone = torch.cat([group_advantages(row[None], scale) for row in rewards])
        assert torch.equal(together, alone)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("baseline", BASELINES)
def test_what_is_unscorable_teaches_nobody(baseline: str, scale: str) -> None:
    """The others' advantages are those of a step without it."""
    logps = torch.tensor([[-3.0, -1.0, -2.0, -4.0]])

    def taught(values: list[float], places: list[int]) -> torch.Tensor:
        rewards = Rewards(torch.tensor([values]), torch.tensor([0.2]), logps[:, places])
        return advantages(rewards, baseline, scale)[0]

    with_it = taught([0.1, NAN, 0.4, 0.9], [0, 1, 2, 3])
    without = taught([0.1, 0.4, 0.9], [0, 2, 3])
    assert with_it[1] == 0
    if baseline in ("posterior", "best") and scale != "whiten":
        without = without * 4 / 3  # the factor n undoes a mean over rows, the unscorable one too
    torch.testing.assert_close(with_it[[0, 2, 3]], without, rtol=1e-3, atol=1e-5)


def test_without_the_greedy_reward_there_is_no_advantage() -> None:
    rewards = Rewards(torch.tensor([[0.1, 0.4], [0.2, 0.3]]), torch.tensor([NAN, 0.1]))
    for scale in SCALES:
        found = advantages(rewards, "greedy", scale)
        assert found[0].tolist() == [0, 0]
        assert found.isfinite().all()


def test_mwer_weights_are_the_gradient_of_the_expected_reward() -> None:
    """n P_i (R_i - mean) is n times the slope of sum_i softmax(logp)_i R_i by logp_i."""
    generator = torch.Generator().manual_seed(3)
    rewards = torch.rand(5, 6, generator=generator, dtype=torch.float64)
    logps = torch.randn(5, 6, generator=generator, dtype=torch.float64) * 3
    logps.requires_grad_()
    (logps.softmax(1) * rewards).sum().backward()
    found = advantages(Rewards(rewards, logps=logps.detach()), "posterior", "none")
    torch.testing.assert_close(found, 6 * logps.grad, rtol=1e-9, atol=2e-6)  # 1e-6 is rounding


def test_raft_imitates_the_best() -> None:
    """Ties share; a loss with these advantages is cross entropy on the best of each group."""
    rewards = torch.tensor([[0.1, 0.9, 0.4], [0.5, 0.5, 0.2], [0.3, 0.3, 0.3], [NAN, 0.2, 0.1]])
    found = advantages(Rewards(rewards), "best", "none")
    assert found.tolist() == [[0, 3, 0], [1.5, 1.5, 0], [0, 0, 0], [0, 3, 0]]


PARTS = {
    "plain": {"a": REWARDS["plain"], "b": [[3, 1, 2, 2], [0, 0, 0, 0], [5, 6, 6, 5]]},
    "one": {"a": REWARDS["plain"]},
    "unscorable": {
        "a": REWARDS["unscorable"],
        "b": [[3, 1, 2, 2], [1, 2, 3, 4], [5, 6, 6, 5], [2, NAN, 1, 0]],
    },
    "does not apply": {"a": REWARDS["plain"], "b": [[NAN] * 4, [1, 2, NAN, 4], [5, 6, 6, 5]]},
    "equal sums": {"a": [[0, 1, 0, 1], [1, 1, 0, 0]], "b": [[1, 0, 1, 0], [2, 2, 2, 2]]},
}
PARTS_WEIGHTS = {"a": 1.0, "b": -0.5}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", PARTS)
def test_gdpo_is_the_loops(name: str, dtype: torch.dtype) -> None:
    """TRL's `normalize_then_sum`."""
    parts = {n: torch.tensor(v, dtype=dtype) for n, v in PARTS[name].items()}
    total = parts["a"].clone() if name == "does not apply" else sum(parts.values())
    weights = [PARTS_WEIGHTS[n] for n in parts]
    expected = slow_gdpo(total.tolist(), PARTS[name], PARTS_WEIGHTS)
    known = [part.masked_fill(total.isnan(), NAN) for part in parts.values()]
    actual = decoupled(total, known, weights).double()
    limit = 1e-9 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=limit, atol=limit
    )
    assert actual[total.isnan()].eq(0).all()


def test_gdpo_does_not_mind_the_size_of_a_reward() -> None:
    """What the sum would drown counts as much."""
    large = torch.tensor([[100.0, 0.0, 50.0, 20.0], [10.0, 90.0, 0.0, 30.0]])
    small = torch.tensor([[0.0, 1.0, 0.5, 0.2], [1.0, 0.0, 0.2, 0.7]])
    found = decoupled(large + small, [large, small], [1.0, 1.0])
    scaled = decoupled(large + small, [large, 100 * small], [1.0, 1.0])
    torch.testing.assert_close(found, scaled, rtol=0, atol=1e-2)
    assert (found - advantages(Rewards(large + small), "group", "group")).abs().max() > 0.3
