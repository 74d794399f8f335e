"""Sampling of speech tokens: by utterance, not by batch, and as it was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import sentences
from tiny_speech import SPEAKERS, tiny_speech_config, tiny_speech_lm

from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.infer.speak import Spoken, speak, speech_sampling
from audiorl.models.speech_lm import SpeechLM


@pytest.fixture(scope="module")
def model() -> SpeechLM:
    return tiny_speech_lm(spread=3.0)


def utterances(count: int = 9) -> list[Utterance]:
    texts = sentences(count, seed=4)
    return [Utterance(f"u{i}", "", text, SPEAKERS[i % 3]) for i, text in enumerate(texts)]


def test_what_is_drawn_belongs_to_the_utterance(model: SpeechLM) -> None:
    everyone = utterances()
    found = speak(PolicyEngine(model), everyone, tiny_speech_config().decode, seed=1)
    assert sorted(found) == [u.id for u in everyone]
    assert all(0 <= token < 24 for s in found.values() for token in s.tokens)
    assert len({tuple(s.tokens) for s in found.values()}) == len(everyone)
    for size in (1, 4):
        decode = tiny_speech_config({"decode.batch_size": size}).decode
        assert speak(PolicyEngine(model), everyone[::-1], decode, seed=1) == found
    assert speak(PolicyEngine(model), everyone[2:3], decode, seed=1) == {"u2": found["u2"]}
    assert speak(PolicyEngine(model), everyone, decode, seed=2) != found


def test_the_limit_cuts(model: SpeechLM) -> None:
    decode = tiny_speech_config({"decode.max_completion_length": 6}).decode
    found = speak(PolicyEngine(model), utterances(40), decode, seed=1)
    assert all(len(s.tokens) == 6 for s in found.values() if not s.finished)
    assert all(len(s.tokens) < 6 for s in found.values() if s.finished)
    assert {s.finished for s in found.values()} == {True, False}


def test_one_likeliest_token_is_greedy(model: SpeechLM) -> None:
    decode = tiny_speech_config({"decode.top_k": 1, "decode.max_completion_length": 12}).decode
    found = speak(PolicyEngine(model), utterances(3), decode, seed=1)
    assert found == speak(PolicyEngine(model), utterances(3), decode, seed=7)
    for u in utterances(3):
        ids = model.encode([u])[0].tolist()
        written: list[int] = []
        while len(written) < 12 and (not written or written[-1] != model.stop_ids[0]):
            with torch.no_grad():
                logits = model.llm(model.llm.embed(torch.tensor([ids + written])))[0, -1]
            written.append(int(logits.masked_fill(model.forbidden, -torch.inf).argmax()))
        offset = model.layout.speech_offset
        finished = written[-1] == model.stop_ids[0]
        tokens = [i - offset for i in (written[:-1] if finished else written)]
        assert found[u.id] == Spoken(tokens, finished)


def test_repetition_aware_sampling_is_on_where_it_is_asked_for() -> None:
    """A model that likes one token a little more than all others, whatever it reads."""
    model = tiny_speech_lm(spread=0.0)
    with torch.no_grad():
        table = model.llm.model.get_input_embeddings().weight  # tied to the head
        table[:] = 0.3
        table[model.layout.speech_offset + 5] = 0.32
    keys = {"decode.top_k": 1, "decode.max_completion_length": 30}
    plain = speak(PolicyEngine(model), utterances(2), tiny_speech_config(keys).decode, seed=1)
    assert all(s.tokens == [5] * 30 for s in plain.values())
    keys |= {"decode.repetition_window": 4, "decode.repetition_share": 0.5}
    aware = speak(PolicyEngine(model), utterances(2), tiny_speech_config(keys).decode, seed=1)
    for s in aware.values():
        assert s.tokens[:2] == [5, 5]
        assert len(set(s.tokens)) > 2


def test_the_keys_are_the_samplings() -> None:
    keys = {"temperature": 0.7, "top_k": 9, "top_p": 0.6}
    keys |= {"repetition_window": 5, "repetition_share": 0.2}
    decode = tiny_speech_config({f"decode.{name}": value for name, value in keys.items()}).decode
    sampling = speech_sampling(decode)
    assert {name: getattr(sampling, name) for name in keys} == keys
    assert not sampling.greedy


def test_training_goes_on_as_before(model: SpeechLM, tmp_path: Path) -> None:
    model.train()
    speak(PolicyEngine(model), utterances(1), tiny_speech_config().decode, seed=1)
    assert model.training
    model.eval()
    speak(PolicyEngine(model), utterances(1), tiny_speech_config().decode, seed=1)
    assert not model.training


def test_an_engine_without_repetition_awareness_leaves_it_to_the_native_one(caplog) -> None:
    class Plain(PolicyEngine):
        repetition_aware = False

        def generate(self, *_, **__):
            raise AssertionError

    model, decode = tiny_speech_lm(spread=3.0), tiny_speech_config({"decode.repetition_window": 4})
    with caplog.at_level("INFO"):
        found = speak(Plain(model), utterances(3), decode.decode, seed=1)
    assert found == speak(PolicyEngine(model), utterances(3), decode.decode, seed=1)
    assert "is sampled by the native engine: decode.repetition_window is set" in caplog.text
