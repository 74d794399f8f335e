"""Rewards of accuracy, and how several rewards make one number."""

from __future__ import annotations

import logging
import math
import random

import jiwer
import pytest
from tiny import sentences, tiny_config

from audiorl.config.decoding import ScoreConfig
from audiorl.config.rewards import reward_options
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rewards import (
    Context,
    HarmonicMean,
    Reward,
    Sample,
    WeightedSum,
    build_reward,
    build_rewards,
)


def sample(reference: str, hypothesis: str, name: str = "u") -> Sample:
    return Sample(Utterance(name, "u.wav", reference, "s"), hypothesis, True)


def several(count: int) -> list[Sample]:
    """Unlike hypotheses of one utterance."""
    return [sample("a", "a" * (n + 1)) for n in range(count)]


def score(name: str, reference: str, hypothesis: str, k: float = 0.0, **keys: str) -> float:
    context = Context(ScoreConfig(**{"normalizer": "none", **keys}))
    reward = build_reward(reward_options(name, **({"k": k} if k else {})), context)
    return reward.function([sample(reference, hypothesis)])[0]


@pytest.mark.parametrize("unit", ["word", "char"])
def test_wer_is_one_minus_jiwers_error_rate(unit: str) -> None:
    references, hypotheses = sentences(100, seed=1), sentences(100, seed=2)
    reward = build_reward(reward_options(), Context(ScoreConfig(normalizer="none", unit=unit)))
    found = reward.function([sample(r, h) for r, h in zip(references, hypotheses, strict=True)])
    for value, reference, hypothesis in zip(found, references, hypotheses, strict=True):
        if unit == "word":
            rate = jiwer.wer(reference, hypothesis)
        else:
            rate = jiwer.cer(reference.replace(" ", ""), hypothesis.replace(" ", ""))
        assert value == pytest.approx(max(-1, 1 - rate))


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
def test_values_of_wer(reference: str, hypothesis: str, value: float) -> None:
    assert score("wer", reference, hypothesis) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "k", "hypothesis", "value"),
    [
        ("wer_exp", 0.0, "a b c d", 1.0),
        ("wer_exp", 0.0, "a b c", math.exp(-2.5 / 4)),
        ("wer_exp", 12.0, "a b x y", math.exp(-6.0)),
        ("wer_tanh", 0.0, "a b c d", 1.0),
        ("wer_tanh", 0.0, "a b c", 1 - math.tanh(0.75)),
        ("wer_tanh", 1.0, "", 1 - math.tanh(1.0)),
        ("edit_distance", 0.0, "a b c d", 0.0),
        ("edit_distance", 0.0, "x b d e", -3.0),
        ("exact_match", 0.0, "a b c d", 1.0),
        ("exact_match", 0.0, "a b c", 0.0),
    ],
)
def test_other_forms_of_accuracy(name: str, k: float, hypothesis: str, value: float) -> None:
    assert score(name, "a b c d", hypothesis, k) == pytest.approx(value)


def test_normalisation_and_units_are_those_of_scoring() -> None:
    assert score("wer", "It's TWO, o'clock", "it is 2 o'clock") < 0.5
    assert score("wer", "It's TWO, o'clock", "it is 2 o'clock", normalizer="english") == 1.0
    mandarin = {"normalizer": "mandarin", "unit": "mixed"}
    assert score("wer", "打开空调", "打开空气", **mandarin) == pytest.approx(0.75)
    assert score("wer", "2024年2个", "二〇二四年两个", **mandarin) == 1.0
    assert score("wer", "abcd", "abcx", unit="char") == pytest.approx(0.75)
    assert score("wer", "abcd", "abcx") == 0.0


def test_a_reward_may_count_in_units_of_its_own() -> None:
    reward = build_reward(reward_options(unit="char"), Context(ScoreConfig(normalizer="none")))
    assert reward.function([sample("abcd", "abcx")]) == pytest.approx([0.75])


def wenet_units(text: str) -> list[str]:
    """WeNet's rule: a letter without case is a unit; else up to a space or such a letter."""
    units: list[str] = []
    open_word = False
    for character in text.upper():
        if character.isspace():
            open_word = False
        elif ord(character) >= 128:
            units.append(character)
            open_word = False
        elif open_word:
            units[-1] += character
        else:
            units.append(character)
            open_word = True
    return units


