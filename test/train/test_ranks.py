"""Several processes learn what one learns: equal completions and metrics, and weights to 1e-5."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from forked import forked
from runs import Corpus
from test_rl_synthesis import World
from torch import Tensor

from audiorl.data.rl_set import read_rl_set
from audiorl.engines.native import PolicyEngine
from audiorl.models import learning_tensors
from audiorl.models.policy import Policy, load_policy
from audiorl.rewards import build_rewards
from audiorl.rl.groups import Sampler
from audiorl.rl.prompts import Prompts
from audiorl.runs.optimizer import Optimizers
from audiorl.runtime import ranks, sharding
from audiorl.tasks.task import Task

SHARING: dict[str, dict[str, Any]] = {
    "replicate": {},
    "never": {"parallelism.data_parallel_shard_degree": -1},
    "always": {
        "parallelism.data_parallel_shard_degree": -1,
        "parallelism.fsdp_reshard_after_forward": "always",
    },
}
STEPS = 5
BASE = {
    "rl.max_steps": STEPS,
    "rl.num_iterations": 1,
    "rl.beta": 0.0,
    "rl.learning_rate": 1e-4,
    "rl.num_prompts": 5,
    "rl.micro_batch_tokens": 150,  # so that processes have unequal numbers of passes
}
ASR = {
    "plain": {},
    "kl": {
        "rl.beta": 0.05, "rl.num_iterations": 2, "rl.mini_batch_prompts": 2,
        "rl.share_prefix": "never", "rl.loss_type": "grpo",
    },
    "exact": {
        "rl.beta": 0.05, "rl.kl_estimator": "exact", "rl.importance_sampling_level": "sequence",
        "rl.share_prefix": "always", "rl.dynamic_sample": True, "rl.num_prompts": 4,
    },
    "reward": {
        "rl.beta": 0.05, "rl.kl_in_reward": True, "rl.rollout_correction": "token",
        "rl.baseline": "greedy", "rl.policy_loss": "cispo", "rl.entropy_coef": 0.01,
    },
    "encoder": {
        "rl.train": ["adaptor", "llm", "encoder"], "gradient_checkpointing": True,
        "rl.scale_rewards": "batch", "rl.loss_type": "dr_grpo",
    },
    "supervised": {"rl.algorithm": "supervised"},
}  # fmt: skip
TTS = {
    "both": {"rl.algorithm": "both"},
    "fixed": {"rl.algorithm": "diffro", "diffro.history": "fixed", "rl.beta": 0.05},
}
AT_FOUR = ("exact", "both")


@dataclass
class Learnt:
    """What is left of a few steps."""

    metrics: list[dict[str, float]]
    completions: list[list[tuple]]
    weights: dict[str, Tensor]


def learn(task: Task, init: Path, data: Path, folder: Path) -> Learnt:
    """A few steps of a training, without its folder."""
    config = task.config
    model: Policy = load_policy(init / "model")
    model.llm.gradient_checkpointing = config.gradient_checkpointing
    items = read_rl_set(data, task.texts_alone)
    prompts, utterances = Prompts(items, config), [item.utterance for item in items]
    rewards = build_rewards(config, task.prepare(model, utterances, utterances[:2]))
    reference = model.reference(task.parts) if config.rl.beta else None
    learning = model.train_only(task.parts)
    model.share_weights(config.parallelism)
    optimizer = Optimizers(learning, config.rl.learning_rate, 0.0, model=model)
    sampler = Sampler(PolicyEngine(model), config.rl, config.seed)
    learner = task.learner(sampler, reference, rewards, optimizer, prompts, folder)
    learnt = Learnt([], [], {})
    for step in range(STEPS):
        output = learner.step(step, prompts.draw(step), 1.0)
        prompts.learn(output.spreads)
        learnt.metrics.append(
            {k: v for k, v in output.metrics.items() if not k.startswith(("timing_s", "perf"))}
        )
        said = [(c["id"], c["completion"], c["finished"]) for c in output.completions]
        learnt.completions.append(said)
    tensors = learning_tensors(model)
    learnt.weights = {name: sharding.full(t).detach().clone() for name, t in tensors.items()}
    return learnt


@pytest.fixture(scope="module")
def cases(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that trains a case by its name, and how weights are kept."""
    root = tmp_path_factory.mktemp("ranks")
    world = World(root / "world")

    def case(name: str, kept: str) -> Learnt:
        if name in ASR:
            keys = {**BASE, **ASR[name], **SHARING[kept]}
            return learn(corpus.task(keys), corpus.init, corpus.data, root)
        keys = {**BASE, "rl.num_prompts": 4, **TTS[name], **SHARING[kept], "rl.early_stop": "never"}
        return learn(world.task(keys), world.exp / "sft", world.data, root)

    return case


@pytest.fixture(scope="module")
def one(cases: Any) -> dict[str, Learnt]:
    return {name: cases(name, "replicate") for name in (*ASR, *TTS)}


def all_of(cases: Any, names: tuple[str, ...]) -> dict[str, Learnt]:
    found = {f"{name}-{kept}": cases(name, kept) for name in names for kept in SHARING}
    return found if ranks.is_main() else {}


def agree(found: dict[str, Learnt], one: dict[str, Learnt]) -> None:
    for name, learnt in found.items():
        expected = one[name.partition("-")[0]]
        assert learnt.completions == expected.completions, name
        for ours, theirs in zip(learnt.metrics, expected.metrics, strict=True):
            assert ours == pytest.approx(theirs, abs=2e-6, rel=2e-5, nan_ok=True), name
        assert learnt.weights.keys() == expected.weights.keys()
        for key, value in learnt.weights.items():
            assert (value - expected.weights[key]).abs().max() <= 1e-5, f"{name}: {key}"


def test_two_processes_learn_what_one_learns(cases: Any, one: dict[str, Learnt]) -> None:
    found, _ = forked(2, lambda: all_of(cases, (*ASR, *TTS)))
    assert len(found) == len(SHARING) * len(ASR | TTS)
    agree(found, one)


def test_four_processes_learn_what_one_learns(cases: Any, one: dict[str, Learnt]) -> None:
    found, *_ = forked(4, lambda: all_of(cases, AT_FOUR))
    agree(found, one)
