"""Adapters: where they are, that they change nothing at first, and that plain peft reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import move_adapters, sing, tiny_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from audiorl.config.lora import LoRAConfig
from audiorl.engines.native import PolicyEngine
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.models.audio_llm import AudioLLM
from audiorl.models.language_model import LanguageModel
from audiorl.models.lora import is_adapter, merge_adapters
from audiorl.models.policy import load_policy

WAVES = [torch.from_numpy(sing(text)) for text in ("ba do", "ki lu me no")]
KINDS = ("qwen3", "llama", "granite", "gemma3_text")
LORA = LoRAConfig(rank=4, alpha=8)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": None,
    "pad_token_id": None,
    "eos_token_id": 1,
}
OTHERS = {"granite": {"logits_scaling": 2.0}, "gemma3_text": {"query_pre_attn_scalar": 8}}


def causal_lm(kind: str, rows: int, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    torch.manual_seed(3)
    tied = kind == "gemma3_text"
    sizes = {**SIZES, **OTHERS.get(kind, {}), "vocab_size": rows, "tie_word_embeddings": tied}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
    with torch.no_grad():
        for parameter in lm.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
    return lm.to(dtype).eval()


def policy(kind: str = "qwen3", dtype: torch.dtype = torch.float32) -> AudioLLM:
    model = tiny_model(seed=2)
    model.llm = LanguageModel.of(causal_lm(kind, model.tokenizer.vocab_size, dtype))
    return model.eval()


def adapted(model: AudioLLM, lora: LoRAConfig = LORA) -> AudioLLM:
    """With adapters that have learnt something."""
    model.adapt(lora, seed=7)
    return move_adapters(model, 0.1)


@torch.no_grad()
def outputs(model: AudioLLM) -> Tensor:
    tokens, _ = model.responses(["ba do", "ki"])
    states = model.llm.response_states(model.prefix(model.encode(WAVES)), tokens, share=True)
    return model.llm.logits(states)


def adapters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if is_adapter(name)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_new_adapters_change_nothing_and_are_fp32(kind: str, dtype: torch.dtype) -> None:
    model = policy(kind, dtype)
    before = outputs(model)
    model.adapt(LORA, seed=7)
    assert torch.equal(outputs(model), before)
    found = adapters(model.llm)
    layers = model.llm.config.num_hidden_layers
    assert len(found) == 2 * 7 * layers and {p.dtype for p in found.values()} == {torch.float32}
    assert not adapters(model.encoder) and "lora" not in str(model.llm.lm_head).lower()
    learning = model.train_only(["adaptor", "llm"])
    assert learning == [model.adaptor, model.llm]
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    expected = {f"llm.{n}" for n in found} | {
        f"adaptor.{n}" for n, _ in model.adaptor.named_parameters()
    }
    assert names == expected
    again = policy(kind, dtype)
    again.adapt(LORA, seed=7)
    for name, parameter in adapters(again.llm).items():
        assert torch.equal(parameter, found[name])


@pytest.mark.parametrize("kind", KINDS)
def test_merged_adapters_say_the_same(kind: str) -> None:
    start = outputs(policy(kind))
    model = adapted(policy(kind))
    learnt = outputs(model)
    assert (learnt - start).abs().max() > 0.1
    names = policy(kind).state_dict().keys()
    merge_adapters(model)
    torch.testing.assert_close(outputs(model), learnt, rtol=0, atol=1e-4)
    assert model.state_dict().keys() == names


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_pass_has_the_adapters(dtype: torch.dtype) -> None:
    """One that samples from a cache, and the head's, in slices and among some ids."""
    lora = LoRAConfig(rank=4, alpha=8, targets=["llm.q_proj", "llm.lm_head"])
    model = adapted(policy("llama", dtype), lora)
    head = model.llm.lm_head
    hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.no_grad():
        whole = head.weight.float() + head.get_delta_weight("default")
        logits = model.llm.logits(hidden)
        torch.testing.assert_close(logits, hidden.float() @ whole.T, rtol=1e-4, atol=1e-4)
        allowed = torch.arange(logits.size(1)) % 3 == 0
        among = model.llm.logits_among(hidden, allowed)
        torch.testing.assert_close(among, logits[:, allowed], rtol=1e-4, atol=1e-4)
    prefix = model.prefix(model.encode(WAVES))
    rollout = PolicyEngine(model).generate(
        prefix, group=1, max_length=6, sampling=Sampling(greedy=True)
    )
    with torch.no_grad():
        states = model.llm.response_states(prefix, rollout.tokens, share=False)
        logits = model.llm.logits(states).masked_fill(model.forbidden, -torch.inf)
    expected = logits.argmax(-1) if dtype == torch.float32 else rollout.tokens
    assert torch.equal(rollout.tokens[rollout.mask], expected[rollout.mask])
    logps = logits.log_softmax(-1).gather(-1, rollout.tokens[..., None])[..., 0]
    limit = 1e-4 if dtype == torch.float32 else 0.5
    assert (rollout.logps - logps)[rollout.mask].abs().max() < limit


