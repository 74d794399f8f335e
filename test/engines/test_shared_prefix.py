"""Decoding from a shared prefix: equal to the LM's own forward, and refused where it cannot be."""

from __future__ import annotations

import pytest
import torch
from tiny import random_prefix
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from audiorl.engines.shared_prefix import GroupDecoder, shared_prefix_attention
from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix

LENGTHS = [3, 11, 7]
GROUP = 4
SIZES = {
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def small_lm(kind: str, dtype: torch.dtype = torch.float32, **more) -> LanguageModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SIZES, **more})
    return LanguageModel.of(AutoModelForCausalLM.from_config(config, dtype=dtype).eval())


def some_tokens(rows: int, length: int) -> Tensor:
    return torch.randint(3, 30, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def own_hidden(lm: LanguageModel, prefix: Prefix, row: int, ids: list[int]) -> Tensor:
    """The last hidden state after a prefix and tokens, without cache, batch or padding."""
    read = prefix.embeds[row][prefix.mask[row]]
    embeds = torch.cat([read, lm.embed(torch.tensor(ids, dtype=torch.long))])
    return lm.model(inputs_embeds=embeds[None], use_cache=False).last_hidden_state[0, -1]


@torch.no_grad()
def check(lm: LanguageModel, leaving: dict[int, list[int]], limit: float = 1e-5) -> None:
    """Reads tokens, rows leaving before a step, and compares every row at every step."""
    prefix = random_prefix(32, LENGTHS)
    prefix = Prefix(prefix.embeds.to(lm.model.dtype), prefix.mask)
    tokens = some_tokens(len(LENGTHS) * GROUP, 6)
    decoder = GroupDecoder(lm, prefix, GROUP, max_length=6)
    alive = list(range(len(tokens)))
    with shared_prefix_attention(lm):
        for t in range(6):
            if t in leaving:
                keep = [place for place, row in enumerate(alive) if row not in leaving[t]]
                decoder.keep(torch.tensor(keep))
                alive = [alive[place] for place in keep]
            decoder.read(tokens[alive, t])
            assert len(decoder.hidden) == len(alive)
            seen = decoder.hidden.clone()
            for place, row in enumerate(alive):
                lm.model.set_attn_implementation("sdpa")
                expected = own_hidden(lm, prefix, row // GROUP, tokens[row, : t + 1].tolist())
                largest = expected.abs().max().item()
                torch.testing.assert_close(seen[place], expected, rtol=0, atol=limit * largest)
            lm.model.set_attn_implementation("audiorl_shared_prefix")


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "phi3", "gpt_neox"])
def test_every_row_at_every_step(kind: str) -> None:
    check(small_lm(kind, pad_token_id=0), leaving={})


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_rows_and_whole_prefixes_leave(heads: int) -> None:
    """Unevenly, whichever heads share keys."""
    leaving = {1: [5, 0], 2: [8, 9, 10, 11], 3: [4], 4: [1, 2, 6]}
    check(small_lm("qwen3", num_key_value_heads=heads), leaving)


def test_half_precision() -> None:
    check(small_lm("qwen3", torch.bfloat16), leaving={2: [0, 7]}, limit=0.05)


def test_a_window_that_is_long_enough_does_not_matter() -> None:
    check(small_lm("mistral", sliding_window=max(LENGTHS) + 6), leaving={1: [3]})


def test_a_shorter_window_is_refused() -> None:
    lm = small_lm("mistral", sliding_window=max(LENGTHS) + 5)
    with pytest.raises(UserError, match=r"a mistral looks back 16 tokens, .* may have 17"):
        GroupDecoder(lm, random_prefix(32, LENGTHS), GROUP, max_length=6)


def test_the_usual_attention_comes_back() -> None:
    lm = small_lm("qwen3")
    with pytest.raises(KeyError), shared_prefix_attention(lm):
        assert lm.config._attn_implementation == "audiorl_shared_prefix"
        raise KeyError
    assert lm.config._attn_implementation == "sdpa"


def test_an_attention_that_cannot_be_replaced_is_refused() -> None:
    lm = small_lm("bloom", n_layer=1, n_head=4)
    with pytest.raises(UserError, match="attention of a bloom cannot be replaced"):
        shared_prefix_attention(lm).__enter__()


@torch.no_grad()
def test_an_attention_with_more_to_it_is_refused() -> None:
    lm = small_lm("gemma2", sliding_window=100, final_logit_softcapping=None)
    decoder = GroupDecoder(lm, random_prefix(32, LENGTHS), GROUP, max_length=6)
    with (
        pytest.raises(UserError, match="attention of a gemma2 has a softcap"),
        shared_prefix_attention(lm),
    ):
        decoder.read(some_tokens(len(LENGTHS) * GROUP, 1)[:, 0])


@torch.no_grad()
def test_beams_may_change_places() -> None:
    """Rows of a prefix may be repeated and reordered, as beam search does."""
    lm, prefix = small_lm("qwen3"), random_prefix(32, LENGTHS)
    tokens = some_tokens(len(LENGTHS) * 2, 3)
    decoder = GroupDecoder(lm, prefix, 2, max_length=3)
    parents = torch.tensor([1, 1, 3, 2, 4, 4])
    with shared_prefix_attention(lm):
        decoder.read(tokens[:, 0])
        decoder.keep(parents)
        decoder.read(tokens[:, 1])
    for row, parent in enumerate(parents.tolist()):
        expected = own_hidden(lm, prefix, row // 2, [int(tokens[parent, 0]), int(tokens[row, 1])])
        torch.testing.assert_close(decoder.hidden[row], expected, rtol=0, atol=1e-5)


def test_layers_without_keys_are_refused() -> None:
    lm = small_lm("lfm2", layer_types=["conv", "full_attention"])
    with pytest.raises(UserError, match="a lfm2 has layers without keys and values"):
        GroupDecoder(lm, random_prefix(32, LENGTHS), GROUP, max_length=6)
