"""From wav files to hypotheses, greedily and by beams."""

from __future__ import annotations

import pytest
import torch
from pretrained_llm import save_pretrained_llm
from tiny import sentences, tiny_config, tiny_model, write_set

from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.infer.transcribe import encode_utterances, transcribe
from audiorl.models.audio_llm import AudioLLM, AudioLLMSettings
from audiorl.models.tokenizer import PretrainedTokenizer
from audiorl.rl.logprobs import response_logprobs
from audiorl.runtime.batching import batches_by_seconds

LIMIT = 6


@pytest.fixture(scope="module")
def utterances(tmp_path_factory) -> list[Utterance]:
    return write_set(tmp_path_factory.mktemp("data") / "test", sentences(9, seed=4))


@pytest.fixture(scope="module")
def model() -> AudioLLM:
    return tiny_model(spread=3.0)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> AudioLLM:
    """With the generation defaults of a chat model, which must have no effect."""
    folder = tmp_path_factory.mktemp("llm")
    save_pretrained_llm(folder, "qwen2")
    keys = {"tokenizer.type": "pretrained", "llm.pretrained": str(folder)}
    return AudioLLM(
        AudioLLMSettings.of(tiny_config(keys), "audio_llm"), PretrainedTokenizer(str(folder))
    ).eval()


def spelling_ids(model: AudioLLM, monkeypatch) -> None:
    """Makes the text of a hypothesis its token ids."""
    monkeypatch.setattr(model.tokenizer, "decode", lambda ids: " ".join(map(str, ids)))


def own_logp(model: AudioLLM, utterance: Utterance, ids: list[int]) -> float:
    """Log-probability of a response, alone and through the path of the update."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logps = response_logprobs(
            model.llm,
            model.prefix(encode_utterances(model, [utterance])),
            tokens,
            torch.ones_like(tokens, dtype=torch.bool),
            sampling=Sampling(),
            forbidden=model.forbidden,
            share=False,
        ).logps
    return logps.sum().item()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("which", ["model", "pretrained"])
def test_scores_are_log_probabilities(which, beams, utterances, request, monkeypatch) -> None:
    model = request.getfixturevalue(which)
    spelling_ids(model, monkeypatch)
    found = transcribe(PolicyEngine(model), utterances, max_length=LIMIT, num_beams=beams)
    assert found.keys() == {u.id for u in utterances}
    for u in utterances:
        assert len(found[u.id]) == beams
        lengths = []
        for hypothesis in found[u.id]:
            ids = [int(i) for i in hypothesis.text.split()]
            assert hypothesis.logp == pytest.approx(own_logp(model, u, ids), abs=1e-3)
            assert hypothesis.finished == (ids[-1] == model.tokenizer.eos_id)
            assert hypothesis.finished or len(ids) == LIMIT
            assert model.tokenizer.eos_id not in ids[:-1]
            assert not model.forbidden[ids].any()
            lengths.append(len(ids))
        means = [h.logp / n for h, n in zip(found[u.id], lengths, strict=True)]
        assert means == sorted(means, reverse=True)
        assert len({h.text for h in found[u.id]}) == beams


@pytest.mark.parametrize("beams", [1, 3])
def test_batches_do_not_matter(model, utterances, beams) -> None:
    together = transcribe(PolicyEngine(model), utterances, max_length=LIMIT, num_beams=beams)
    alone = transcribe(
        PolicyEngine(model), utterances, max_length=LIMIT, num_beams=beams, batch_seconds=0.01
    )
    turned = transcribe(PolicyEngine(model), utterances[::-1], max_length=LIMIT, num_beams=beams)
    for u in utterances:
        for one, other in ((together, alone), (together, turned)):
            assert [h.text for h in one[u.id]] == [h.text for h in other[u.id]]
            assert [h.logp for h in one[u.id]] == pytest.approx(
                [h.logp for h in other[u.id]], abs=1e-3
            )


def test_more_beams_find_no_less(model, utterances) -> None:
    """With as many beams as there are tokens, two steps are searched exhaustively."""
    allowed = (~model.forbidden).nonzero().squeeze(1).tolist()
    eos = model.tokenizer.eos_id
    found = transcribe(PolicyEngine(model), utterances[:2], max_length=2, num_beams=len(allowed))
    for u in utterances[:2]:
        every = [[eos], *([a, b] for a in allowed if a != eos for b in allowed)]
        best = max(every, key=lambda ids: own_logp_all(model, u, every)[tuple(ids)] / len(ids))
        assert found[u.id][0].text == model.tokenizer.decode(best)


def own_logp_all(
    model: AudioLLM,
    u: Utterance,
    every: list[list[int]],
    seen: dict = {},  # noqa: B006
) -> dict:
    if u.id not in seen:
        tokens = torch.tensor([[*ids, 0][:2] for ids in every])
        mask = torch.tensor([[True, len(ids) == 2] for ids in every])
        with torch.no_grad():
            logps = response_logprobs(
                model.llm,
                model.prefix(encode_utterances(model, [u])),
                tokens,
                mask,
                sampling=Sampling(),
                forbidden=model.forbidden,
                share=True,
            ).logps
        seen[u.id] = {tuple(ids): v for ids, v in zip(every, logps.sum(1).tolist(), strict=True)}
    return seen[u.id]


def test_the_mode_of_the_model_comes_back(model, utterances) -> None:
    quiet = transcribe(PolicyEngine(model), utterances[:2], max_length=LIMIT)
    model.train()
    found = transcribe(PolicyEngine(model), utterances[:2], max_length=LIMIT)
    assert model.training
    model.eval()
    assert {k: h[0].text for k, h in found.items()} == {k: h[0].text for k, h in quiet.items()}


def test_batches_hold_so_many_seconds() -> None:
    lengths = [3.0, 0.5, 2.0, 2.5, 0.4, 9.0, 1.0]
    utterances = [Utterance(f"u{i}", "", "", "s", duration=d) for i, d in enumerate(lengths)]
    batches = list(batches_by_seconds(utterances, 6.0))
    assert sorted(u.id for batch in batches for u in batch) == [f"u{i}" for i in range(7)]
    for batch in batches:
        padded = max(u.duration for u in batch) * len(batch)
        assert padded <= 6.0 or len(batch) == 1
    assert [u.id for u in batches[0]] == ["u5"]
    assert list(batches_by_seconds([], 6.0)) == []


def test_an_encoder_that_does_not_change_hears_once(model, utterances, monkeypatch) -> None:
    frames: dict[str, torch.Tensor] = {}
    expected = transcribe(PolicyEngine(model), utterances, max_length=8, batch_seconds=1.0)
    assert (
        transcribe(PolicyEngine(model), utterances, max_length=8, batch_seconds=1.0, cache=frames)
        == expected
    )
    monkeypatch.setattr(AudioLLM, "encode", lambda *_: pytest.fail("encoded again"))
    assert (
        transcribe(PolicyEngine(model), utterances, max_length=8, batch_seconds=1.0, cache=frames)
        == expected
    )
    assert frames.keys() == {u.id for u in utterances}
