"""Augmentation: as much noise as it says, of the colours that it says, always the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audiorl.data.augment import GAIN, SNR, at_speeds, augment, coloured_noise


def waves() -> list[torch.Tensor]:
    time = torch.arange(8000) / 16000
    return [torch.sin(2 * torch.pi * 300 * time[: 8000 - 10 * i]) for i in range(60)]


def test_gain_alone() -> None:
    torch.manual_seed(0)
    factors = []
    for wave, louder in zip(waves(), augment(waves(), noise=0.0), strict=True):
        factor = float(louder @ wave / (wave @ wave))
        torch.testing.assert_close(louder, factor * wave)
        factors.append(20 * np.log10(factor))
    assert -GAIN <= min(factors) < -GAIN / 2
    assert GAIN / 2 < max(factors) <= GAIN


def test_noise_has_the_stated_level() -> None:
    torch.manual_seed(0)
    ratios = []
    for wave, noisy in zip(waves(), augment(waves(), noise=1.0), strict=True):
        clean = float(noisy @ wave / (wave @ wave)) * wave
        ratios.append(
            float(10 * torch.log10(clean.square().mean() / (noisy - clean).square().mean()))
        )
    assert SNR[0] - 0.5 <= min(ratios) < SNR[0] + 8
    assert SNR[1] - 8 < max(ratios) <= SNR[1] + 0.5


def test_a_share_is_noisy_and_the_seed_decides_which() -> None:
    def noisy(seed: int) -> list[bool]:
        torch.manual_seed(seed)
        found = augment(waves(), noise=0.5)
        return [
            bool((f - float(f @ w / (w @ w)) * w).abs().max() > 1e-4)
            for w, f in zip(waves(), found, strict=True)
        ]

    assert noisy(1) == noisy(1)
    assert noisy(1) != noisy(2)
    assert 18 <= sum(noisy(1)) <= 42


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_noise_is_coloured(exponent: float) -> None:
    """Power falls by 3 dB an octave and exponent."""
    torch.manual_seed(0)
    noise = coloured_noise(2**16, exponent)
    assert float(noise.square().mean()) == pytest.approx(1, rel=1e-3)
    power = torch.fft.rfft(noise).abs().square()
    bands = [float(power[2**k : 2 ** (k + 1)].mean()) for k in range(8, 15)]
    falls = np.diff(10 * np.log10(bands))
    assert falls.mean() == pytest.approx(-10 * np.log10(2) * exponent, abs=0.3)


def test_speed_changes_tempo_and_pitch() -> None:
    sounds = waves()[:20]
    changed = at_speeds(sounds, [0.9, 1.0, 1.25], "1 0")
    found = {round(len(wave) / len(new), 2) for wave, new in zip(sounds, changed, strict=True)}
    assert found == {0.9, 1.0, 1.25}
    for wave, new in zip(sounds, changed, strict=True):
        speed, spectrum = len(wave) / len(new), torch.fft.rfft(new).abs()
        assert float(spectrum.argmax()) * 16000 / len(new) == pytest.approx(300 * speed, abs=35)
        assert speed != 1 or new is wave
    again = at_speeds(sounds, [0.9, 1.0, 1.25], "1 0")
    assert all(torch.equal(a, b) for a, b in zip(changed, again, strict=True))
    other = at_speeds(sounds, [0.9, 1.0, 1.25], "1 1")
    assert [len(wave) for wave in changed] != [len(wave) for wave in other]
