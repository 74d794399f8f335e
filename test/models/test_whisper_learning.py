"""Whisper learns by adapters, in bf16 and with layers that are computed again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import move_adapters, sing
from tiny_whisper import save_whisper, tiny_whisper, whisper_config
from torch import Tensor
from transformers import WhisperForConditionalGeneration

from audiorl.config.lora import LoRAConfig
from audiorl.engines.sampling import Sampling
from audiorl.models.families.whisper import Whisper
from audiorl.models.lora import is_adapter, merge_adapters
from audiorl.models.policy import load_policy
from audiorl.rl.estimate import estimate
from audiorl.rl.logprobs import response_logprobs

TEXTS = ["ba do", "ki lu me no"]
WAVES = [torch.from_numpy(sing(text)) for text in TEXTS]
LORA = LoRAConfig(rank=4, alpha=8)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_whisper(tmp_path_factory.mktemp("hub"))


def moved(model: Whisper, lora: LoRAConfig = LORA) -> Whisper:
    """With adapters that have learnt something."""
    model.adapt(lora, seed=1)
    return move_adapters(model, 0.05)


def scored(model: Whisper, share: bool, recompute: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities of two groups of responses, and the gradients of what learns."""
    model.zero_grad()
    model.llm.gradient_checkpointing = recompute
    tokens, mask = model.responses([*TEXTS, *reversed(TEXTS)])
    found = response_logprobs(
        model.llm,
        model.prefix(model.encode(WAVES)),
        tokens,
        mask,
        sampling=Sampling(),
        forbidden=model.forbidden,
        share=share,
    ).logps
    (found * torch.linspace(-1, 1, found.numel()).view_as(found)).sum().backward()
    named = model.named_parameters()
    return found.detach(), {name: p.grad for name, p in named if p.grad is not None}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [0, 4])
def test_packed_and_recomputed_is_plain(rank: int, dtype: str, hub: Path) -> None:
    """The encoder learns, too; the cross attention of all responses reads one memory."""
    lora = LoRAConfig(rank=rank, alpha=8, targets=["llm", "encoder.q_proj"])
    model = moved(tiny_whisper(hub, {"llm.dtype": dtype}), lora)
    model.train_only(["llm", "encoder"])
    logps, gradients = scored(model, False, False)
    if rank:
        assert gradients and all(map(is_adapter, gradients))
        assert {g.dtype for g in gradients.values()} == {torch.float32}
        cross = "decoder.layers.1.encoder_attn.v_proj.lora_B"
        assert any(cross in name and g.any() for name, g in gradients.items())
    for share in (True, False):
        same, others = scored(model, share, True)
        assert others.keys() == gradients.keys()
        one, other = (
            torch.cat([g[n].flatten().float() for n in gradients]) for g in (gradients, others)
        )
        if dtype == "float32":
            torch.testing.assert_close(same, logps, rtol=0, atol=1e-4)
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-4 * one.abs().max())
        else:
            assert (same - logps).abs().max() < 0.5
            assert torch.cosine_similarity(one, other, 0) > 0.98


@torch.no_grad()
def test_saved_merged_or_alone(hub: Path, tmp_path: Path) -> None:
    """Plain transformers reads the first, plain peft the second."""
    from peft import PeftModel

    def outputs(policy: Whisper) -> Tensor:
        tokens, mask = policy.responses(TEXTS)
        states = policy.llm.response_states(policy.prefix(policy.encode(WAVES)), tokens, True)
        return policy.llm.logits(states[mask])

    model = tiny_whisper(hub)
    model.save(tmp_path / "base")
    start = outputs(model)
    model.adapt(LORA, 1)
    assert torch.equal(outputs(model), start)
    expected = outputs(moved(model))
    model.train_only(["llm"])
    model.save_adapters(tmp_path / "alone", tmp_path / "base")
    assert torch.equal(outputs(load_policy(tmp_path / "alone")), expected)

    inputs = {
        "input_features": torch.randn(1, 16, 200),
        "decoder_input_ids": torch.tensor([[3, 4]]),
    }
    base = WhisperForConditionalGeneration.from_pretrained(tmp_path / "base").eval()
    plain = base(**inputs).logits
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "alone"))(**inputs).logits
    merge_adapters(model)
    model.save(tmp_path / "merged")
    merged = WhisperForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(**inputs).logits, adapted, rtol=0, atol=1e-3)
    assert (adapted - plain).abs().max() > 0.01
    torch.testing.assert_close(
        outputs(load_policy(tmp_path / "merged")), expected, rtol=0, atol=1e-3
    )


def test_its_memory_is_estimated_without_weights(hub: Path, tmp_path: Path) -> None:
    """The encoder's states are read by cross attention: keys and values of each layer."""
    for path in hub.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).symlink_to(path)
    keys = {"rl.num_prompts": 5, "rl.num_generations": 4, "rl.max_completion_length": 8}
    for window, states in {"full": 100, "utterance": 75}.items():
        others = {"whisper.window": window, "data.max_duration": 1.0, "lora.rank": 4}
        text = estimate(whisper_config(tmp_path, {**keys, **others}))
        own, heard = (2 + 4 * 8) * 2 * 2 * 32 * 4, states * 2 * 2 * 32 * 4
        assert f"{5 * (own + heard) / 1e6:.1f} MB  5 x (2 + 4 x 8) positions\n" in text
        assert "learns by adapters of 0.01 M" in text
