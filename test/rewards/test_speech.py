"""Rewards of synthesis against slow references, and on groups where the answer is known."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from tiny_speaker import speech_config, tiny_recogniser, utterance

from audiorl.config.decoding import ScoreConfig
from audiorl.config.rewards import reward_options
from audiorl.data.utterance import Utterance
from audiorl.models.voice import Voice, Voices
from audiorl.rewards import (
    Context,
    Models,
    Reward,
    Sample,
    build_reward,
    build_rewards,
    wants_waves,
)
from audiorl.rewards.core.combine import WeightedSum
from audiorl.rewards.core.counting import BATCH

RATE = 16000
U = utterance("u", "ab")


def reward(name: str, models: Models | None = None, **options: float) -> Reward:
    context = Context(ScoreConfig(normalizer="none"), models or Models())
    return build_reward(reward_options(name, **options), context)


def spoken(*rows: list[int], of: Utterance = U) -> list[Sample]:
    return [Sample(of, "", True, tuple(row)) for row in rows]


def glide(low: float, high: float) -> np.ndarray:
    """One second of a voice that goes from one pitch to another, in Hz."""
    pitch = np.geomspace(low, high, RATE)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    wave = sum(np.sin(n * phase) / n for n in range(1, 8))
    return (0.1 * wave).astype(np.float32)


def edit_distance(a: list[int], b: list[int]) -> int:
    """By the recursion of its definition."""
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return edit_distance(a[1:], b[1:])
    return 1 + min(edit_distance(a[1:], b), edit_distance(a, b[1:]), edit_distance(a[1:], b[1:]))


def test_duration_is_the_distance_to_the_groups_median() -> None:
    rows = [[1] * n for n in (4, 6, 8, 5, 40)]
    found = reward("duration").function(spoken(*rows))
    middle = median([4, 6, 8, 5, 40])
    expected = [-min(1, abs(n - middle) / middle) for n in (4, 6, 8, 5, 40)]
    assert found == pytest.approx(expected)
    assert found[1] == 0 and found[4] == -1
    assert reward("duration").kind == "group"
    assert reward("duration").function(spoken([], [], [1])) == [0, 0, -1]


def test_slower_speech_of_a_whole_group_costs_nothing_but_a_slow_member_does() -> None:
    once, twice = spoken([1] * 10, [2] * 10, [3] * 12), spoken([1] * 20, [2] * 20, [3] * 24)
    assert reward("duration").function(once) == reward("duration").function(twice)
    assert min(reward("duration").function(once)) == pytest.approx(-0.2)


def test_tempo_is_the_distance_to_the_utterances_own_duration() -> None:
    of = replace(U, duration=2.0)
    rows = [[1] * n for n in (20, 10, 24, 100, 0)]
    tempo = reward("tempo", Models(token_rate=10.0))
    assert tempo.function(spoken(*rows, of=of)) == pytest.approx([0, -0.5, -0.2, -1, -1])
    assert tempo.kind == "sample" and tempo.applies(of)
    assert not tempo.applies(replace(U, duration=None))


def test_slower_speech_of_a_whole_group_costs_by_tempo() -> None:
    tempo, of = reward("tempo", Models(token_rate=10.0)), replace(U, duration=1.0)
    slow = spoken([1] * 12, [2] * 12, of=of)
    assert reward("duration").function(slow) == [0, 0]
    assert tempo.function(slow) == pytest.approx([-0.2, -0.2])


def test_diversity_is_the_mean_distance_to_the_others() -> None:
    rows = [[1, 2, 3], [1, 2, 3], [4, 5], [6], [1, 3, 3, 2, 1]]
    found = reward("diversity").function(spoken(*rows))
    for i, row in enumerate(rows):
        others = [other for j, other in enumerate(rows) if j != i]
        distances = [edit_distance(row, other) / max(len(row), len(other)) for other in others]
        assert found[i] == pytest.approx(sum(distances) / 4)
    assert reward("diversity").kind == "group"


def test_what_is_no_speech_is_not_diverse() -> None:
    rows = [[1, 2, 3], [1, 2, 4], [], [7] * 90, [8, 9] * 90, [1, 2, 3, 3, 3, 4]]
    found = reward("diversity").function(spoken(*rows))
    assert [value > 0 for value in found] == [True, True, False, False, False, True]
    cut = Sample(U, "", False, (5, 6, 7))
    assert reward("diversity").function([*spoken([1, 2, 3], [1, 2, 4]), cut])[2] == 0


def test_diversity_rises_with_what_differs() -> None:
    score = reward("diversity").function
    assert score(spoken([1, 2, 3, 4], [1, 2, 3, 4])) == [0, 0]
    one, two = (sum(score(spoken([1, 2, 3, 4], row))) for row in ([1, 2, 3, 5], [1, 2, 6, 5]))
    assert 0 < one < two
    assert score(spoken([1, 2], [3, 4])) == [1, 1]
    assert score(spoken([1, 2])) == [0]


def test_melody_is_the_spread_of_pitch_in_octaves() -> None:
    """An octave's glide, even in log F0, has a deviation of 1 / sqrt(12) octaves."""
    waves = [glide(150, 150), glide(110, 220), torch.from_numpy(glide(150, 150))]
    group = [Sample(U, "", True, (1, 2), wave, RATE) for wave in waves]
    melodic = reward("diversity", pitch=2.0)
    assert "wave" in reward_options("diversity", pitch=2.0).needs
    assert "wave" not in reward_options("diversity").needs
    found = melodic.function(group)
    assert found == pytest.approx([0, 2 / math.sqrt(12), 0], abs=0.05)
    silent = Sample(U, "", True, (1, 3), np.zeros(RATE, np.float32), RATE)
    assert melodic.function([group[0], silent]) == pytest.approx([0.5, 0.5], abs=0.02)
    assert melodic.function([group[0], Sample(U, "", True, (1, 3))])[1] is None


