"""What makes an utterance hard: rewards, errors, disagreement, loops, hallucination."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from pools import said, utterance
from tiny import tiny_config

from audiorl.config.rewards import reward_options
from audiorl.rl.advantages import flat_groups, group_std
from audiorl.rl_data.difficulty import Difficulty, DifficultyMeasure
from audiorl.rl_data.probe import Probe


def measure(
    probe: Probe, text: str = "ba do ki lu", others=(), seconds: float = 3.0, **keys
) -> Difficulty:
    return DifficultyMeasure(tiny_config(keys))(utterance("u", text, seconds), probe, list(others))


def test_rewards_of_the_group() -> None:
    rewards = [0.25, 1.0, -0.5]
    found = measure(said("", "", "", "", rewards=rewards))
    group = torch.tensor([rewards])
    assert found.reward_mean == pytest.approx(0.25)
    assert found.reward_std == pytest.approx(group_std(group).item())
    assert found.reward_std > 0.5
    assert found.reward_best == 1.0
    assert not found.flat
    assert measure(said("", "", "", rewards=[0.5, 0.5])).flat == flat_groups(group[:, :1]).item()


def test_samples_without_a_reward_are_left_out() -> None:
    found = measure(said("", "", "", "", rewards=[math.nan, 0.5, 1.0]))
    assert (found.reward_mean, found.reward_best) == (0.75, 1.0)
    nothing = measure(said("", "", "", rewards=[math.nan, math.nan]))
    assert math.isnan(nothing.reward_mean) and math.isnan(nothing.reward_best)


def test_errors_of_the_greedy_hypothesis_and_share_of_samples_that_pass() -> None:
    probe = said("ba do ki", "ba do ki lu", "ba do ki", "so so so so")
    found = measure(probe)
    assert found.error == 0.25
    assert found.pass_rate == pytest.approx(1 / 3)


def test_texts_are_compared_as_they_are_scored() -> None:
    found = measure(said("Ba do, KI lu!", "BA DO KI LU"), **{"score.normalizer": "english"})
    assert (found.error, found.pass_rate, found.disagreement) == (0, 1, 0)
    by_character = measure(said("ba do ki lo", "ba do ki lu"), **{"score.unit": "char"})
    assert by_character.error == 1 / 8


def test_disagreement_of_the_policy_with_itself() -> None:
    assert measure(said("ba do", "ba do", "ba do")).disagreement == 0
    found = measure(said("ba do", "ba do", "ba ki", "ba do ki lu"))
    assert found.disagreement == pytest.approx((0 + 1 / 2 + 2 / 4) / 3)


def test_disagreement_of_systems() -> None:
    """Over all pairs; what the policy samples does not count then."""
    found = measure(said("ba do", "so so"), others=["ba ki", "ba do ki lu"])
    assert found.disagreement == pytest.approx((1 / 2 + 2 / 4 + 2 / 4) / 3)
    assert measure(said("", "so"), others=[""]).disagreement == 0


@pytest.mark.parametrize(
    ("text", "greedy", "other", "repeats"),
    [
        ("ba do", "ba do", "ba do", False),
        ("ba do", "ba do ba do ba do ba do ba do", "ba do", True),
        ("ba do", "ba do", "so so so so so so", True),
        ("so so so so so so", "so so", "so so", True),  # the speaker does it
        ("so so so", "so so so", "so so so", False),
    ],
)
def test_repetition(text: str, greedy: str, other: str, repeats: bool) -> None:
    assert measure(said(greedy, "ba"), text, [other]).repeats == repeats


def test_hallucination_is_what_the_reward_finds() -> None:
    loop = "so " * 12
    found = measure(said("ba do ki lu", loop, "ba do ki lu", loop))
    assert found.hallucinated == 0.5
    # Six units in a second: too many if one says so.
    quick = said("ba do ki lu me no", "ba do ki lu me no")
    assert measure(quick, seconds=1.0).hallucinated == 0
    slow = [reward_options(name="wer"), reward_options(name="hallucination", max_rate=4.0)]
    assert measure(quick, seconds=1.0, **{"rl.rewards": slow}).hallucinated == 1


def test_where_nobody_speaks() -> None:
    found = measure(said("ba", "", "", "do"), text="")
    assert found.error is None
    assert found.hallucinated == 0.5
    assert found.pass_rate == pytest.approx(2 / 3)
    signs = measure(said(". . . .", "", ".", " "), text="")
    assert (signs.hallucinated, signs.pass_rate) == (0.75, pytest.approx(1 / 3))
    endless = replace(said("", "", ""), finished=[True, False])
    assert measure(endless, text="").hallucinated == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["um", "Mm-hmm.", "[laughter]", "(coughs)", "<noise>"])
def test_fillers_and_tags_are_said(text: str) -> None:
    found = measure(said(text, text, ""), text=text, **{"score.normalizer": "english"})
    assert found.hallucinated == 0
