"""Adapters in training: what learns, what is kept of it, and that a killed run goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from deaths import after, killed
from pretrained_llm import save_pretrained_llm
from runs import Corpus, lines, outcome
from tiny import sing, tiny_model
from torch import Tensor

from audiorl.errors import UserError
from audiorl.infer.decode import Transcriber
from audiorl.models import read_weights
from audiorl.models.language_model import LanguageModel
from audiorl.models.lora import is_adapter, merge_adapters
from audiorl.models.policy import Policy, load_policy
from audiorl.runs.reporter import Reporter
from audiorl.train.rl import train_rl

KEYS = {
    "lora.rank": 4,
    "rl.max_steps": 5,
    "rl.save_steps": 2,
    "rl.learning_rate": 1e-2,
    "rl.average": 5,
}
WAVES = [torch.from_numpy(sing(text)) for text in ("ba do", "ki lu me no")]


@torch.no_grad()
def outputs(policy: Policy) -> Tensor:
    tokens, _ = policy.responses(["ba do", "ki"])
    states = policy.llm.response_states(policy.prefix(policy.encode(WAVES)), tokens, share=False)
    return policy.llm.logits(states)


def rl(corpus: Corpus, init: Path, out: Path, keys: dict[str, Any] | None = None) -> None:
    train_rl(corpus.task({**KEYS, **(keys or {})}), init, corpus.data, out)


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A warm start with an LM in bf16."""
    folder = tmp_path_factory.mktemp("half")
    tiny_model({"llm.dtype": "bfloat16"}, spread=3.0).save(folder / "model")
    return folder


def test_a_run_keeps_what_learns_and_goes_on_to_the_bit(corpus, half, tmp_path) -> None:
    """fp32 adapters over a bf16 LM, and the adaptor in full; the KL is to the start."""
    keys = {"lora.merge": False}
    rl(corpus, half, tmp_path / "plain", keys)
    dies = after(Reporter, "log", lambda self, step, metrics: step == 4 and "loss" in metrics)
    killed(lambda: rl(corpus, half, tmp_path / "exp", keys), dies)
    rl(corpus, half, tmp_path / "exp", keys)
    assert outcome(tmp_path / "exp") == outcome(tmp_path / "plain")
    first = next(line for line in lines(tmp_path / "exp" / "metrics.jsonl") if "kl" in line)
    assert first["kl"] < 1e-2

    start = load_policy(half / "model")
    whole = dict(start.named_parameters())
    saved = read_weights(tmp_path / "exp" / "checkpoints" / "step_00000005" / "model.safetensors")
    best = next((tmp_path / "exp" / "checkpoints").glob("best_*"))
    model = read_weights(tmp_path / "exp" / "model" / "model.safetensors")
    assert saved.keys() == model.keys() == read_weights(best).keys()
    learnt = saved.keys() - {name for name, _ in start.named_buffers()}
    adaptor = {name for name in whole if name.startswith("adaptor.")}
    assert {name for name in learnt if not is_adapter(name)} == adaptor
    assert {saved[name].dtype for name in learnt} == {torch.float32}
    assert all(saved[name].any() for name in learnt if ".lora_B." in name)
    assert not any(torch.equal(saved[name], whole[name]) for name in adaptor)


def test_merged_or_not_it_is_the_same_model(corpus: Corpus, tmp_path: Path) -> None:
    """Also where RL begins with adapters: the same ones go on learning, others are new."""
    rl(corpus, corpus.init, tmp_path / "merged")
    rl(corpus, corpus.init, tmp_path / "alone", {"lora.merge": False})
    merged, alone = (load_policy(tmp_path / name / "model") for name in ("merged", "alone"))
    start = outputs(load_policy(corpus.init / "model"))
    assert merged.lora is None and alone.lora.rank == 4
    assert (outputs(alone) - start).abs().max() > 0.01
    torch.testing.assert_close(outputs(merged), outputs(alone), rtol=0, atol=1e-4)
    assert not (tmp_path / "merged" / "model" / "adapter_config.json").exists()

    for rank in (4, 2):
        keys = {"lora.merge": False, "lora.rank": rank, "rl.max_steps": 2}
        rl(corpus, tmp_path / "alone", tmp_path / f"again{rank}", keys)
        again = load_policy(tmp_path / f"again{rank}" / "model")
        stored = read_weights(tmp_path / f"again{rank}" / "model" / "model.safetensors")
        assert (
            again.lora.rank
            == rank
            == min(t.size(0) for name, t in stored.items() if ".lora_A." in name)
        )
        merge_adapters(again)
        assert (outputs(again) - start).abs().max() > 0.01