def test_the_reference_copies_adapters_alone_and_stays_the_start() -> None:
    model = policy("qwen3", torch.bfloat16)
    start = outputs(model)
    model.adapt(LORA, seed=7)
    reference = model.reference(["adaptor", "llm"])
    own = {name: p.data_ptr() for name, p in model.named_parameters()}
    copied = {n for n, p in reference.named_parameters() if p.data_ptr() != own[n]}
    assert copied == {n for n in own if is_adapter(n) or n.startswith("adaptor.")}
    adapted(model)
    assert torch.equal(outputs(reference), start) and not torch.equal(outputs(model), start)
    assert not any(p.requires_grad for p in reference.parameters())


def test_the_same_adapters_go_on_and_others_are_merged() -> None:
    model = adapted(policy())
    learnt, found = outputs(model), adapters(model)
    model.adapt(LoRAConfig(rank=4, alpha=8, merge=False), seed=9)
    assert all(p is found[name] for name, p in adapters(model).items())
    model.adapt(LoRAConfig(rank=2, targets=["llm.v_proj"]), seed=9)
    torch.testing.assert_close(outputs(model), learnt, rtol=0, atol=1e-4)
    assert len(adapters(model)) == 2 * 2 and {min(p.shape) for p in adapters(model).values()} == {2}
    model.adapt(LoRAConfig(), seed=9)
    assert not adapters(model) and model.lora is None


def test_dropout_is_of_training_alone() -> None:
    model = adapted(policy(), LoRAConfig(rank=4, dropout=0.5))
    assert torch.equal(outputs(model), outputs(model))
    model.train()
    assert not torch.equal(outputs(model), outputs(model))


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (["llm.q_prj"], r"lora\.targets: llm\.q_prj is no linear layer; llm has down_proj, gate_"),
        (["encoder.q_proj"], r"lora\.targets: encoder\.q_proj is no linear layer; encoder has .*q"),
    ],
)
def test_unknown_layers(targets: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        policy().adapt(LoRAConfig(rank=4, targets=targets), 0)


def test_a_tied_head_gets_none() -> None:
    with pytest.raises(UserError, match="the head's weights are those of the embeddings"):
        policy("gemma3_text").adapt(LoRAConfig(rank=4, targets=["llm.lm_head"]), 0)


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
def test_saved_alone(architecture: str, tmp_path: Path) -> None:
    """It loads, in bf16 without a loss, and plain peft reads the adapters of the LM."""
    from peft import PeftModel

    lora = LoRAConfig(rank=4, alpha=8, targets=["llm", "encoder.linear_q"])
    keys = {"llm.architecture": architecture, "llm.dtype": "bfloat16"}
    there = tmp_path / "there"
    tiny_model(keys, spread=2.0).save(there / "base")
    model = adapted(load_policy(there / "base"), lora)
    model.train_only(["adaptor", "llm", "encoder"])
    with torch.no_grad():
        model.adaptor.layers[1].weight.mul_(1.5)
    model.save_adapters(there / "own", there / "base")
    there = there.rename(tmp_path / "elsewhere")

    loaded = load_policy(there / "own")
    assert torch.equal(outputs(loaded), outputs(model)) and not loaded.training
    assert loaded.lora == lora
    stored = load_file(there / "own" / "model.safetensors")
    assert not any("embed_tokens" in name or "base_layer" in name for name in stored)

    base = load_policy(there / "base").llm
    plain = AutoModelForCausalLM.from_config(base.config, dtype=torch.bfloat16)
    plain.load_state_dict(base.state_dict())
    plain = PeftModel.from_pretrained(plain.eval(), str(there / "own"))
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        hidden = model.llm.model(input_ids=ids).last_hidden_state
        expected = plain.base_model.model.model(input_ids=ids).last_hidden_state
    assert torch.equal(hidden, expected)


def test_adapters_without_their_base(tmp_path: Path) -> None:
    tiny_model().save(tmp_path / "base")
    model = adapted(load_policy(tmp_path / "base"))
    model.train_only(["llm"])
    model.save_adapters(tmp_path / "own", tmp_path / "base")
    tiny_model({"llm.hidden_size": 64}).save(tmp_path / "base")
    with pytest.raises(UserError, match=r"own: its adapters do not fit the model .*base \("):
        load_policy(tmp_path / "own")
    (tmp_path / "base").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"base: there is no model"):
        load_policy(tmp_path / "own")
