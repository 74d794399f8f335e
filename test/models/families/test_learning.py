"""Pretrained families learn by adapters, in bf16 and with layers that are computed again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from tiny import move_adapters
from tiny_families import BUILDERS, TEXTS, heard, load_family
from torch import Tensor

from audiorl.config.lora import LoRAConfig
from audiorl.config.schema import Config
from audiorl.engines.sampling import Sampling
from audiorl.models.families.pretrained import PretrainedAudioLLM
from audiorl.models.lora import is_adapter, merge_adapters
from audiorl.models.policy import find_policy, load_policy
from audiorl.rl.estimate import estimate
from audiorl.rl.logprobs import response_logprobs

LORA = LoRAConfig(rank=4, alpha=8)
SOME = ("granite_speech", "qwen2_audio", "voxtral")


@pytest.fixture
def model(request: pytest.FixtureRequest, family_folder: Callable[[str], Path]):
    return load_family(family_folder(request.param))


def moved(model: PretrainedAudioLLM) -> PretrainedAudioLLM:
    """With adapters that have learnt something."""
    model.adapt(LORA, seed=1)
    return move_adapters(model, 0.05)


def scored(model: PretrainedAudioLLM, share: bool, recompute: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities of two groups of responses, and the gradients of all that learns."""
    model.zero_grad()
    model.llm.gradient_checkpointing = recompute
    tokens, mask = model.responses([*TEXTS, *TEXTS[:1]])
    prefix = model.prefix(model.encode(heard()[:2]))
    found = response_logprobs(
        model.llm,
        prefix,
        tokens,
        mask,
        sampling=Sampling(),
        forbidden=model.forbidden,
        share=share,
    ).logps
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return found.detach(), torch.cat(gradients)


@pytest.mark.parametrize("model", BUILDERS, indirect=True)
def test_packed_and_recomputed_is_plain(model: PretrainedAudioLLM) -> None:
    """The adaptor learns, whose embeddings are read again, and so do adapters of the LM."""
    moved(model).train_only(["adaptor", "llm"])
    logps, gradients = scored(model, False, False)
    reached = {id(p) for p in model.parameters() if p.grad is not None}
    adapters = {id(p) for name, p in model.named_parameters() if is_adapter(name)}
    adaptor = {id(p) for module in model.part("adaptor") for p in module.parameters()}
    assert adapters < reached <= adapters | adaptor
    for share in (True, False):
        same, others = scored(model, share, True)
        torch.testing.assert_close(same, logps, rtol=0, atol=1e-4)
        torch.testing.assert_close(others, gradients, rtol=1e-3, atol=1e-4 * gradients.abs().max())


@pytest.mark.parametrize("model", BUILDERS, indirect=True)
def test_a_part_with_adapters_learns_by_them_alone(model: PretrainedAudioLLM) -> None:
    """The adaptor of some is one linear layer, and a head that is not tied is one, too."""
    tied = model.llm.lm_head.weight is model.llm.model.get_input_embeddings().weight
    targets = ["adaptor", "encoder", "llm"] if tied else ["adaptor", "encoder", "llm.lm_head"]
    model.adapt(LoRAConfig(rank=2, targets=targets), seed=1)
    adapters = {name for name, _ in model.named_parameters() if is_adapter(name)}
    model.train_only(["adaptor", "llm", "encoder"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == adapters
    assert any("lm_head" in name for name in adapters) != tied


@pytest.mark.parametrize("name", SOME)
def test_adapters_over_bf16(name: str, family_folder: Callable[[str], Path]) -> None:
    config = Config()
    config.model.pretrained, config.llm.dtype = str(family_folder(name)), "bfloat16"
    model = find_policy(name).create(config, []).eval()
    with torch.no_grad():
        start = scored_without_gradients(model)
        model.adapt(LORA, seed=1)
        assert torch.equal(scored_without_gradients(model), start)
    model.train_only(["adaptor", "llm"])
    reference = model.reference(["adaptor", "llm"])
    own = {name: p.data_ptr() for name, p in model.named_parameters()}
    copied = {n for n, p in reference.named_parameters() if p.data_ptr() != own[n]}
    adaptor = {id(p) for m in model.part("adaptor") for p in m.parameters()}
    named = dict(model.named_parameters())
    assert copied == {n for n in own if is_adapter(n) or id(named[n]) in adaptor}
    loss = model.supervised_loss(model.encode(heard()), TEXTS).total
    loss.backward()
    for name, parameter in model.named_parameters():
        if is_adapter(name):
            assert parameter.dtype == torch.float32 and parameter.grad is not None


def scored_without_gradients(model: PretrainedAudioLLM) -> Tensor:
    tokens, mask = model.responses(TEXTS)
    states = model.llm.response_states(model.prefix(model.encode(heard())), tokens, share=True)
    return model.llm.logits(states[mask])


@torch.no_grad()
@pytest.mark.parametrize("model", SOME, indirect=True)
def test_saved_merged_or_alone(model: PretrainedAudioLLM, tmp_path: Path) -> None:
    """Plain transformers reads the first, plain peft the second."""
    from peft import PeftModel

    base = model.settings.pretrained
    model.save(tmp_path / "base")
    expected = scored_without_gradients(moved(model))
    model.train_only(["llm"])
    model.save_adapters(tmp_path / "alone", tmp_path / "base")
    again = load_policy(tmp_path / "alone")
    assert torch.equal(scored_without_gradients(again), expected)

    kind = getattr(transformers, model.model_class)
    inputs = model.inputs([model._text], [heard()[0].numpy()])
    own = model.hf(**inputs).logits
    plain = PeftModel.from_pretrained(kind.from_pretrained(base).eval(), str(tmp_path / "alone"))
    torch.testing.assert_close(plain(**inputs).logits, own, rtol=0, atol=1e-4)
    merge_adapters(model)
    model.save(tmp_path / "merged")
    merged = kind.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(**inputs).logits, own, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", BUILDERS)
def test_its_memory_is_estimated_without_weights(
    name: str, family_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / name
    folder.symlink_to(family_folder(name))
    config = Config()
    config.model.pretrained, config.llm.dtype = str(folder), "bfloat16"
    config.lora.rank, config.data.max_duration = 4, 2.0
    model = load_family(family_folder(name))
    frames = model.encode([torch.zeros(32000)])
    longest = model.prefix_length(frames[0])
    text = estimate(config)
    assert f"x ({longest} + 8 x 64) positions\n" in text and "learns by adapters" in text
