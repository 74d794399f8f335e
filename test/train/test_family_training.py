"""A pretrained audio LLM through stages 3 and 5 with adapters, bf16 and recomputed layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from deaths import after, killed
from runs import RL, Corpus, outcome
from tiny import SIZES, set_keys
from tiny_families import save_family

from audiorl.config.schema import Config
from audiorl.models import read_weights
from audiorl.models.lora import is_adapter
from audiorl.models.policy import load_policy
from audiorl.runs.reporter import Reporter
from audiorl.tasks import make_task
from audiorl.tasks.task import Folders, Task
from audiorl.train.rl import train_rl
from audiorl.train.sft import train_sft

SECTIONS = ("device", "num_threads", "rl.", "decode.", "score.")
KEYS = {
    **RL,
    "rl.max_steps": 3,
    "rl.save_steps": 1,
    "rl.eval_steps": 3,
    "rl.num_prompts": 2,
    "rl.average": 5,
    "sft.schedule.max_steps": 0,
}
WAYS: dict[str, dict[str, Any]] = {
    "in full": {},
    "adapters": {
        "lora.rank": 4,
        "lora.merge": False,
        "llm.dtype": "bfloat16",
        "gradient_checkpointing": True,
    },
}


def task(corpus: Corpus, hub: Path, keys: dict[str, Any]) -> Task:
    config = Config()
    sizes = {k: v for k, v in SIZES.items() if k.startswith(SECTIONS)}
    set_keys(config, {**sizes, **KEYS, "model.pretrained": str(hub), **keys})
    return make_task(config, Folders(corpus.dump))


@pytest.mark.parametrize("way", WAYS)
def test_its_adaptor_and_lm_learn(way: str, corpus: Corpus, tmp_path: Path) -> None:
    """Audio is read again behind the adaptor; a killed run goes on to the bit."""
    hub, start = tmp_path / "hub", tmp_path / "sft"
    save_family("qwen2_audio", hub)
    training = task(corpus, hub, WAYS[way])
    train_sft(training, start)

    def run(name: str) -> None:
        train_rl(task(corpus, hub, WAYS[way]), start, corpus.data, tmp_path / name)

    run("plain")
    dies = after(Reporter, "log", lambda self, step, metrics: step == 2 and "loss" in metrics)
    killed(lambda: run("exp"), dies)
    run("exp")
    assert outcome(tmp_path / "exp") == outcome(tmp_path / "plain")

    before, model = (load_policy(tmp_path / name / "model") for name in ("sft", "exp"))
    last = read_weights(tmp_path / "exp" / "checkpoints" / "step_00000003" / "model.safetensors")
    parameters, names = dict(model.named_parameters()), dict(before.named_parameters())
    learnt = {name for name in last if name in parameters}
    adaptor = {id(p) for part in model.part("adaptor") for p in part.parameters()}
    lm = {id(p) for part in model.part("llm") for p in part.parameters()}
    own = {name for name in learnt if id(parameters[name]) in adaptor}
    assert own and not any(torch.equal(last[name], names[name].float()) for name in own)
    assert all(id(parameters[name]) in adaptor | lm for name in learnt)
    assert {tensor.dtype for name, tensor in last.items() if name in learnt} == {torch.float32}
    if way == "adapters":
        assert all(map(is_adapter, learnt - own)) and model.lora.rank == 4
    else:
        assert len(learnt) == sum(1 for p in set(parameters.values()) if id(p) in adaptor | lm)
