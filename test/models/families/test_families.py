"""The contract of a pretrained family, on a tiny random model in the family's own layout."""

from __future__ import annotations

import copy
import functools
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny_families import BUILDERS, TEXTS, heard, load_family

from audiorl.engines.engine import Draws
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.models.families.pretrained import PretrainedAudioLLM
from audiorl.models.policy import load_policy
from audiorl.rl.logprobs import response_logprobs

PARTS = ("encoder", "adaptor", "llm")


@pytest.fixture(params=BUILDERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(name: str, family_folder: Callable[[str], Path]) -> Path:
    return family_folder(name)


@pytest.fixture
def model(folder: Path) -> PretrainedAudioLLM:
    return copy.deepcopy(loaded(folder))


loaded = functools.cache(load_family)


def own_inputs(model: PretrainedAudioLLM, wave: torch.Tensor) -> dict[str, torch.Tensor]:
    return model.inputs([model._text], [wave.numpy()])


@torch.no_grad()
def test_logits_are_those_of_its_own_forward(model: PretrainedAudioLLM) -> None:
    tokens, mask = model.responses(TEXTS)
    prefix = model.prefix(model.encode(heard()))
    hidden = model.llm.response_states(prefix, tokens, share=False)
    shared = model.llm.response_states(prefix, tokens, share=True)
    torch.testing.assert_close(shared[mask], hidden[mask], rtol=0, atol=1e-4)
    for row, wave in enumerate(heard()):
        response = tokens[row, mask[row]]
        inputs = own_inputs(model, wave)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], response[None, :-1]], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        own = model.hf(**inputs).logits[0, -len(response) :] / model.llm.scale
        found = model.llm.logits(hidden[row, mask[row]])
        torch.testing.assert_close(found, own, rtol=0, atol=1e-4)


@torch.no_grad()
def test_what_is_sampled_is_what_is_scored(model: PretrainedAudioLLM) -> None:
    prefix, sampling = model.prefix(model.encode(heard())), Sampling()
    draws = Draws(1, 0, list("abc"))
    rollout = PolicyEngine(model).generate(
        prefix, group=3, max_length=12, sampling=sampling, draws=draws
    )
    rules = {"sampling": sampling, "forbidden": model.forbidden}
    for share in (False, True):
        again = response_logprobs(
            model.llm, prefix, rollout.tokens, rollout.mask, share=share, **rules
        ).logps
        torch.testing.assert_close(again, rollout.logps, rtol=0, atol=1e-4)
    assert not model.forbidden[rollout.tokens[rollout.mask]].any()
    rows = [
        tokens[mask].tolist() for tokens, mask in zip(rollout.tokens, rollout.mask, strict=True)
    ]
    assert len(set(map(tuple, rows))) > 3  # the members of a group differ


def greedy(model: PretrainedAudioLLM, waves: list[torch.Tensor]) -> list[list[int]]:
    rollout = PolicyEngine(model).generate(
        model.prefix(model.encode(waves)), group=1, max_length=12, sampling=Sampling(greedy=True)
    )
    return [t[m].tolist() for t, m in zip(rollout.tokens, rollout.mask, strict=True)]


def generated(
    hf: transformers.PreTrainedModel, inputs: dict, ends: list[int], forbidden: list[int]
) -> list[int]:
    """Ids that transformers writes, greedily."""
    ids = hf.generate(
        **inputs,
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=ends,
        pad_token_id=ends[0],
        suppress_tokens=forbidden,
    )[0].tolist()
    return ids[inputs["input_ids"].size(1) :]


@torch.no_grad()
def test_greedy_is_generate_of_transformers(model: PretrainedAudioLLM) -> None:
    forbidden, ends = model.forbidden.nonzero().flatten().tolist(), list(model.stop_ids)
    for wave, ids in zip(heard(), greedy(model, heard()), strict=True):
        assert ids == generated(model.hf, own_inputs(model, wave), ends, forbidden)


@torch.no_grad()
def test_an_utterance_is_heard_alone_as_in_a_batch(model: PretrainedAudioLLM) -> None:
    together = model.encode(heard())
    for wave, found in zip(heard(), together, strict=True):
        torch.testing.assert_close(model.encode([wave])[0], found, rtol=0, atol=1e-5)


@torch.no_grad()
def test_it_reads_alone_only_if_it_must(
    model: PretrainedAudioLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not model.reads_alone:
        pytest.skip("reads batches")
    alone = model.encode(heard())
    monkeypatch.setattr(type(model), "reads_alone", False)
    together = model.encode(heard())
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(alone, together, strict=True))


