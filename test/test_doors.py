"""A reward, a policy family and an engine of the user, each one file, in a run from a YAML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny import SIZES, sentences, write_set

ROOT = Path(__file__).resolve().parents[1]
REWARD = '''
from audiorl.config.rewards import RewardOptions
from audiorl.rewards import Reward


class Options(RewardOptions):
    """None beyond those of every reward."""


def build(options, context):
    return Reward(lambda samples: [1 / (1 + len(s.text)) for s in samples])
'''
FAMILY = '''
from audiorl.models.audio_llm import AudioLLM


class Family(AudioLLM):
    """Hears everything twice as loud."""

    family = "loud"

    def encode(self, inputs):
        return super().encode([2 * wave for wave in inputs])
'''
ENGINE = '''
from pathlib import Path

from audiorl.engines.native import PolicyEngine as Native


class PolicyEngine(Native):
    """Writes down its calls."""

    def generate(self, prefix, **options):
        self.note("generate")
        return super().generate(prefix, **options)

    def sync(self):
        self.note("sync")

    def note(self, call):
        with Path(__file__).with_name("calls.txt").open("a") as stream:
            stream.write(f"{type(self.policy).family} {call}\\n")
'''
KEYS = {
    "data.test": ["test"],
    "model.family": "loud",
    "sft.schedule.max_steps": 4,
    "sft.batch_seconds": 2,
    "sft.schedule.gradient_accumulation_steps": 1,
    "sft.ctc_steps": 1,
    "sft.schedule.warmup_steps": 1,
    "sft.schedule.eval_steps": 4,
    "sft.schedule.average": 1,
    "rl_data.drop_flat": False,
    "rl.engine": "noted",
    "decode.engine": "noted",
    "rl.rewards": [{"name": "wer"}, {"name": "brevity", "weight": 0.5}],
    "rl.max_steps": 2,
    "rl.num_prompts": 2,
    "rl.num_generations": 2,
    "rl.warmup_steps": 1,
    "rl.eval_steps": 2,
    "score.bootstrap_samples": 100,
}


def recipe(folder: Path, keys: dict) -> Path:
    sections: dict = {}
    for path, value in {**SIZES, **KEYS, **keys}.items():
        *above, name = path.split(".")
        section = sections
        for part in above:
            section = section.setdefault(part, {})
        section[name] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(sections))
    return path


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for path, text in (
        ("rewards/brevity.py", REWARD),
        ("families/loud.py", FAMILY),
        ("engines/noted.py", ENGINE),
    ):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_text(text)
    return folder


def command(folder: Path, module: str, *arguments: object) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "AUDIORL_PLUGINS": str(folder / "mine")}
    words = [sys.executable, "-m", f"audiorl.bin.{module}", *map(str, arguments)]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True)


def test_stages_3_to_7(plugins: Path, tmp_path: Path) -> None:
    for seed, (name, count) in enumerate([("train", 14), ("dev", 3), ("test", 3)]):
        write_set(tmp_path / "dump" / name, sentences(count, seed=seed, longest=3))
    where = ["--config", recipe(tmp_path, {}), "--dump", "dump"]
    rl_set, start = ["exp/rl/train.jsonl"], ["--init", "exp/sft"]
    for module, *arguments in (
        ["check_config", tmp_path / "recipe.yaml"],
        ["train_sft", *where, "--out", "exp/sft"],
        ["build_rl_data", *where, *start, "--out", *rl_set],
        ["train_rl", *where, *start, "--data", *rl_set, "--out", "exp/grpo"],
        ["decode", *where, "exp/sft", "exp/grpo"],
        ["score", *where, "exp/sft", "exp/grpo"],
    ):
        done = command(tmp_path, module, *arguments)
        assert done.returncode == 0, done.stderr[-4000:]
    for system in ("sft", "grpo"):
        assert "family: loud" in (tmp_path / "exp" / system / "model/config.yaml").read_text()
        decoded = tmp_path / "exp" / system / "decode_greedy" / "test"
        assert json.loads((decoded / "result.json").read_text())["utterances"] == 3
        assert json.loads((decoded / "decode.json").read_text())["settings"]["engine"] == "noted"
    metrics = [json.loads(line) for line in (tmp_path / "exp/grpo/metrics.jsonl").open()]
    name = "rewards/brevity/mean"
    rewarded = [line[name] for line in metrics if name in line]
    assert len(rewarded) == 2 and min(rewarded) > 0
    calls = (plugins / "engines" / "calls.txt").read_text().split("\n")
    assert set(calls[:-1]) == {"loud generate", "loud sync"} and calls.count("loud sync") >= 2


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("model.family", "lout", "model.family: there is no lout; set audio_llm, or put yours"),
        ("model.family", "speech_lm", "model.family: there is no speech_lm; set audio_llm"),
        (
            "rl.engine",
            "vlm",
            "rl.engine: there is no vlm; set native, or put yours into",
        ),
        ("decode.engine", "vlm", "decode.engine: there is no vlm; set native, or put yours into"),
        ("rl.engine", "sampling", "rl.engine: there is no sampling; set native"),
    ],
)
def test_unknown_names_are_refused(
    plugins: Path, tmp_path: Path, key: str, value: str, sentence: str
) -> None:
    done = command(tmp_path, "check_config", recipe(tmp_path, {key: value}))
    assert done.returncode == 1 and sentence in done.stderr
