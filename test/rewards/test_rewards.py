"""Rewards: what they score, what they cannot, and their sum."""

from __future__ import annotations

import logging
import math

import jiwer
import pytest
from tiny import sentences, tiny_config

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.data.utterance import Utterance
from audiorl.rewards import REWARDS, Sample, WeightedSum, build_rewards
from audiorl.rewards.accuracy import wer


def sample(reference: str, hypothesis: str) -> Sample:
    return Sample(Utterance("u", "u.wav", reference, "s"), hypothesis, True)


def score(reference: str, hypothesis: str, **keys: str) -> float | None:
    return wer(ScoreConfig(**{"normalizer": "none", **keys}))([sample(reference, hypothesis)])[0]


def test_it_is_one_minus_the_word_error_rate() -> None:
    references, hypotheses = sentences(100, seed=1), sentences(100, seed=2)
    reward = wer(ScoreConfig(normalizer="none"))
    found = reward([sample(r, h) for r, h in zip(references, hypotheses, strict=True)])
    for value, reference, hypothesis in zip(found, references, hypotheses, strict=True):
        assert value == pytest.approx(max(-1, 1 - jiwer.wer(reference, hypothesis)))


@pytest.mark.parametrize(
    ("reference", "hypothesis", "value"),
    [
        ("a b c", "a b c", 1.0),
        ("a b c", "", 0.0),
        ("a b c d", "a b c", 0.75),
        ("a b", "a b c", 0.5),
        ("a", "b c d e f", -1.0),  # five errors in one word, floored
        ("a b", "c d e", -0.5),
    ],
)
def test_values(reference: str, hypothesis: str, value: float) -> None:
    assert score(reference, hypothesis) == pytest.approx(value)


def test_normalisation_and_units_are_those_of_scoring() -> None:
    assert score("It's TWO, o'clock", "it is 2 o'clock") < 0.5
    assert score("It's TWO, o'clock", "it is 2 o'clock", normalizer="english") == 1.0
    assert score("打开空调", "打开空气", normalizer="mandarin", unit="mixed") == pytest.approx(0.75)
    assert score("abcd", "abcx", unit="char") == pytest.approx(0.75)
    assert score("abcd", "abcx") == 0.0


def test_an_empty_reference_is_unscorable() -> None:
    assert score("", "anything") is None
    assert score("  ", "") is None
    assert score("(um)", "so", normalizer="english") is None


def test_parts_are_kept_raw_and_summed_by_weight() -> None:
    rewards = {
        "one": (lambda samples: [1.0, 0.5, 0.0], 2.0),
        "two": (lambda samples: [0.2, None, 1.0], -0.5),
    }
    scores = WeightedSum(rewards)([sample("a", "a")] * 3)
    assert scores.parts["one"] == [1.0, 0.5, 0.0]
    assert scores.parts["two"][::2] == [0.2, 1.0]
    assert math.isnan(scores.parts["two"][1])
    assert scores.total[0] == pytest.approx(1.9)
    assert math.isnan(scores.total[1])
    assert scores.total[2] == pytest.approx(-0.5)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, None])
def test_what_is_no_number_is_unscorable(value: float | None) -> None:
    scores = WeightedSum({"odd": (lambda samples: [0.5, value], 1.0)})([sample("a", "a")] * 2)
    assert scores.total[0] == 0.5
    assert math.isnan(scores.total[1])
    assert math.isnan(scores.parts["odd"][1])


def test_a_failure_is_unscorable_and_logged(caplog) -> None:
    def broken(samples):
        return 1 / 0

    rewards = WeightedSum({"good": (lambda s: [1.0] * len(s), 1.0), "bad": (broken, 1.0)})
    with caplog.at_level(logging.ERROR):
        scores = rewards([sample("a", "a")] * 2)
    assert all(math.isnan(value) for value in scores.total + scores.parts["bad"])
    assert scores.parts["good"] == [1.0, 1.0]
    assert "reward bad failed on 2 samples" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_reward_that_answers_for_others_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="reward short: 1 values for 2 samples"):
        WeightedSum({"short": (lambda s: [1.0], 1.0)})([sample("a", "a")] * 2)


def test_rewards_are_built_by_name() -> None:
    config = tiny_config({"rl.rewards": [RewardConfig("wer", 0.5)]})
    scores = build_rewards(config)([sample("a b", "a"), sample("", "x")])
    assert scores.parts["wer"][0] == pytest.approx(0.5)
    assert scores.total[0] == pytest.approx(0.25)
    assert math.isnan(scores.total[1])
    assert set(RewardConfig.__dataclass_fields__["name"].metadata["choices"]) == set(REWARDS)