def test_stop_and_allowed_are_all_specials_that_can_be_sampled(model: PretrainedAudioLLM) -> None:
    tokenizer = model.processor.tokenizer
    usable = {
        t.content for i, t in tokenizer.added_tokens_decoder.items() if not model.forbidden[i]
    }
    stops = {*tokenizer.convert_ids_to_tokens(model.stop_ids)}
    assert usable == stops | {*model.allowed} and len(stops) >= 1
    assert stops >= {model.stops[0], *(s for s in model.stops if s in tokenizer.get_vocab())}
    assert model.forbidden[tokenizer.convert_tokens_to_ids(model.placeholder)]
    assert model.forbidden[len(tokenizer) :].all()


def test_transcripts_come_back(model: PretrainedAudioLLM) -> None:
    for text in TEXTS:
        assert model.tokenizer.decode([*model.tokenizer.encode(text), model.stop_ids[0]]) == text


@pytest.mark.parametrize("part", PARTS)
def test_gradients_reach_the_named_part_alone(model: PretrainedAudioLLM, part: str) -> None:
    modules = model.train_only([part])
    loss = model.supervised_loss(model.encode(heard()[:2]), TEXTS[:2]).total
    loss.backward()
    inside = {id(p) for module in modules for p in module.parameters()}
    reached = {id(p) for p in model.parameters() if p.grad is not None and p.grad.any()}
    assert reached and reached <= inside


def test_parts_are_apart_and_are_all_but_the_eyes(model: PretrainedAudioLLM) -> None:
    parts = [{id(p) for m in model.part(n) for p in m.parameters()} for n in PARTS]
    assert sum(map(len, parts)) == len(set().union(*parts))
    rest = [n for n, p in model.hf.named_parameters() if id(p) not in set().union(*parts)]
    assert all(re.search("visual|vision|image", name) for name in rest)


def tensor_names(path: Path) -> set[str]:
    with path.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    return set(header) - {"__metadata__"}


@torch.no_grad()
def test_saved_it_is_the_familys_own_folder(
    model: PretrainedAudioLLM, folder: Path, tmp_path: Path
) -> None:
    """Plain transformers reads it and writes the same; so does audiorl."""
    for parameter in model.hf.parameters():
        parameter.mul_(1.01)
    model.save(tmp_path)
    weights = "model.safetensors"
    assert tensor_names(tmp_path / weights) == tensor_names(folder / weights)
    assert not list(tmp_path.glob(".*"))
    expected = greedy(model, heard()[:1])[0]
    plain = getattr(transformers, model.model_class).from_pretrained(tmp_path).eval()
    processor = model.load_processor(str(tmp_path))
    assert type(processor.tokenizer) is type(model.processor.tokenizer)
    forbidden, ends = model.forbidden.nonzero().flatten().tolist(), list(model.stop_ids)
    assert generated(plain, own_inputs(model, heard()[0]), ends, forbidden) == expected
    again = load_policy(tmp_path)
    assert greedy(again, heard()[:1])[0] == expected
    assert again.settings == model.settings and not again.training


@torch.no_grad()
def test_a_reference_shares_what_does_not_learn(model: PretrainedAudioLLM) -> None:
    frames = model.encode(heard()[:1])
    reference = model.reference(["llm"])
    assert torch.equal(reference.prefix(frames).embeds, model.prefix(frames).embeds)
    names = [n for n in PARTS if reference.part(n)[0] is not None]
    shared = {id(p) for p in model.parameters()} & {id(p) for p in reference.parameters()}
    for part in names:
        own = {id(p) for m in reference.part(part) for p in m.parameters()}
        assert (own <= shared) == (part != "llm")


@torch.no_grad()
def test_the_shortest_audio_is_heard_and_shorter_is_filled(model: PretrainedAudioLLM) -> None:
    shortest = int(model.seconds[0] * model.sample_rate)
    wave = heard()[0]
    for length in (shortest, 320):
        assert len(model.encode([wave[:length]])[0]) >= 1


@torch.no_grad()
def test_long_audio_is_heard_whole_or_refused(model: PretrainedAudioLLM) -> None:
    whole = torch.from_numpy(np.tile(heard()[0].numpy(), 24))  # 36 s
    if model.seconds[1] < 36:
        with pytest.raises(Exception, match="would be cut"):
            model.encode([whole])
        whole = whole[: int(16000 * model.seconds[1])]
    half = model.encode([whole[: len(whole) // 2]])[0]
    assert len(model.encode([whole])[0]) > 1.5 * len(half) - 8 or model.family == "voxtral"
