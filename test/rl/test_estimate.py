"""The memory that is estimated from a recipe is what a run takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrained_llm import save_pretrained_llm
from tiny import random_prefix, tiny_config, tiny_model
from tiny_whisper import save_whisper
from transformers import WhisperConfig, WhisperModel

from audiorl.config.schema import Config
from audiorl.engines.shared_prefix import GroupDecoder
from audiorl.errors import UserError
from audiorl.models.sketch import longest_prefix, sketch
from audiorl.rl import estimate as module
from audiorl.rl.estimate import estimate, saved_bytes
from audiorl.runs.optimizer import Optimizers

UNITS = {"MB": 1e6, "GB": 1e9}
KEYS = {
    "rl.num_prompts": 6,
    "rl.num_generations": 4,
    "rl.max_completion_length": 16,
    "llm.num_hidden_layers": 4,
    "data.max_duration": 5.0,
    "rl.beta": 0.1,
}
DTYPES = ("float32", "bfloat16")


def needs(config: Config) -> dict[str, float]:
    """Bytes by name."""
    found = re.findall(r"^  (\S.*?) {2,}([\d.]+) ([MG]B)", estimate(config), re.MULTILINE)
    return {name: float(number) * UNITS[unit] for name, number, unit in found}


def size(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [0, 8])
def test_weights_and_what_makes_them_learn(rank: int, dtype: str) -> None:
    keys = {**KEYS, "llm.dtype": dtype, "lora.rank": rank, "adaptor.hidden_size": 2000}
    keys = {**keys, "tokenizer.vocab_size": 45}
    found = needs(tiny_config(keys))
    model = tiny_model({**keys, "sft.ctc_weight": 0.0})
    model.adapt(model.recipe.lora, 0)
    parts = model.train_only(model.recipe.rl.train)
    learning = {p for part in parts for p in part.parameters() if p.requires_grad}
    optimizer = Optimizers(parts, 1e-3, 0.0)
    sum(p.float().sum() for p in learning).backward()
    optimizer.step(1.0, 1.0, [])
    moved = optimizer.parameters
    state = [
        t for part in optimizer.state_dict() for s in part["state"].values() for t in s.values()
    ]
    taken = size([p.grad for p in moved]) + size(t for t in state if t.dim())
    taken += size(optimizer.masters.values())
    assert found["gradients, AdamW, masters"] == pytest.approx(taken, rel=0.05, abs=6e4)
    assert found["weights"] == pytest.approx(size(model.parameters()), rel=0.05, abs=6e4)
    assert found["reference"] == pytest.approx(size(learning), rel=0.05, abs=6e4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [0, 8])
@pytest.mark.parametrize(
    ("share", "recompute"), [("never", False), ("always", False), ("always", True), ("never", True)]
)
def test_activations(share: str, recompute: bool, rank: int, dtype: str) -> None:
    """Those of a layer that is computed again come on top of what is kept."""
    keys = {**KEYS, "rl.share_prefix": share, "llm.dtype": dtype, "lora.rank": rank}
    keys |= {"gradient_checkpointing": recompute, "llm.hidden_size": 64}
    config = tiny_config(keys)
    model = tiny_model(keys)
    model.adapt(config.lora, 0)
    model.train_only(["adaptor", "llm"])
    lm, group, length = model.llm, 4, 16
    positions, _ = longest_prefix(config, sketch(config))
    prefix = random_prefix(64, [positions, positions - 1])
    prefix.embeds = prefix.embeds.to(lm.lm_head.weight.dtype).requires_grad_()
    tokens = torch.zeros(2 * group, length, dtype=torch.long)

    def kept(recompute: bool) -> int:
        lm.gradient_checkpointing = recompute
        return saved_bytes(lm, lambda: lm.response_states(prefix, tokens, share == "always"))

    taken = 3 * kept(recompute) + (6 * kept(False) / 2 / 4 if recompute else 0)
    assert needs(config)["activations of an update"] == pytest.approx(taken, rel=0.2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_and_values(dtype: str) -> None:
    config = tiny_config({**KEYS, "llm.dtype": dtype})
    model = tiny_model({**KEYS, "llm.dtype": dtype})
    positions, _ = longest_prefix(config, sketch(config))
    prefix = random_prefix(32, [positions] * 6)
    prefix.embeds = prefix.embeds.to(model.llm.lm_head.weight.dtype)
    with torch.no_grad():
        decoder = GroupDecoder(model.llm, prefix, 4, 16)
    read = size(t for layer in decoder._prefixes for t in layer)
    rows = read * 4 * 16 / positions
    found = needs(config)["keys and values of rollout"]
    assert found == pytest.approx(read + rows, rel=0.05, abs=6e4)


def test_weights_of_a_pretrained_llm_are_not_read(tmp_path: Path) -> None:
    save_pretrained_llm(tmp_path, "llama")
    (tmp_path / "model.safetensors").unlink()
    keys: dict[str, Any] = {"llm.pretrained": str(tmp_path), "tokenizer.type": "pretrained"}
    for task in ("asr", "tts"):
        text = estimate(tiny_config({**keys, "task": task, "lora.rank": 2}))
        assert re.search(r"^  llm +[\d.]+ M  learns by adapters of 0\.\d+ M$", text, re.MULTILINE)
    with pytest.raises(UserError, match=r"llm\.q_prj is no linear layer; llm has down_proj"):
        estimate(tiny_config({**keys, "lora.rank": 2, "lora.targets": ["llm.q_prj"]}))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"llm\.pretrained: the config\.json of .* cannot be read"):
        estimate(tiny_config(keys))


def test_an_encoder_of_transformers(tmp_path: Path) -> None:
    """50 frames a second, two to an embedding, and its own parameters; no weights are read."""
    save_whisper(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    config = tiny_config({**KEYS, "encoder.pretrained": str(tmp_path), "data.max_duration": 1.0})
    model = WhisperModel(WhisperConfig.from_pretrained(tmp_path)).encoder
    count = sum(p.numel() for p in model.parameters())
    text = estimate(config)
    assert re.search(rf"^  encoder +{count / 1e6:.2f} M  frozen$", text, re.MULTILINE)
    assert "x (41 + 4 x 16) positions\n" in text


def test_what_does_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(KEYS)
    text = estimate(config)
    assert text.endswith(" GB free: fits") and max(map(len, text.split("\n"))) <= 90
    monkeypatch.setattr(module, "free_memory", lambda device: 1000)
    *_, verdict, advice = estimate(config).split("\n")
    keys = {"gradient_checkpointing": True, "rl.micro_batch_tokens": 10, "rl.rollout_prompts": 1}
    keys |= {**KEYS, "llm.hidden_size": 640}
    for others, sentence in (
        ({}, "gradients, AdamW, masters; set lora.rank"),
        ({"lora.rank": 2}, "weights; set llm.dtype: bfloat16"),
        ({"lora.rank": 2, "llm.dtype": "bfloat16"}, "weights; take a smaller model"),
    ):
        text = estimate(tiny_config({**keys, **others}))
        assert text.endswith(f"\n  the largest: {sentence}")
    assert re.fullmatch(r"  in all, on cpu +[\d.]+ MB  of 0\.0 MB free: does not fit", verdict)
    assert advice == (
        "  the largest: activations of an update; set gradient_checkpointing: true, or lower "
        "rl.micro_batch_tokens"
    )