def test_mixed_error_rate_follows_wenets_rule() -> None:
    draw = random.Random(5)
    pieces = ["打开", "空调", "wifi", "iphone 十五", "a 股", "don't", "的", "windows10", "好 吗"]
    for _ in range(200):
        ref = "".join(draw.choice([" ", ""]) + draw.choice(pieces) for _ in range(6))
        hyp = "".join(draw.choice([" ", ""]) + draw.choice(pieces) for _ in range(6))
        expected = jiwer.process_words(" ".join(wenet_units(ref)), " ".join(wenet_units(hyp))).wer
        found = score("edit_distance", ref, hyp, unit="mixed")
        assert -found == pytest.approx(expected * len(wenet_units(ref)))


def test_accuracy_does_not_apply_without_a_reference() -> None:
    for text, normalizer in (("", "none"), ("  ", "none"), ("(um)", "english")):
        reward = build_reward(reward_options(), Context(ScoreConfig(normalizer=normalizer)))
        assert not reward.applies(sample(text, "").utterance)
        scores = WeightedSum({"wer": (reward, 1.0)})([sample(text, "anything")])
        assert math.isnan(scores.total[0])  # nothing applies: unscorable
        assert scores.failed == [""]  # which is nobody's fault


def test_parts_are_kept_raw_and_summed_by_weight() -> None:
    rewards = {
        "one": (lambda samples: [1.0, 0.5, 0.0], 2.0),
        "two": (lambda samples: [0.2, None, 1.0], -0.5),
    }
    scores = WeightedSum(rewards)(several(3))
    assert scores.parts["one"] == [1.0, 0.5, 0.0]
    assert scores.parts["two"][::2] == [0.2, 1.0]
    assert math.isnan(scores.parts["two"][1])
    assert scores.total[0] == pytest.approx(1.9)
    assert math.isnan(scores.total[1])
    assert scores.total[2] == pytest.approx(-0.5)
    assert scores.weights == {"one": 2.0, "two": -0.5}
    assert scores.failed == ["", "two (it gave no number)", ""]
    assert scores.select([1]).join(scores.select([2])).failed == ["two (it gave no number)", ""]


def test_a_gate_that_is_below_zero_replaces_the_total() -> None:
    rewards = {
        "term": (lambda samples: [0.5, 0.5, 0.5, 0.5], 1.0),
        "gate": (Reward(lambda s: [0.0, -1.0, 0.0, -1.0], "gate"), 1.5),
        "other": (Reward(lambda s: [0.3, 0.0, -1.0, -1.0], "gate"), 1.0),
    }
    scores = WeightedSum(rewards)(several(4))
    assert scores.total == [0.5, -1.5, -1.0, -1.5]  # above 0 a gate is open; the lowest counts
    assert scores.parts["gate"] == [0.0, -1.0, 0.0, -1.0]
    assert scores.weights == {"term": 1.0}


def test_a_group_reward_sees_one_utterance_at_a_time() -> None:
    seen = []

    def best_in_group(samples):
        seen.append([s.text for s in samples])
        longest = max(len(s.text) for s in samples)
        return [float(len(s.text) == longest) for s in samples]

    texts = ["1", "22", "333", "4"]
    samples = [sample("x", text, name) for name, text in zip("aabb", texts, strict=True)]
    scores = WeightedSum({"best": (Reward(best_in_group, "group"), 1.0)})(samples)
    assert seen == [["1", "22"], ["333", "4"]]
    assert scores.total == [0.0, 1.0, 1.0, 0.0]


def test_what_does_not_apply_is_left_out_of_the_total() -> None:
    rewards = {
        "all": (lambda samples: [0.5] * len(samples), 1.0),
        "some": (Reward(lambda s: [1.0] * len(s), applies=lambda u: u.text != ""), 1.0),
        "gate": (Reward(lambda s: [-1.0] * len(s), "gate", applies=lambda u: u.text == "z"), 1.0),
    }
    scores = WeightedSum(rewards)([sample("a", "", "1"), sample("", "", "2"), sample("z", "", "3")])
    assert scores.total == [1.5, 0.5, -1.0]
    assert math.isnan(scores.parts["some"][1]) and math.isnan(scores.parts["gate"][0])


def test_an_open_gate_alone_is_worth_nothing_but_scorable() -> None:
    """Recordings without speech have a gate for output, and no accuracy."""
    rewards = {
        "wer": (Reward(lambda s: [1.0] * len(s), applies=lambda u: u.text != ""), 1.0),
        "gate": (Reward(lambda samples: [-1.0 if s.text else 0.0 for s in samples], "gate"), 1.0),
    }
    assert WeightedSum(rewards)([sample("", ""), sample("", "x")]).total == [0.0, -1.0]


