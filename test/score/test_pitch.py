"""Pitch and harmonicity of signals where both are known."""

from __future__ import annotations

import numpy as np
import pytest

from audiorl.score.pitch import find_pitch

RATE = 16000


def buzz(f0: np.ndarray | float, seconds: float = 1.0, partials: int = 8) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, time.shape)) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, partials + 1))


def with_noise(wave: np.ndarray, snr: float) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(len(wave))
    return wave + noise * wave.std() * 10 ** (-snr / 20)


@pytest.mark.parametrize("f0", [75.0, 110.5, 233.0, 400.0])
@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_a_steady_tone(f0: float, rate: int) -> None:
    time = np.arange(rate) / rate
    wave = sum(np.sin(2 * np.pi * f0 * k * time) / k for k in range(1, 6))
    pitch = find_pitch(wave, rate)
    assert len(pitch.f0) > 90
    np.testing.assert_allclose(pitch.f0, f0, rtol=3e-3)
    assert pitch.spread < 0.05
    assert pitch.harmonicity.mean() > 20


@pytest.mark.parametrize("f0", [90.0, 150.0, 300.0])
@pytest.mark.parametrize("snr", [20.0, 10.0, 5.0])
def test_harmonicity_is_the_ratio_of_tone_and_noise(f0: float, snr: float) -> None:
    pitch = find_pitch(with_noise(buzz(f0), snr), RATE)
    assert np.median(pitch.f0) == pytest.approx(f0, rel=0.01)
    assert np.mean(np.abs(pitch.f0 / f0 - 1) < 0.05) > 0.97  # no octaves
    assert pitch.harmonicity.mean() == pytest.approx(snr, abs=1.2)


def test_spread_is_in_semitones() -> None:
    """Half of the time at 100 Hz, half two semitones higher; at any pitch the same."""
    for base in (100.0, 220.0):
        f0 = np.repeat([base, base * 2 ** (2 / 12)], RATE)
        pitch = find_pitch(buzz(f0, 2.0), RATE)
        assert pitch.spread == pytest.approx(1.0, abs=0.05)


def test_a_missing_fundamental_is_found() -> None:
    time = np.arange(RATE) / RATE
    wave = sum(np.sin(2 * np.pi * 120 * k * time) for k in (3, 4, 5))
    assert np.median(find_pitch(wave, RATE).f0) == pytest.approx(120, rel=0.01)


def test_unvoiced_and_silent_stretches_have_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(RATE)
    assert len(find_pitch(noise, RATE).f0) <= 2
    assert len(find_pitch(np.zeros(RATE), RATE).f0) == 0
    assert len(find_pitch(np.zeros(10), RATE).f0) == 0
    assert len(find_pitch(np.zeros(0), RATE).f0) == 0
    both = np.concatenate([buzz(150.0, 0.5), 0.1 * noise[: RATE // 2], 1e-4 * buzz(90.0, 0.5)])
    pitch = find_pitch(both, RATE)
    assert 40 <= len(pitch.f0) <= 52
    np.testing.assert_allclose(pitch.f0, 150, rtol=0.02)
