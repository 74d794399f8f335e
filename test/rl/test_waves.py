"""What RL hears of rollouts of speech: waves in batches by length, samples in their order."""

from __future__ import annotations

import pytest
import torch
from tiny_codecs import native_codec
from tiny_speaker import CODEC, tiny_recogniser, utterance
from tiny_speech import tiny_speech_lm

from audiorl.engines.engine import Rollout
from audiorl.models.voice import Voice, Voices
from audiorl.rewards import Sample
from audiorl.rl import speech
from audiorl.rl.speech import SpeechReader, Vocoder


def samples(lengths: list[int], codes: int) -> list[Sample]:
    """One of each length, of two speakers in turn."""
    torch.manual_seed(0)
    rows = [tuple(torch.randint(0, codes, (n,)).tolist()) for n in lengths]
    return [Sample(utterance(f"u{i}", "a", "st"[i % 2]), "", True, r) for i, r in enumerate(rows)]


def test_waves_are_made_by_length_and_come_back_in_order(monkeypatch) -> None:
    codec = native_codec()
    voices = Voices({n: Voice(vector=torch.randn(codec.speaker_size)) for n in "st"})
    given = samples([5, 0, 40, 12, 41, 90, 0, 3], codec.codebook_size)
    alone = codec.decode
    batches = []

    def decode(tokens, speakers):
        batches.append([len(row) for row in tokens])
        return alone(tokens, speakers)

    monkeypatch.setattr(codec, "decode", decode)
    monkeypatch.setattr(speech, "WAVE_SECONDS", 100 / codec.token_rate)
    made = Vocoder(codec, voices)(given)
    assert batches == [[90], [41, 40], [12, 5, 3]]
    for one, sample in zip(made, given, strict=True):
        assert (one.utterance, one.tokens) == (sample.utterance, sample.tokens)
        if not sample.tokens:
            assert one.wave is None
            continue
        (expected,) = alone([torch.tensor(sample.tokens)], [voices[sample.utterance]])
        wave = torch.as_tensor(one.wave)
        assert (wave - expected).norm() < 0.03 * expected.norm()  # phases are found by iteration


@pytest.mark.parametrize("with_waves", [False, True])
def test_each_response_is_heard_as_its_own_utterance(with_waves: bool) -> None:
    model, recogniser = tiny_speech_lm(codec=CODEC), tiny_recogniser(spread=3.0)
    first, stop, pad = model.layout.speech_offset, model.stop_ids[0], model.pad_id
    rows = [[0, 3, 5], [4], [], [2, 2, 1]]
    ids = [[*(first + t for t in row), stop] for row in rows]
    ids[3][-1] = first + 1  # the limit cut it
    rows[3].append(1)
    tokens = torch.tensor([row + [pad] * (4 - len(row)) for row in ids])
    mask = torch.tensor([[place < len(row) for place in range(4)] for row in ids])
    finished = torch.tensor([True, True, True, False])
    rollout = Rollout(tokens, mask, torch.zeros(4, 4), finished)
    texts = [utterance("u0", "ab"), utterance("u1", "c", "t")]

    def count(found: list[Sample]) -> list[Sample]:
        return [Sample(s.utterance, s.text, s.finished, s.tokens, len(s.tokens)) for s in found]

    heard = SpeechReader(model, recogniser, count if with_waves else None)(texts, rollout)
    assert [s.utterance.id for s in heard] == ["u0", "u0", "u1", "u1"]
    assert [list(s.tokens) for s in heard] == rows
    assert [s.text for s in heard] == recogniser.transcribe(rows)
    assert [s.finished for s in heard] == finished.tolist()
    assert [s.wave for s in heard] == ([3, 1, 0, 4] if with_waves else [None] * 4)
