"""Whisper through the stages: as it is, RL and its control, killed and resumed, decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from deaths import after, killed
from runs import RL, Corpus, outcome
from safetensors.torch import load_file
from tiny_whisper import save_whisper, whisper_config

from audiorl.errors import UserError
from audiorl.models.policy import load_policy
from audiorl.runs.reporter import Reporter
from audiorl.tasks import make_task
from audiorl.tasks.task import Folders, Task
from audiorl.train.rl import train_rl
from audiorl.train.sft import train_sft

KEYS = {"whisper.window": "utterance", "whisper.margin": 0.1}


@pytest.fixture(scope="module")
def start(corpus: Corpus, tmp_path_factory) -> Path:
    """The experiment of stage 3, which takes a tiny Whisper as it is."""
    root = tmp_path_factory.mktemp("whisper")
    save_whisper(root / "hub")
    train_sft(task(corpus, root / "hub"), root / "exp" / "sft")
    return root / "exp" / "sft"


def task(corpus: Corpus, hub: Path, keys: dict | None = None) -> Task:
    config = whisper_config(hub, {**RL, **KEYS, **(keys or {})})
    return make_task(config, Folders(corpus.dump))


def rl(corpus: Corpus, start: Path, out: Path, keys: dict | None = None) -> None:
    train_rl(task(corpus, start.parents[1] / "hub", keys), start, corpus.data, out)


def test_as_it_is(corpus: Corpus, start: Path) -> None:
    tensors = load_file(start / "model" / "model.safetensors")
    original = load_file(start.parents[1] / "hub" / "model.safetensors")
    assert tensors.keys() == original.keys()
    assert all(torch.equal(t, original[n].float()) for n, t in tensors.items())
    assert load_policy(start / "model").settings.whisper.window == "utterance"


@pytest.mark.parametrize("algorithm", ["grpo", "supervised"])
def test_a_killed_run_goes_on_to_the_bit(algorithm, corpus, start, tmp_path) -> None:
    keys = {"rl.algorithm": algorithm, "rl.max_steps": 4, "rl.eval_steps": 2, "rl.save_steps": 2}
    rl(corpus, start, tmp_path / "plain", keys)
    for step in (1, 3):
        death = after(Reporter, "log", lambda self, at, metrics, n=step: at == n)
        killed(lambda: rl(corpus, start, tmp_path / "exp", keys), death)
    rl(corpus, start, tmp_path / "exp", keys)
    plain, resumed = outcome(tmp_path / "plain"), outcome(tmp_path / "exp")
    for name in ("metrics", "completions", "weights", "checkpoints"):
        assert resumed[name] == plain[name], name


def test_only_what_is_to_learn_learns(corpus: Corpus, start: Path, tmp_path: Path) -> None:
    before = load_file(start / "model" / "model.safetensors")
    keys = {"rl.max_steps": 2, "rl.eval_steps": 2, "rl.average": 1}
    for name, parts, beginning in (
        ("llm", ["llm"], "model.decoder.l"),
        ("encoder", ["encoder"], "model.encoder."),
    ):
        rl(corpus, start, tmp_path / name, {**keys, "rl.train": parts})
        weights = tmp_path / name / "checkpoints" / "step_00000002" / "model.safetensors"
        moved = {
            n.removeprefix("hf.")
            for n, t in load_file(weights).items()
            if not torch.equal(t, before[n.removeprefix("hf.")])
        }
        assert moved and all(n.startswith(beginning) for n in moved), name


def test_parts_that_it_does_not_have(corpus: Corpus, start: Path) -> None:
    """Before the warm start, and not behind stage 4."""
    training = task(corpus, start.parents[1] / "hub", {"rl.train": ["adaptor", "llm"]})
    with pytest.raises(UserError, match="adaptor is not a part of whisper; name some of llm"):
        training.warm_start(training.sft_inputs())


def test_audio_longer_than_its_window(corpus: Corpus, tmp_path: Path) -> None:
    training = task(corpus, save_whisper(tmp_path / "hub"))
    inputs = training.sft_inputs()
    inputs["dev"][0] = replace(inputs["dev"][0], duration=2.5)
    with pytest.raises(UserError, match=r"lasts 2\.50 s .*, and a whisper hears 0 to 2 s"):
        training.warm_start(inputs)


def test_rl_data(corpus: Corpus, start: Path, tmp_path: Path) -> None:
    """The probe: greedy and sampled hypotheses, in batches, are what its utterances get alone."""
    hub = start.parents[1] / "hub"
    training = task(corpus, hub, {"data.rl": "train", "rl.num_prompts": 3})
    training.build_rl_set(start, tmp_path / "rl.jsonl")
    assert len((tmp_path / "rl.jsonl").read_text().splitlines()) > 5


def test_the_reference_is_as_it_was(corpus: Corpus, start: Path) -> None:
    policy = load_policy(start / "model")
    reference = policy.reference(["llm"])
    shared = {id(p) for p in policy.parameters()} & {id(p) for p in reference.parameters()}
    own = {id(p) for part in policy.parts(["llm"]) for p in part.parameters()}
    assert shared == {id(p) for p in policy.parameters()} - own
