"""What is heard in a rollout of synthesis: in its tokens, or in its waves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from tiny_speaker import utterance
from torch import Tensor

from audiorl.engines.engine import Rollout
from audiorl.models.voice import Voice, Voices
from audiorl.rl.speech import SpeechReader, Vocoder

ROWS = [[3, 1], [], [5, 5, 5, 5], [2]]


class Codec:
    """Ten samples a token, each the token's number and, behind the comma, the voice's."""

    token_rate, output_rate = 25.0, 250

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        self.batches.append([len(row) for row in tokens])
        return [t.repeat_interleave(10) + v.vector for t, v in zip(tokens, voices, strict=True)]


class Policy:
    """Ids are tokens."""

    def speech_tokens(self, ids: Tensor) -> list[int]:
        return ids.tolist()


class Recogniser:
    """Reads tokens, and counts how often."""

    read = 0

    def transcribe(self, rows: Sequence[Sequence[int]]) -> list[str]:
        self.read += 1
        return [" ".join(map(str, row)) for row in rows]


def ear(waves: Sequence[Tensor]) -> list[str]:
    """Hears how long a wave is, and its first sample."""
    return [f"{len(wave)} of {float(wave[0]):g}" for wave in waves]


@pytest.fixture
def rollout() -> Rollout:
    width = max(map(len, ROWS))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in ROWS])
    mask = torch.tensor([[i < len(row) for i in range(width)] for row in ROWS])
    return Rollout(tokens, mask, torch.zeros(tokens.shape), torch.tensor([True, True, False, True]))


UTTERANCES = [utterance("u", "ab"), utterance("v", "ba")]
VOICES = Voices({"s": Voice(vector=torch.tensor(0.5))})


def test_tokens_are_read_and_no_wave_is_made(rollout: Rollout) -> None:
    samples = SpeechReader(Policy(), Recogniser())(UTTERANCES, rollout)
    assert [s.text for s in samples] == ["3 1", "", "5 5 5 5", "2"]
    assert [s.utterance.id for s in samples] == ["u", "u", "v", "v"]
    assert [s.finished for s in samples] == [True, True, False, True]
    assert all(s.wave is None for s in samples)


def test_an_ear_hears_the_waves_in_the_samples_order(rollout: Rollout) -> None:
    recogniser, codec = Recogniser(), Codec()
    samples = SpeechReader(Policy(), recogniser, Vocoder(codec, VOICES), ear)(UTTERANCES, rollout)
    assert [s.text for s in samples] == ["20 of 3.5", "", "40 of 5.5", "10 of 2.5"]
    assert [s.wave is None for s in samples] == [False, True, False, False]
    assert codec.batches == [[4, 2, 1]]  # one padded batch, the longest first
    assert recogniser.read == 0  # nobody asks what it would have heard


def test_no_batch_is_longer_than_it_may(rollout: Rollout, monkeypatch) -> None:
    monkeypatch.setattr("audiorl.rl.speech.WAVE_SECONDS", 5 / 25)  # five tokens
    codec = Codec()
    samples = SpeechReader(Policy(), Recogniser(), Vocoder(codec, VOICES))(UTTERANCES, rollout)
    assert codec.batches == [[4], [2, 1]]
    assert [s.wave is not None and len(s.wave) for s in samples] == [20, False, 40, 10]
