"""Layers that are computed again, and prefix and responses in one row: the same for less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from steps import SPREAD, Recorder, close, learner, learning_model
from test_language_models import WIDE, model_with
from test_language_models import some_lm as plain_lm
from tiny import random_prefix
from torch import Tensor, nn

from audiorl.config.lora import LoRAConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.language_model import LanguageModel, Prefix
from audiorl.models.lora import is_adapter
from audiorl.rl.logprobs import Logprobs, response_logprobs

KINDS = ("qwen3", "llama", "granite", "gemma3_text")
# (share, gradient_checkpointing)
WAYS = {
    "cache": (True, False),
    "packed": (True, True),
    "recomputed": (False, True),
}
VOCABULARY, GROUP, RESPONSE = 40, 4, 12


def some_lm(kind: str, dtype: torch.dtype = torch.float32, layers: int = 2) -> LanguageModel:
    return plain_lm(kind, VOCABULARY, 1, WIDE, layers=layers).to(dtype)


def batch(lengths: list[int], dtype: torch.dtype) -> tuple[Prefix, Tensor, Tensor]:
    """Prefixes of these lengths, their responses, and their mask."""
    prefix = random_prefix(32, lengths)
    prefix.embeds = prefix.embeds.to(dtype).requires_grad_()
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randint(2, VOCABULARY, (len(lengths) * GROUP, RESPONSE), generator=generator)
    ends = torch.randint(1, RESPONSE + 1, (len(tokens), 1), generator=generator)
    return prefix, tokens, torch.arange(RESPONSE) < ends


def learnt(
    lm: LanguageModel, lengths: list[int], share: bool, recompute: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities, and gradients of all that learns and of the prefix."""
    lm.zero_grad()
    lm.gradient_checkpointing = recompute
    dtype = lm.model.get_input_embeddings().weight.dtype
    prefix, tokens, mask = batch(lengths, dtype)
    found: Logprobs = response_logprobs(
        lm,
        prefix,
        tokens,
        mask,
        sampling=Sampling(),
        forbidden=torch.zeros(VOCABULARY, dtype=torch.bool),
        share=share,
    )
    weights = torch.linspace(-1, 1, found.logps.numel()).view_as(found.logps)
    (found.logps * weights).sum().backward()
    named = {name: p.grad for name, p in lm.named_parameters() if p.grad is not None}
    return found.logps.detach(), {**named, "prefix": prefix.embeds.grad}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_way_is_the_plain_one(kind: str, way: str) -> None:
    """Prefixes of unlike lengths, one of a single position; responses of unlike lengths."""
    lm, lengths = some_lm(kind), [9, 1, 17]
    logps, gradients = learnt(lm, lengths, False, False)
    same, others = learnt(lm, lengths, *WAYS[way])
    torch.testing.assert_close(same, logps, rtol=0, atol=1e-5)
    close(others, gradients)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_adapters_over_bf16_learn_the_same_in_every_way(kind: str, way: str) -> None:
    model = learning_model(spread=SPREAD)
    model.llm = some_lm(kind, torch.bfloat16)
    model.adapt(LoRAConfig(rank=4), seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.llm.named_parameters():
        if is_adapter(name):
            parameter.data += 0.02 * torch.randn(parameter.shape, generator=generator)
    logps, gradients = learnt(model.llm, [9, 1, 17], False, False)
    same, others = learnt(model.llm, [9, 1, 17], *WAYS[way])
    assert gradients.keys() == others.keys()
    assert all(is_adapter(name) for name in gradients if name != "prefix")
    assert (same - logps).abs().max() < 0.3
    one, other = (
        torch.cat([g[n].flatten() for n in sorted(g)]).float() for g in (gradients, others)
    )
    assert torch.cosine_similarity(one, other, 0) > 0.99


def saved_bytes(compute: Callable[[], object]) -> int:
    """Bytes of the tensors that the backward pass needs."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        compute()
    return sum(seen.values())


@pytest.mark.parametrize("kind", KINDS)
def test_it_keeps_less_than_a_third(kind: str) -> None:
    lm = some_lm(kind, layers=4)
    prefix, tokens, _ = batch([60, 50], torch.float32)
    found = {}
    for way, (share, recompute) in {"plain": (False, False), **WAYS}.items():
        lm.gradient_checkpointing = recompute
        found[way] = saved_bytes(lambda share=share: lm.response_states(prefix, tokens, share))
    assert found["packed"] < found["recomputed"] < found["plain"] / 3, found
    assert found["packed"] < found["cache"] / 3 < found["plain"] / 3, found


def test_layers_are_computed_again_and_nothing_is_dropped() -> None:
    """In evaluation mode too, with an LM that has dropout; the layers are as before."""
    lm = some_lm("qwen3")
    for layer in lm.model.layers:
        layer.self_attn.attention_dropout = 0.5
    plain = learnt(lm, [5], False, False)[0]
    calls = []
    for layer in lm.model.layers:
        layer.input_layernorm.register_forward_hook(lambda *_: calls.append(1))
    recomputed = learnt(lm, [5], True, True)[0]
    assert len(calls) == 2 * len(lm.model.layers)
    torch.testing.assert_close(recomputed, plain, rtol=0, atol=1e-5)
    assert not any("forward" in vars(layer) for layer in lm.model.layers)
    calls.clear()
    with torch.no_grad():
        lm.response_states(*batch([5], torch.float32)[:2], share=True)
    assert len(calls) == len(lm.model.layers)


def test_layers_that_cannot_be_computed_again() -> None:
    lm = some_lm("qwen3")
    lm.gradient_checkpointing = True
    lm.model.layers = nn.ModuleList()
    with pytest.raises(UserError, match="the layers of a qwen3 cannot be computed again; set fal"):
        lm.response_states(*batch([5], torch.float32)[:2], share=True)


@pytest.mark.parametrize("share", ["always", "never", "auto"])
def test_a_step_of_rl_is_the_same(share: str, utterances: list[Utterance]) -> None:
    """With the KL to a reference, which shares the LM's way."""

    def step(recompute: bool) -> tuple[dict[str, Tensor], list[dict]]:
        keys = {"rl.share_prefix": share, "rl.beta": 0.1, "rl.kl_estimator": "exact"}
        model = model_with("llama", keys)
        model.llm.gradient_checkpointing = recompute
        reference = model.reference(["llm"])
        grpo = learner(model, reference=reference, optimizer=Recorder(model))
        output = grpo.step(0, utterances, 1.0)
        return grpo.optimizer.gradients[-1], output.completions

    plain, completions = step(False)
    gradients, others = step(True)
    close(gradients, plain)
    assert others == completions
