"""Sharing a prefix changes cost, not numbers; neither does padding nor the order of rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import random_prefix, tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from audiorl.config.model import LLMConfig
from audiorl.errors import UserError
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import Prefix, build_lm

LENGTHS = [3, 11, 7]
GROUP = 4


@pytest.fixture(scope="module", params=["qwen3", "qwen2", "llama"])
def model(request) -> AudioLLM:
    return tiny_model({"llm.architecture": request.param}, spread=2.0)


def some_tokens(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 30, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded(prefix: Prefix, extra: int) -> Prefix:
    """The same prefix with `extra` columns more on the left, full of what must not matter."""
    rows = len(prefix.embeds)
    junk = 100 * torch.ones(rows, extra, prefix.embeds.size(2))
    mask = torch.zeros(rows, extra, dtype=torch.bool)
    return Prefix(torch.cat([junk, prefix.embeds], 1), torch.cat([mask, prefix.mask], 1))


def close(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    limit = 1e-5 * expected.abs().max().item()
    torch.testing.assert_close(actual, expected, rtol=0, atol=limit)


def gradients(model: AudioLLM, prefix: Prefix, tokens: Tensor, share: bool) -> list[Tensor]:
    """Of a loss in which every hidden state counts differently: by prefix, and by parameter."""
    embeds = prefix.embeds.clone().requires_grad_()
    model.zero_grad()
    hidden = model.llm.response_states(Prefix(embeds, prefix.mask), tokens, share)
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(3))
    (hidden * weights).sum().backward()
    # What had no part in the loss has no gradient in one way, and one of zeros in the other.
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.llm.parameters()]
    return [embeds.grad * prefix.mask[..., None], *(g.clone() for g in own)]


@pytest.mark.parametrize("length", [1, 2, 6])
def test_shared_prefix_is_the_plain_one(model: AudioLLM, length: int) -> None:
    prefix = random_prefix(32, LENGTHS)
    tokens = some_tokens(len(LENGTHS) * GROUP, length)
    plain = model.llm.response_states(prefix, tokens, share=False)
    shared = model.llm.response_states(prefix, tokens, share=True)
    assert plain.shape == (len(LENGTHS) * GROUP, length, 32)
    close(shared, plain)
    ours, theirs = (gradients(model, prefix, tokens, share) for share in (True, False))
    assert len(ours) == len(theirs) > 10
    for actual, expected in zip(ours, theirs, strict=True):
        close(actual, expected)


def test_plain_is_what_the_lm_itself_says(model: AudioLLM) -> None:
    """One row at a time, without padding, through the model's own forward."""
    prefix = random_prefix(32, LENGTHS)
    tokens = some_tokens(len(LENGTHS) * GROUP, 5)
    hidden = model.llm.response_states(prefix, tokens, share=False)
    logits = model.llm.lm_head(hidden)
    embed = model.llm.model.get_input_embeddings()
    for row, ids in enumerate(tokens):
        own = prefix.embeds[row // GROUP][prefix.mask[row // GROUP]]
        embeds = torch.cat([own, embed(ids)])
        expected = model.llm(embeds[None])[0, len(own) - 1 : -1]
        close(logits[row], expected)


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("extra", [1, 9])
def test_padding_on_the_left_does_not_matter(model: AudioLLM, share: bool, extra: int) -> None:
    prefix, tokens = random_prefix(32, LENGTHS), some_tokens(len(LENGTHS) * GROUP, 4)
    before = model.llm.response_states(prefix, tokens, share)
    close(model.llm.response_states(padded(prefix, extra), tokens, share), before)
    expected = gradients(model, prefix, tokens, share)[1:]
    actual = gradients(model, padded(prefix, extra), tokens, share)
    assert all(g.isfinite().all() for g in actual)
    for one, other in zip(actual[1:], expected, strict=True):
        close(one, other)


@pytest.mark.parametrize("share", [True, False])
def test_order_of_prefixes_does_not_matter(model: AudioLLM, share: bool) -> None:
    prefix, tokens = random_prefix(32, LENGTHS), some_tokens(len(LENGTHS) * GROUP, 4)
    before = model.llm.response_states(prefix, tokens, share)
    order = torch.tensor([2, 0, 1])
    rows = (order[:, None] * GROUP + torch.arange(GROUP)).view(-1)
    moved = Prefix(prefix.embeds[order], prefix.mask[order])
    close(model.llm.response_states(moved, tokens[rows], share), before[rows])


@pytest.mark.parametrize("share", [True, False])
def test_a_response_belongs_to_its_own_prefix(model: AudioLLM, share: bool) -> None:
    """Changing one prefix changes the responses of its group and no other."""
    prefix, tokens = random_prefix(32, LENGTHS), some_tokens(len(LENGTHS) * GROUP, 4)
    before = model.llm.response_states(prefix, tokens, share)
    embeds = prefix.embeds.clone()
    embeds[1, -1] += 1
    after = model.llm.response_states(Prefix(embeds, prefix.mask), tokens, share)
    changed = (after - before).abs().flatten(1).max(1).values > 1e-4
    assert changed.view(len(LENGTHS), GROUP).tolist() == [[False] * 4, [True] * 4, [False] * 4]


@pytest.mark.parametrize("share", [True, False])
def test_what_follows_a_token_does_not_change_it(model: AudioLLM, share: bool) -> None:
    prefix, tokens = random_prefix(32, LENGTHS), some_tokens(len(LENGTHS) * GROUP, 6)
    before = model.llm.response_states(prefix, tokens, share)
    tokens[:, 3:] = 7
    after = model.llm.response_states(prefix, tokens, share)
    close(after[:, :4], before[:, :4])


def test_prefill_reads_the_last_real_position(model: AudioLLM) -> None:
    prefix = random_prefix(32, LENGTHS)
    last, cache = model.llm.prefill(prefix)
    assert last.shape == (3, 1, 32)
    assert cache.get_seq_length() == max(LENGTHS)
    for i, n in enumerate(LENGTHS):
        alone, _ = model.llm.prefill(random_prefix(32, LENGTHS[: i + 1]))
        close(last[i], alone[i])
        row = Prefix(prefix.embeds[i : i + 1, -n:], prefix.mask[i : i + 1, -n:])
        close(last[i], model.llm.prefill(row)[0][0])


def test_dropout_is_in_training_only() -> None:
    model = tiny_model({"llm.dropout": 0.5}, spread=3.0)
    prefix, tokens = random_prefix(32, LENGTHS), some_tokens(3, 5)
    quiet = model.llm.response_states(prefix, tokens, share=False)
    assert torch.equal(model.llm.response_states(prefix, tokens, share=False), quiet)
    noisy = model.llm.train().response_states(prefix, tokens, share=False)
    assert (noisy - quiet).abs().max() > 1e-3


def test_sizes_of_a_new_lm() -> None:
    config = LLMConfig(
        hidden_size=48, num_attention_heads=4, num_key_value_heads=2, intermediate_size=80
    )
    lm = build_lm(config, vocab_size=37, end_id=1)
    table = lm.model.get_input_embeddings()
    assert table.weight.shape == (37, 48) and lm.vocab_size == 37
    assert lm.lm_head.weight is table.weight
    assert lm.config.num_hidden_layers == 3
    assert lm.config.head_dim == 12
    half = build_lm(LLMConfig(dtype="bfloat16", hidden_size=48), vocab_size=37, end_id=1)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def saved_lm(folder: Path, kind: str, **more) -> PreTrainedModel:
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": None, **more}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes)).eval()
    lm.save_pretrained(folder)
    return lm


def test_an_lm_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    saved_lm(tmp_path, "gemma2", head_dim=8)
    with pytest.raises(UserError, match=r"gemma2 caps its logits .* \(final_logit_softcapping\)"):
        build_lm(LLMConfig(pretrained=str(tmp_path)), vocab_size=20, end_id=1)


@pytest.mark.parametrize(
    ("kind", "more"), [("granite", {"logits_scaling": 4.0}), ("cohere", {"logit_scale": 0.5})]
)
@torch.no_grad()
def test_logits_are_scaled_as_the_lm_does(kind: str, more: dict, tmp_path: Path) -> None:
    theirs = saved_lm(tmp_path, kind, **more)
    ours = build_lm(LLMConfig(pretrained=str(tmp_path)), vocab_size=20, end_id=1).eval()
    embeds = random_prefix(16, [6]).embeds
    logits = ours(embeds)
    torch.testing.assert_close(logits, theirs(inputs_embeds=embeds).logits)
    unscaled = ours.lm_head(ours.model(inputs_embeds=embeds).last_hidden_state)
    assert (logits - unscaled).abs().max() > 1e-3
    allowed = torch.arange(20) > 4
    hidden = ours.model(inputs_embeds=embeds).last_hidden_state
    torch.testing.assert_close(ours.logits_among(hidden, allowed), logits[..., allowed])