def test_likelihood_is_that_of_the_text_per_character() -> None:
    """One at a time; more samples than are scored at once."""
    recogniser = tiny_recogniser(spread=3.0)
    texts = ["ab", "c ab", "a"]
    draw = np.random.default_rng(3)
    samples = [
        Sample(
            utterance(f"u{i}", texts[i % 3]),
            "",
            True,
            tuple(draw.integers(0, 6, draw.integers(0, 9)).tolist()),
        )
        for i in range(3 * BATCH + 1)
    ]
    for k in (None, 2.0):
        options = {"k": k} if k else {}
        found = reward("likelihood", Models(recogniser), **options).function(samples)
        for sample, value in zip(samples, found, strict=True):
            tokens, lengths = recogniser.pad([sample.tokens])
            text = sample.utterance.text
            nll = -recogniser.log_likelihood(recogniser.embed(tokens), lengths, [text])[0].item()
            assert value == pytest.approx(math.exp(-(k or 1 / 3) * nll / (len(text) + 1)), abs=1e-5)
            room = len(sample.tokens) >= len(text)  # one frame a token
            assert (value > 0) == room


def test_speaker_similarity_is_the_cosine_between_0_and_1() -> None:
    def vectors(waves: list[torch.Tensor]) -> torch.Tensor:
        assert len(waves) <= BATCH
        return torch.stack([torch.tensor([wave[0], wave[1]]) for wave in waves])

    vectors_of = {"s": torch.tensor([1.0, 0.0]), "t": torch.tensor([0.0, 1.0])}
    voices = Voices({name: Voice(vector=vector) for name, vector in vectors_of.items()})
    asked = reward("speaker_similarity", Models(speaker=vectors, voices=voices))
    assert reward_options("speaker_similarity").needs == ("wave", "speaker")
    waves = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0, 9.0], [0.6, 0.8]]
    group = [Sample(U, "", True, (), torch.tensor(wave)) for wave in waves]
    other = Sample(utterance("v", "a", "t"), "", True, (), torch.tensor([0.6, 0.8]))
    mute = Sample(U, "", True)
    found = asked.function([*group, other, mute, *group * 10])
    assert found[:5] == pytest.approx([1.0, 0.5, 0.0, 0.8, 0.9])
    assert found[5] is None
    assert found[6:10] == found[:4]
    assert asked.applies(U) and not asked.applies(utterance("w", "a", "stranger"))


def test_samples_of_other_tokens_are_other_samples() -> None:
    """The text that is heard may be the same."""
    seen = []

    def length(samples: list[Sample]) -> list[float]:
        seen.extend(samples)
        return [float(len(sample.tokens)) for sample in samples]

    group = spoken([1], [1, 2], [1], [1, 2, 3])
    assert WeightedSum({"length": (length, 1.0)})(group).total == [1, 2, 1, 3]
    assert len(seen) == 3


def test_they_are_built_by_name_with_what_they_ask() -> None:
    names = [reward_options("duration", 0.5), reward_options("likelihood", 2.0)]
    config = speech_config({"rl.rewards": names})
    built = build_rewards(config, Models(tiny_recogniser()))
    assert not wants_waves(config)
    scores = built(spoken([1, 2, 3], [1, 2, 3, 4]))
    for total, far, near in zip(scores.total, *scores.parts.values(), strict=True):
        assert total == pytest.approx(0.5 * far + 2 * near)
    similar = {"rl.rewards": [reward_options("speaker_similarity")]}
    assert wants_waves(speech_config(similar))