def test_harmonic_mean() -> None:
    rewards = {
        "one": (lambda samples: [1.0, 0.5, 0.9, -0.5], 0.6),
        "two": (Reward(lambda samples: [-0.5, -0.5, -1.0, 0.0], penalty=True), 0.4),
    }
    scores = HarmonicMean(rewards)(several(4))
    assert scores.total[0] == pytest.approx(1 / (0.6 / 1.0 + 0.4 / 0.5))
    assert scores.total[1] == pytest.approx(0.5)
    assert scores.total[2:] == [0.0, 0.0]  # bad in one is bad in all
    assert scores.parts["two"] == [-0.5, -0.5, -1.0, 0.0]  # raw


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, None])
def test_what_is_no_number_is_unscorable(value: float | None) -> None:
    scores = WeightedSum({"odd": (lambda samples: [0.5, value], 1.0)})(several(2))
    assert scores.total[0] == 0.5
    assert math.isnan(scores.total[1])
    assert math.isnan(scores.parts["odd"][1])


def test_a_failure_is_unscorable_and_logged(caplog) -> None:
    def broken(samples):
        return 1 / 0

    rewards = WeightedSum({"good": (lambda s: [1.0] * len(s), 1.0), "bad": (broken, 1.0)})
    with caplog.at_level(logging.WARNING):
        scores = rewards(several(2))
    assert all(math.isnan(value) for value in scores.total + scores.parts["bad"])
    assert scores.parts["good"] == [1.0, 1.0]
    assert "reward bad failed on 2 of 2 samples, first of utterance u, which" in caplog.text
    assert caplog.text.count("Traceback") == 1 and "ZeroDivisionError" in caplog.text
    assert scores.failed == ["bad (ZeroDivisionError: division by zero)"] * 2
    assert "reward bad: 2 of 2 samples are unscorable" in caplog.text


def test_a_failed_gate_is_unscorable_too() -> None:
    rewards = {
        "term": (lambda samples: [1.0, 1.0], 1.0),
        "gate": (Reward(lambda samples: [None, 0.0], "gate"), 1.0),
    }
    scores = WeightedSum(rewards)(several(2))
    assert math.isnan(scores.total[0]) and scores.total[1] == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "high"])
def test_what_is_no_finite_number_is_unscorable(value) -> None:
    scores = WeightedSum({"odd": (lambda samples: [value], 1.0)})([sample("a", "a")])
    assert math.isnan(scores.total[0]) and math.isnan(scores.parts["odd"][0])


def test_a_reward_that_answers_for_others_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="reward short: 1 values for 2 samples"):
        WeightedSum({"short": (lambda s: [1.0], 1.0)})(several(2))


def test_a_users_mistake_stops_the_run() -> None:
    def mistaken(samples):
        raise UserError("rewards.py: mend it.")

    with pytest.raises(UserError, match=r"rewards.py: mend it\."):
        WeightedSum({"mine": (mistaken, 1.0)})([sample("a", "a")])


def test_rewards_are_built_by_name() -> None:
    chosen = [reward_options("wer", 0.5), reward_options("wer", unit="char", label="cer")]
    config = tiny_config({"rl.rewards": chosen})
    scores = build_rewards(config)([sample("ab b", "ab"), sample("", "x")])
    assert scores.parts["wer"][0] == pytest.approx(0.5)
    assert scores.parts["cer"][0] == pytest.approx(2 / 3)
    assert scores.total[0] == pytest.approx(0.25 + 2 / 3)
    assert math.isnan(scores.total[1])
    config.rl.reward_combination = "harmonic"
    total = build_rewards(config)([sample("ab b", "ab")]).total
    assert total == pytest.approx([1.5 / (0.5 / 0.5 + 1 / (2 / 3))])


def test_equal_hypotheses_are_scored_once() -> None:
    seen = []

    def length(samples: list[Sample]) -> list[float]:
        seen.extend(s.text for s in samples)
        return [float(len(s.text)) for s in samples]

    one, other = (Utterance(name, "x.wav", "go", "s") for name in "ab")
    samples = [
        Sample(u, text, finished)
        for u in (one, other)
        for text, finished in [("go", True), ("", True), ("go", True), ("go", False)]
    ]
    assert WeightedSum({"length": (length, 1.0)})(samples).total == [2.0, 0.0, 2.0, 2.0] * 2
    assert len(seen) == 6
