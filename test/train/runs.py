"""Training runs on a tiny sung corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import sentences, tiny_config, tiny_model, write_set

from audiorl.config.schema import Config
from audiorl.data.utterance import write_utterances_jsonl
from audiorl.tasks import make_task
from audiorl.tasks.task import Folders, Task
from audiorl.train.rl import train_rl
from audiorl.train.sft import train_sft

SFT = {
    "sft.schedule.max_steps": 10,
    "sft.batch_seconds": 1.5,
    "sft.schedule.gradient_accumulation_steps": 2,
    "sft.schedule.learning_rate": 5e-3,
    "sft.schedule.muon_learning_rate": 5e-3,
    "sft.schedule.warmup_steps": 3,
    "sft.ctc_steps": 2,
    "sft.schedule.eval_steps": 4,
    "sft.schedule.save_steps": 3,
    "sft.schedule.logging_steps": 1,
    "sft.schedule.average": 2,
    "llm.dropout": 0.1,
}
RL = {
    "rl.max_steps": 8,
    "rl.num_prompts": 4,
    "rl.learning_rate": 1e-2,
    "rl.eval_steps": 4,
    "rl.save_steps": 3,
    "rl.num_iterations": 2,
    "rl.beta": 0.01,
}


class Corpus:
    """A folder with dump/{train,dev}, dump/rl.jsonl and the warm start exp/sft."""

    def __init__(self, root: Path) -> None:
        self.dump = root / "dump"
        self.data = self.dump / "rl.jsonl"
        self.init = root / "exp" / "sft"
        write_set(self.dump / "train", sentences(14, seed=21, longest=3))
        write_set(self.dump / "dev", sentences(3, seed=22))
        # Fewer utterances than two steps take: they come again, in other company.
        write_utterances_jsonl(self.data, write_set(self.dump / "rl", sentences(6, seed=23)))
        tiny_model(spread=3.0).save(self.init / "model")

    def sft(self, out: Path, keys: dict[str, Any] | None = None) -> None:
        config = tiny_config({**SFT, **(keys or {})})
        train_sft(make_task(config, Folders(self.dump)), out)

    def rl(self, out: Path, keys: dict[str, Any] | None = None) -> None:
        train_rl(self.task(keys), self.init, self.data, out)

    def task(self, keys: dict[str, Any] | None = None) -> Task:
        return make_task(self.rl_config(keys), Folders(self.dump))

    @staticmethod
    def rl_config(keys: dict[str, Any] | None = None) -> Config:
        return tiny_config({**RL, **(keys or {})})


def lines(path: Path) -> list[dict]:
    """What a .jsonl file holds, without seconds and memory."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    noisy = ("timing_s", "perf")
    return [{k: v for k, v in line.items() if not k.startswith(noisy)} for line in found]


def outcome(exp: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on how it went."""
    return {
        "weights": (exp / "model" / "model.safetensors").read_bytes(),
        "metrics": lines(exp / "metrics.jsonl"),
        "completions": lines(exp / "completions.jsonl"),
        "checkpoints": sorted(p.name for p in (exp / "checkpoints").iterdir()),
    }
