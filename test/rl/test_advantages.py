"""Advantages against TRL's formulas, written out in plain loops of double precision."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from audiorl.rl.advantages import Rewards, advantages, flat_groups, group_std

NAN = math.nan
REWARDS = {
    "plain": [[0.1, 0.9, 0.4, 0.4], [1.0, 0.0, -1.0, 0.5], [0.2, 0.2, 0.2, 0.7]],
    "flat": [[0.3, 0.3, 0.3, 0.3], [0.0, 1.0, 0.0, 1.0]],
    "nearly flat": [[0.3, 0.30001, 0.3, 0.3], [0.0, 1.0, 0.0, 1.0]],
    "unscorable": [[0.1, NAN, 0.4, 0.9], [NAN, NAN, NAN, 0.5], [NAN] * 4, [0.0, 1.0, NAN, 0.0]],
    "pairs": [[0.1, 0.2], [0.9, 0.1]],
    "one group": [[0.1, 0.2, 0.5]],
}


def slow_std(values: list[float]) -> float:
    """n - 1 below the root, as torch.std and so TRL; 0 where there is nothing to compare."""
    known = [v for v in values if not math.isnan(v)]
    return statistics.stdev(known) if len(known) > 1 else 0.0


def slow_advantages(rewards: list[list[float]], scale: str) -> list[list[float]]:
    everything = [v for group in rewards for v in group]
    result = []
    for group in rewards:
        known = [v for v in group if not math.isnan(v)]
        mean = sum(known) / len(known) if known else NAN
        divisor = {
            "group": slow_std(group) + 1e-4,
            "batch": slow_std(everything) + 1e-4,
            "none": 1.0,
        }[scale]
        result.append([0.0 if math.isnan(v) else (v - mean) / divisor for v in group])
    return result


def group_advantages(rewards: torch.Tensor, scale: str) -> torch.Tensor:
    return advantages(Rewards(rewards), "group", scale)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("name", REWARDS)
def test_advantages_are_trls(name: str, scale: str) -> None:
    actual = group_advantages(torch.tensor(REWARDS[name], dtype=torch.float64), scale)
    expected = torch.tensor(slow_advantages(REWARDS[name], scale), dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_single_precision_is_enough(scale: str) -> None:
    rewards = torch.rand(16, 8, generator=torch.Generator().manual_seed(0))
    expected = slow_advantages(rewards.double().tolist(), scale)
    actual = group_advantages(rewards, scale)
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REWARDS)
def test_deviations_and_flat_groups(name: str) -> None:
    rewards = torch.tensor(REWARDS[name], dtype=torch.float64)
    expected = [slow_std(group) for group in REWARDS[name]]
    assert group_std(rewards).tolist() == pytest.approx(expected, abs=1e-12)
    assert flat_groups(rewards).tolist() == [std < 1e-6 for std in expected]


def test_a_flat_group_learns_nothing() -> None:
    for value in (0.0, 0.1, 1 / 3, -0.7, 0.999):
        rewards = torch.full((1, 8), value)
        assert flat_groups(rewards).tolist() == [True]
        assert group_advantages(rewards, "group").abs().max() < 1e-3


def test_groups_do_not_see_each_other() -> None:
    rewards = torch.tensor(REWARDS["plain"])
    for scale in ("group", "none"):
        together = group_advantages(rewards, scale)
        alone = torch.cat([group_advantages(row[None], scale) for row in rewards])
        assert torch.equal(together, alone)


def test_what_is_unscorable_teaches_nobody() -> None:
    """The others' advantages are those of a group without it."""
    with_it = group_advantages(torch.tensor([[0.1, NAN, 0.4, 0.9]]), "group")[0]
    without = group_advantages(torch.tensor([[0.1, 0.4, 0.9]]), "group")[0]
    assert with_it[1] == 0
    torch.testing.assert_close(with_it[[0, 2, 3]], without)
