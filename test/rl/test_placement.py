"""What waits on the host, phase by phase; steps are the same as with all in one place."""

from __future__ import annotations

import pytest
import torch
from steps import learner, learning_model, step_prompts
from torch import nn

from audiorl.engines.native import PolicyEngine
from audiorl.rl.groups import Sampler
from audiorl.rl.placement import EVALUATION, Placement
from audiorl.runs.optimizer import Optimizers


class Sleeper(PolicyEngine):
    """Stands for an engine in another process, with memory of its own."""

    exact = False
    is_awake = True
    placement: Placement | None = None

    def generate(self, prefix, **options):
        assert self.is_awake
        if self.placement:
            self.away = {name for name, part in self.placement.parts.items() if part.is_away}
        return super().generate(prefix, **options)

    def sleep(self) -> None:
        self.is_awake = False

    def wake(self) -> None:
        self.is_awake = True


def two_steps(utterances, alternate: bool, dtype: str = "float32"):
    model = learning_model({"llm.dtype": dtype})
    optimizer = Optimizers([model.adaptor, model.llm], 1e-2, 0.0)
    engine, rewards = Sleeper(model), [nn.Linear(3, 3)]
    if alternate:
        engine.placement = Placement(engine, None, optimizer, rewards, False)
    sampler = Sampler(engine, model.recipe.rl, 1, engine.placement)
    grpo = learner(model, optimizer=optimizer, own=sampler)
    outputs = [grpo.step(step, step_prompts(utterances, 3, 1, step), 1.0) for step in range(2)]
    return engine, optimizer, outputs


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_are_the_same(utterances, dtype: str) -> None:
    one, _, plain = two_steps(utterances, alternate=False, dtype=dtype)
    other, optimizer, placed = two_steps(utterances, alternate=True, dtype=dtype)
    assert other.away == {"policy", "optimizer", "rewards"}  # while responses are sampled
    assert not other.is_awake
    for a, b in zip(one.policy.parameters(), other.policy.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [o.completions for o in placed] == [o.completions for o in plain]
    assert all(0 < o.metrics["timing_s/switching"] < o.metrics["timing_s/step"] for o in placed)
    assert not any("timing_s/switching" in o.metrics for o in plain)
    moments = 2 * len(optimizer.parameters)
    assert len(optimizer.tensors()) == moments + len(optimizer.masters)
    assert bool(optimizer.masters) == (dtype == "bfloat16")


def test_evaluations_have_all_but_the_optimizer(utterances) -> None:
    engine, _, _ = two_steps(utterances, alternate=True)
    engine.placement.enter(EVALUATION)
    assert [name for name, part in engine.placement.parts.items() if part.is_away] == ["optimizer"]
    assert engine.is_awake