def test_another_model_below_adapters_is_another_model(corpus: Corpus, tmp_path: Path) -> None:
    """Decoding, packing and training go by the files of both."""
    init, alone = tmp_path / "init", tmp_path / "alone"
    shutil.copytree(corpus.init, init)
    rl(corpus, init, alone, {"lora.merge": False, "rl.max_steps": 2})
    decoder = Transcriber(corpus.rl_config({}))
    before = decoder.stamp(alone, corpus.dump / "dev", tmp_path / "decoded")
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "text").touch()
    before.write()
    again = decoder.stamp(alone, corpus.dump / "dev", tmp_path / "decoded")
    assert again.is_current()
    rl(corpus, alone, tmp_path / "further", {"rl.max_steps": 2})
    other = tiny_model(seed=9)
    other.save(init / "model")
    again = decoder.stamp(alone, corpus.dump / "dev", tmp_path / "decoded")
    assert not again.is_current()
    with pytest.raises(UserError, match="init/base"):
        rl(corpus, alone, tmp_path / "further", {"rl.max_steps": 3})


def test_a_run_goes_on_with_its_adapters_alone(corpus: Corpus, tmp_path: Path) -> None:
    rl(corpus, corpus.init, tmp_path)
    with pytest.raises(UserError, match=r"another config \(lora\.rank: 4 -> 8\)"):
        rl(corpus, corpus.init, tmp_path, {"lora.rank": 8})
    rl(corpus, corpus.init, tmp_path, {"lora.merge": False})
    assert load_policy(tmp_path / "model").lora is None  # it was finished
    rl(corpus, corpus.init, tmp_path, {"lora.merge": False, "rl.max_steps": 6})
    assert load_policy(tmp_path / "model").lora.rank == 4
    rl(corpus, corpus.init, tmp_path, {"rl.max_steps": 7})
    assert load_policy(tmp_path / "model").lora is None


def test_a_warm_start_of_a_pretrained_llm(corpus: Corpus, tmp_path: Path) -> None:
    """The LM learns through adapters, which are merged; what is new learns in full."""
    save_pretrained_llm(tmp_path / "hub", "llama")
    keys = {
        "tokenizer.type": "pretrained",
        "llm.pretrained": str(tmp_path / "hub"),
        "lora.rank": 4,
        "lora.dropout": 0.2,
        "rl.train": ["adaptor", "llm", "encoder"],
        "lora.targets": ["llm.q_proj", "llm.v_proj", "encoder"],
        "sft.schedule.max_steps": 4,
        "sft.schedule.save_steps": 2,
        "sft.schedule.eval_steps": 2,
        "sft.ctc_steps": 0,
    }
    dies = after(Reporter, "log", lambda self, step, metrics: step == 3 and "loss" in metrics)
    killed(lambda: corpus.sft(tmp_path / "exp", keys), dies)
    corpus.sft(tmp_path / "exp", keys)
    corpus.sft(tmp_path / "plain", keys)
    assert outcome(tmp_path / "exp") == outcome(tmp_path / "plain")
    saved = read_weights(tmp_path / "exp" / "checkpoints" / "step_00000004" / "model.safetensors")
    assert all(is_adapter(name) for name in saved if name.startswith("llm."))
    assert not any(is_adapter(name) for name in saved if name.startswith("encoder."))
    hub = read_weights(tmp_path / "hub" / "model.safetensors")
    model = read_weights(tmp_path / "exp" / "model" / "model.safetensors")
    assert load_policy(tmp_path / "exp" / "model").lora is None
    changed = {n for n in hub if not torch.equal(hub[n], model[f"llm.{n}"])}
    assert changed == {n for n in hub if "q_proj" in n or "v_proj" in n}


@pytest.mark.parametrize("stage", ["sft", "rl"])
def test_the_key_reaches_the_lm(stage: str, corpus: Corpus, tmp_path, monkeypatch) -> None:
    """A run may go on with it, whose losses are those without but for rounding."""
    keys = {"sft.schedule.max_steps": 2, "rl.max_steps": 2, "sft.ctc_steps": 0, "llm.dropout": 0.1}
    kept = []
    recomputed = LanguageModel._recomputed

    def watching(lm: LanguageModel):
        kept.append(lm.gradient_checkpointing)
        return recomputed(lm)

    monkeypatch.setattr(LanguageModel, "_recomputed", watching)
    losses = []
    for value in (True, False):
        kept.clear()
        out = tmp_path / str(value)
        getattr(corpus, stage)(out, {**keys, "gradient_checkpointing": value})
        assert set(kept) <= {value}
        losses.append([m["loss"] for m in lines(out / "metrics.jsonl") if "loss" in m])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-4)
    getattr(corpus, stage)(tmp_path / "True", {**keys, "gradient_checkpointing": False})
