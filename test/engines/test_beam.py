"""Beam search against transformers', and against an exhaustive search."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny import plain_lm, random_prefix, tiny_model
from torch import Tensor

from audiorl.engines.beam import Response, beam_search
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import Prefix

LENGTHS = [4, 13, 9]
LIMIT = 9


@pytest.fixture(scope="module", params=["qwen3", "llama"])
def model(request) -> AudioLLM:
    return tiny_model({"llm.architecture": request.param}, spread=3.0)


def searched(
    model: AudioLLM,
    prefix: Prefix,
    beams: int,
    limit: int = LIMIT,
    forbidden: Tensor | None = None,
) -> list[list[Response]]:
    usual = model.forbidden
    model.forbidden = usual if forbidden is None else forbidden
    try:
        return beam_search(model, prefix, beams=beams, max_length=limit)
    finally:
        model.forbidden = usual


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_it_finds_what_transformers_finds(model: AudioLLM, beams: int) -> None:
    prefix = random_prefix(32, LENGTHS)
    eos = model.tokenizer.eos_id
    theirs = (
        plain_lm(model.llm)
        .generate(
            inputs_embeds=prefix.embeds,
            attention_mask=prefix.mask.long(),
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            max_new_tokens=LIMIT,
            eos_token_id=eos,
            pad_token_id=model.tokenizer.pad_id,
            suppress_tokens=model.forbidden.nonzero().squeeze(1).tolist(),
            renormalize_logits=True,
        )
        .tolist()
    )
    expected = [row[: row.index(eos) + 1] if eos in row else row[:LIMIT] for row in theirs]
    found = searched(model, prefix, beams)
    assert [response.ids for responses in found for response in responses] == expected


@torch.no_grad()
def logp_of(model: AudioLLM, prefix: Prefix, row: int, ids: list[int]) -> float:
    """Log-probability of a response without cache, batch or padding."""
    own = prefix.embeds[row][prefix.mask[row]]
    embeds = torch.cat([own, model.llm.embed(torch.tensor(ids))])
    logits = model.llm(embeds[None])[0, len(own) - 1 : -1]
    logp = logits.masked_fill(model.forbidden, -torch.inf).log_softmax(-1)
    return logp[torch.arange(len(ids)), ids].sum().item()


def test_what_it_says_of_its_responses(model: AudioLLM) -> None:
    prefix, eos = random_prefix(32, LENGTHS), model.tokenizer.eos_id
    for row, responses in enumerate(searched(model, prefix, beams=4)):
        assert len({tuple(r.ids) for r in responses}) == 4
        assert [r.mean for r in responses] == sorted((r.mean for r in responses), reverse=True)
        for r in responses:
            assert r.logp == pytest.approx(logp_of(model, prefix, row, r.ids), abs=1e-4)
            assert r.mean == pytest.approx(r.logp / len(r.ids))
            assert r.finished == (r.ids[-1] == eos)
            assert r.finished or len(r.ids) == LIMIT
            assert eos not in r.ids[:-1] and not model.forbidden[r.ids].any()


def test_enough_beams_find_the_best(model: AudioLLM) -> None:
    """With five tokens and 25 beams, the search to three tokens is exhaustive."""
    prefix, eos = random_prefix(32, LENGTHS), model.tokenizer.eos_id
    allowed = [eos, 5, 6, 7, 8]
    forbidden = torch.ones_like(model.forbidden)
    forbidden[allowed] = False
    every = [
        ids
        for n in (1, 2, 3)
        for ids in itertools.product(allowed, repeat=n)
        if eos not in ids[:-1] and (n == 3 or ids[-1] == eos)
    ]
    rest = model.forbidden
    model.forbidden = forbidden
    expected = [
        sorted(every, key=lambda ids: -logp_of(model, prefix, row, [*ids]) / len(ids))
        for row in range(len(LENGTHS))
    ]
    model.forbidden = rest
    found = searched(model, prefix, beams=25, limit=3, forbidden=forbidden)
    for responses, best in zip(found, expected, strict=True):
        assert [tuple(r.ids) for r in responses] == best[:25]


def test_a_prefix_is_searched_as_if_alone(model: AudioLLM) -> None:
    prefix = random_prefix(32, LENGTHS)
    together = searched(model, prefix, beams=3)
    for row, responses in enumerate(together):
        own = Prefix(prefix.embeds[row : row + 1], prefix.mask[row : row + 1])
        alone = searched(model, own, beams=3)[0]
        assert [r.ids for r in alone] == [r.ids for r in responses]
        assert [r.logp for r in alone] == pytest.approx([r.logp for r in responses], abs=1e-4)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_length_limit(model: AudioLLM, limit: int) -> None:
    for responses in searched(model, random_prefix(32, LENGTHS), beams=3, limit=limit):
        assert len(responses) == 3
        assert all(len(r.ids) <= limit for r in responses)


def test_fewer_responses_than_beams(model: AudioLLM) -> None:
    """If the end is all that may come, one response is all there is."""
    forbidden = torch.ones_like(model.forbidden)
    forbidden[model.tokenizer.eos_id] = False
    found = searched(model, random_prefix(32, LENGTHS), beams=3, forbidden=forbidden)
    assert [[r.ids for r in responses] for responses in found] == [[[1]]] * 3
    assert all(responses[0].logp == 0 and responses[0].finished for responses in found)
