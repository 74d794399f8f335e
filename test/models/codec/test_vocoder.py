"""Griffin-Lim: the frames of what it makes are those that it was given."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from audiorl.config.model import FrontendConfig
from audiorl.models import frontend as frontend_module
from audiorl.models.codec.vocoder import GriffinLim
from audiorl.models.frontend import Frontend

RATE = 16000


def log_mel(frontend: Frontend, wave: Tensor) -> Tensor:
    """[S] -> [N, n_mels]"""
    return frontend.mel(wave[None]).clamp(min=1e-5).log()[0].T


def voice(pitch: float, seconds: float) -> Tensor:
    """A harmonic sound that swells and fades."""
    time = torch.arange(int(seconds * RATE)) / RATE
    harmonics = [torch.sin(2 * torch.pi * k * pitch * time) / k for k in range(1, 20)]
    return 0.2 * sum(harmonics) * torch.sin(torch.pi * time / seconds)


@pytest.mark.parametrize(("length", "shift"), [(25.0, 10.0), (32.0, 16.0), (50.0, 5.0)])
def test_the_spectrum_comes_back(length: float, shift: float, monkeypatch) -> None:
    monkeypatch.setattr(frontend_module, "FRAME_LENGTH", length)
    monkeypatch.setattr(frontend_module, "FRAME_SHIFT", shift)
    frontend = Frontend(FrontendConfig(n_mels=64), RATE)
    wave = voice(150, 0.8)
    mel = log_mel(frontend, wave)
    (made,) = GriffinLim(frontend, 32)([mel])
    again = log_mel(frontend, made)
    assert len(made) == frontend.num_samples(len(mel))
    assert again.shape == mel.shape
    loud = mel > mel.max() - 8  # what is 35 dB below the loudest is not heard beside it
    assert (again - mel)[loud].abs().mean() * 10 / torch.log(torch.tensor(10.0)) < 2.0  # dB


def test_it_stands_where_it_stood() -> None:
    """A click in the middle of silence."""
    frontend = Frontend(FrontendConfig(n_mels=64), RATE)
    wave = torch.zeros(8000)
    wave[5000] = 1.0
    (made,) = GriffinLim(frontend, 16)([log_mel(frontend, wave)])
    assert abs(int(made.abs().argmax()) - 5000) < frontend.hop


def test_waves_do_not_depend_on_the_batch() -> None:
    frontend = Frontend(FrontendConfig(n_mels=40), RATE)
    mels = [log_mel(frontend, voice(p, s)) for p, s in ((120, 0.5), (200, 0.1), (90, 0.31))]
    vocoder = GriffinLim(frontend, 8)
    for wave, mel in zip(vocoder(mels), mels, strict=True):
        torch.testing.assert_close(wave, vocoder([mel])[0], rtol=0, atol=1e-4)


def test_mel_filters_are_inverted_by_least_squares() -> None:
    frontend = Frontend(FrontendConfig(n_mels=40), RATE)
    filters = frontend.mel.mel_scale.fb  # [bins, n_mels]
    power = torch.rand(1, len(filters))
    mel = power @ filters
    expected = torch.linalg.lstsq(filters.T, mel.T, driver="gelsd").solution.T
    torch.testing.assert_close(mel @ GriffinLim(frontend, 1).inverse, expected, rtol=0, atol=1e-3)
