"""Whisper's fallback: only what looks wrong is drawn again, and the likeliest draw is taken."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import sentences, tiny_model, write_set

from audiorl.engines.engine import Draws
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.infer import fallback
from audiorl.infer.transcribe import encode_utterances, transcribe
from audiorl.rl.logprobs import response_logprobs

LIMIT = 6
SEED = 3


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "test", sentences(6, seed=4))


@pytest.fixture(scope="module")
def engine() -> PolicyEngine:
    return PolicyEngine(tiny_model(spread=3.0))


def found(engine, utterances, **options) -> dict[str, tuple[str, float]]:
    heard = transcribe(engine, utterances, max_length=LIMIT, fallback_seed=SEED, **options)
    return {uid: (best.text, best.logp) for uid, [best] in heard.items()}


def test_what_looks_right_stays_greedy(engine, utterances, monkeypatch) -> None:
    monkeypatch.setattr(fallback, "LOGPROB", -math.inf)
    monkeypatch.setattr(fallback, "COMPRESSION_RATIO", math.inf)
    greedy = transcribe(engine, utterances, max_length=LIMIT)
    assert found(engine, utterances) == {u: (h.text, h.logp) for u, [h] in greedy.items()}


def test_the_last_temperature_stays_if_all_look_wrong(engine, utterances, monkeypatch) -> None:
    monkeypatch.setattr(fallback, "LOGPROB", math.inf)
    model, heard = engine.policy, found(engine, utterances)
    step = len(fallback.TEMPERATURES) - 1
    for u in utterances:
        prefix = model.prefix(encode_utterances(model, [u]))
        drawn = engine.generate(
            prefix, group=fallback.BEST_OF, max_length=LIMIT, sampling=Sampling(1.0),
            draws=Draws(SEED, step, [u.id]),
        )  # fmt: skip
        with torch.no_grad():
            logps = response_logprobs(
                model.llm, prefix, drawn.tokens, drawn.mask, sampling=Sampling(),
                forbidden=model.forbidden, share=False,
            ).logps.sum(1)  # fmt: skip
        best = int((logps / drawn.mask.sum(1)).argmax())
        text = model.tokenizer.decode(drawn.tokens[best][drawn.mask[best]].tolist())
        assert heard[u.id] == (text, pytest.approx(logps[best].item(), abs=1e-4))


def test_one_that_looks_wrong_leaves_the_others_alone(engine, utterances, monkeypatch) -> None:
    greedy = transcribe(engine, utterances, max_length=LIMIT)
    suspect = utterances[2].id
    wrong = greedy[suspect][0].text
    monkeypatch.setattr(fallback, "LOGPROB", -math.inf)
    monkeypatch.setattr(fallback, "compression_ratio", lambda text: 9.0 * (text == wrong))
    heard = found(engine, utterances)
    same = {uid for uid, [best] in greedy.items() if heard[uid][0] == best.text}
    assert same == {uid for uid, [best] in greedy.items() if best.text != wrong}


def test_draws_depend_on_no_batch(engine, utterances, monkeypatch) -> None:
    monkeypatch.setattr(fallback, "LOGPROB", math.inf)
    together, alone = found(engine, utterances), found(engine, utterances, batch_seconds=0.01)
    assert {u: text for u, (text, _) in together.items()} == {
        u: text for u, (text, _) in alone.items()
    }
