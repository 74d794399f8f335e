"""Vocoders: the frames of what they make are those that they were given, and their pitch is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from audiorl.config.model import FrontendConfig
from audiorl.models import frontend as frontend_module
from audiorl.models.codec.vocoder import GriffinLim, MelVocoder, SourceFilter
from audiorl.models.frontend import Frontend
from audiorl.score.pitch import find_pitch
from audiorl.score.sound import measure

RATE = 16000


def vocoder(kind: str, frontend: Frontend) -> MelVocoder:
    return SourceFilter(frontend) if kind == "source_filter" else GriffinLim(frontend, 32)


def log_mel(frontend: Frontend, wave: Tensor) -> Tensor:
    """[S] -> [N, n_mels]"""
    return frontend.mel(wave[None]).clamp(min=1e-5).log()[0].T


def voice(pitch: float, seconds: float) -> Tensor:
    """A harmonic sound that swells and fades."""
    time = torch.arange(int(seconds * RATE)) / RATE
    harmonics = [torch.sin(2 * torch.pi * k * pitch * time) / k for k in range(1, 20)]
    return 0.2 * sum(harmonics) * torch.sin(torch.pi * time / seconds)


@pytest.mark.parametrize(
    ("kind", "length", "shift"),
    [
        ("griffin_lim", 25.0, 10.0),
        ("griffin_lim", 32.0, 16.0),
        ("griffin_lim", 50.0, 5.0),
        ("source_filter", 25.0, 10.0),
    ],
)
def test_the_spectrum_comes_back(kind: str, length: float, shift: float, monkeypatch) -> None:
    monkeypatch.setattr(frontend_module, "FRAME_LENGTH", length)
    monkeypatch.setattr(frontend_module, "FRAME_SHIFT", shift)
    frontend = Frontend(FrontendConfig(n_mels=64), RATE)
    wave = voice(150, 0.8)
    mel = log_mel(frontend, wave)
    (made,) = vocoder(kind, frontend)([mel])
    again = log_mel(frontend, made)
    assert len(made) == frontend.num_samples(len(mel))
    assert again.shape == mel.shape
    loud = mel > mel.max() - 8  # what is 35 dB below the loudest is not heard beside it
    assert (again - mel)[loud].abs().mean() * 10 / torch.log(torch.tensor(10.0)) < 2.0  # dB


@pytest.mark.parametrize("kind", ["griffin_lim", "source_filter"])
def test_it_stands_where_it_stood(kind: str) -> None:
    """A click in the middle of silence."""
    frontend = Frontend(FrontendConfig(n_mels=64), RATE)
    wave = torch.zeros(8000)
    wave[5000] = 1.0
    (made,) = vocoder(kind, frontend)([log_mel(frontend, wave)])
    assert abs(int(made.abs().argmax()) - 5000) < 2 * frontend.hop


@pytest.mark.parametrize("kind", ["griffin_lim", "source_filter"])
def test_waves_do_not_depend_on_the_batch(kind: str) -> None:
    frontend = Frontend(FrontendConfig(n_mels=40), RATE)
    mels = [log_mel(frontend, voice(p, s)) for p, s in ((120, 0.5), (200, 0.1), (90, 0.31))]
    made = vocoder(kind, frontend)
    for wave, mel in zip(made(mels), mels, strict=True):
        torch.testing.assert_close(wave, made([mel])[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("pitch", [110, 150, 240])
def test_a_source_keeps_pitch_and_harmonics(pitch: int) -> None:
    """Griffin-Lim keeps the pitch as well, and buzzes."""
    frontend = Frontend(FrontendConfig(n_mels=64), RATE)
    mel = log_mel(frontend, voice(pitch, 0.8))
    made, buzzing = (vocoder(k, frontend)([mel])[0] for k in ("source_filter", "griffin_lim"))
    found = find_pitch(made.numpy(), RATE).f0
    assert abs(np.median(found) - pitch) < 0.03 * pitch and len(found) > 50
    assert measure(made.numpy(), RATE).hnr > measure(buzzing.numpy(), RATE).hnr + 2


def test_a_source_of_noise_is_no_pitch_and_silence_is_silent() -> None:
    frontend = Frontend(FrontendConfig(n_mels=64), RATE)
    noise = 0.1 * torch.randn(RATE, generator=torch.Generator().manual_seed(1))
    (made,) = vocoder("source_filter", frontend)([log_mel(frontend, noise)])
    assert len(find_pitch(made.numpy(), RATE).f0) < 20  # of 97 frames
    (silent,) = vocoder("source_filter", frontend)([log_mel(frontend, torch.zeros(RATE))])
    assert silent.isfinite().all() and silent.abs().max() < 0.01


def test_mel_filters_are_inverted_by_least_squares() -> None:
    frontend = Frontend(FrontendConfig(n_mels=40), RATE)
    filters = frontend.mel.mel_scale.fb  # [bins, n_mels]
    power = torch.rand(1, len(filters))
    mel = power @ filters
    expected = torch.linalg.lstsq(filters.T, mel.T, driver="gelsd").solution.T
    torch.testing.assert_close(mel @ GriffinLim(frontend, 1).inverse, expected, rtol=0, atol=1e-3)
