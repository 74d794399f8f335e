"""What is measured of a wave, against slow and obvious code."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from fake_voices import tone

from audiorl.score.sound import (
    BANDS,
    CEPSTRA,
    _cepstra,
    _warp,
    measure,
    mel_levels,
    spectral_distance,
    speech_span,
)

RATE = 16000


def noise(seconds: float, level: float, seed: int = 0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal(int(seconds * RATE))


def test_span_is_from_first_to_last_speech() -> None:
    hush, talk = noise(0.3, 1e-4), noise(0.4, 0.1)
    start, end = speech_span(np.concatenate([hush, talk, hush, talk, hush]), RATE)
    assert start / RATE == pytest.approx(0.3, abs=0.026)
    assert end / RATE == pytest.approx(1.4, abs=0.026)  # the pause counts
    for silent in (np.zeros(RATE), np.zeros(5), np.zeros(0)):
        assert speech_span(silent, RATE) == (0, 0)


def test_measures_of_a_voice() -> None:
    sound = measure(tone(0.8, 200.0), RATE)
    assert sound.seconds == pytest.approx(0.9)
    assert sound.speech_seconds == pytest.approx(0.8, abs=0.04)
    assert sound.f0 == pytest.approx(200, rel=0.03)
    assert 0.3 < sound.f0_spread < 1.0  # a sine of one semitone has a deviation of 0.71
    assert sound.hnr > measure(tone(0.8, 200.0, noise=0.05), RATE).hnr + 5
    hiss = measure(noise(0.5, 0.1), RATE)
    assert (hiss.f0, hiss.f0_spread, hiss.hnr) == (None, None, None)
    assert measure(np.zeros(0), RATE).seconds == 0


def test_mel_levels_follow_the_signal() -> None:
    """A tone is loudest in the band around it, 20 dB more where it is ten times as strong."""
    time = np.arange(RATE // 2) / RATE
    wave = np.sin(2 * np.pi * 1000 * time)
    levels = mel_levels(wave, RATE)
    assert levels.shape == ((len(wave) - 400) // 160 + 1, BANDS)
    edges = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), BANDS + 2)
    middle = 700 * (10 ** (edges[1:-1] / 2595) - 1)
    assert set(levels.argmax(axis=1)) == {int(np.abs(middle - 1000).argmin())}
    np.testing.assert_allclose(mel_levels(10 * wave, RATE).max(), levels.max() + 20, atol=1e-6)
    assert mel_levels(wave[:399], RATE).shape == (0, BANDS)


def test_distance_is_that_of_the_envelopes() -> None:
    """With all cepstra but the level it would be the difference of the bands in dB, by Parseval."""
    one, two = noise(0.3, 0.1, 1), noise(0.3, 0.1, 2)
    places = np.outer(np.arange(1, BANDS), np.arange(BANDS) + 0.5) * np.pi / BANDS
    every = np.sqrt(2 / BANDS) * np.cos(places)  # [cepstra, bands]
    levels = [np.maximum(v, v.max() - 50) for v in (mel_levels(w, RATE) for w in (one, two))]
    gaps = (levels[0] - levels[1]) - (levels[0] - levels[1]).mean(axis=1, keepdims=True)
    np.testing.assert_allclose((gaps @ every.T) ** 2 @ np.ones(BANDS - 1), (gaps**2).sum(axis=1))
    np.testing.assert_allclose(_cepstra(one, RATE), levels[0] @ every[:CEPSTRA].T, atol=1e-9)


def test_distance_ignores_level_and_tempo_and_hears_noise() -> None:
    slow, fast = tone(1.0, 150.0), tone(0.7, 150.0)
    assert spectral_distance(slow, slow, RATE) == 0
    assert spectral_distance(slow, 0.3 * slow, RATE) == pytest.approx(0, abs=0.1)
    stretched = spectral_distance(slow, fast, RATE)
    noisy = spectral_distance(slow, tone(1.0, 150.0, noise=0.05), RATE)
    assert stretched < 1.5 < noisy
    assert spectral_distance(slow, np.zeros(RATE), RATE) is None


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (3, 1), (3, 4), (4, 4)])
def test_warping_takes_the_cheapest_path(shape: tuple[int, int]) -> None:
    costs = np.random.default_rng(sum(shape)).random(shape)

    def paths(i: int, j: int) -> list[list[tuple[int, int]]]:
        if (i, j) == (shape[0] - 1, shape[1] - 1):
            return [[(i, j)]]
        ways = [(i + a, j + b) for a, b in itertools.product((0, 1), repeat=2) if a or b]
        inside = [(a, b) for a, b in ways if a < shape[0] and b < shape[1]]
        return [[(i, j), *rest] for way in inside for rest in paths(*way)]

    best = min(paths(0, 0), key=lambda path: sum(costs[cell] for cell in path))
    assert _warp(costs) == pytest.approx(np.mean([costs[cell] for cell in best]))
