"""The gap to a foreign engine: in the log while it is rounding, the end of the run when not."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from steps import learner, learning_model, step_prompts

from audiorl.engines.foreign import ForeignEngine
from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError
from audiorl.rl.groups import Sampler
from audiorl.rl.mismatch import Mismatch, MismatchLimit
from audiorl.runs.optimizer import Optimizers

GAP = "sampling/sampling_logp_difference"


class FakeEngine(ForeignEngine):
    name = "fake"
    script = Path(__file__).resolve().parents[1] / "engines" / "fake_worker.py"


@pytest.fixture(scope="module")
def engine() -> Iterator[ForeignEngine]:
    model = learning_model({"rl.temperature": 0.7, "rl.engine_python": sys.executable})
    with FakeEngine(model, model.recipe.rl) as engine:
        yield engine


def two_steps(engine: ForeignEngine, utterances, defect: str = "", between=None) -> list[dict]:
    """Metrics of two steps on the same prompts; the defect begins before the first update."""
    model = engine.policy
    # A prefix is known again where its embeddings do not learn.
    learning = [model.llm.model.layers] if defect == "cache" else [model.adaptor, model.llm]
    optimizer = Optimizers(learning, 3e-2, 0.0)
    grpo = learner(model, optimizer=optimizer, own=Sampler(engine, model.recipe.rl, 1))
    prompts = step_prompts(utterances, 3, 1, 0)
    engine.link.call("become", defect="")
    engine.sync()
    engine.link.call("become", defect=defect)
    first = grpo.step(0, prompts, 1.0).metrics
    if between:
        between()
    return [first, grpo.step(1, prompts, 1.0).metrics]


def test_rounding_is_logged(engine: ForeignEngine, utterances) -> None:
    for metrics in two_steps(engine, utterances):
        assert 0 < metrics[f"{GAP}/mean"] <= metrics[f"{GAP}/max"] < 1e-4
        # Tokens are weighed by default.
        assert metrics["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4)


def test_a_sync_that_is_left_out(engine: ForeignEngine, utterances, monkeypatch) -> None:
    monkeypatch.setattr(engine, "sync", lambda: None)
    with pytest.raises(UserError, match=r"step 2: .* an update was not followed by sync"):
        two_steps(engine, utterances, between=monkeypatch.undo)


@pytest.mark.parametrize(
    ("defect", "sentence"),
    [
        ("head", "step 2: .* the head, which is tied to the embeddings, kept former ones"),
        ("cache", "step 2: .* its prefix cache has to be dropped in sync"),
        ("raw", "step 1: .* of the raw logits, without temperature, .* processed_logprobs"),
    ],
)
def test_known_defects(engine: ForeignEngine, utterances, defect: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        two_steps(engine, utterances, defect)


def seen(*gaps: float) -> Mismatch:
    found = Mismatch()
    found.add(torch.tensor([gaps]), torch.zeros(1, len(gaps)), torch.tensor([[True] * len(gaps)]))
    return found


def test_mean_and_largest() -> None:
    found = seen(0.0, -3.0)
    found.add(torch.full((1, 2), 1.0), torch.zeros(1, 2), torch.tensor([[True, False]]))
    assert found.metrics() == {f"{GAP}/mean": pytest.approx(4 / 3), f"{GAP}/max": 3.0}
    assert Mismatch().metrics() == {}


@pytest.mark.parametrize(
    ("dtype", "gaps", "fails"),
    [
        (torch.float32, [9e-4, 9e-4], None),
        (torch.float32, [2e-3], 0),
        (torch.float32, [math.nan], 0),
        (torch.bfloat16, [0.02, 0.07, 0.09], 2),  # four times the first
        (torch.bfloat16, [0.2], 0),
    ],
)
def test_limits(dtype: torch.dtype, gaps: list[float], fails: int | None, monkeypatch) -> None:
    head = SimpleNamespace(weight=torch.zeros(1, dtype=dtype))
    policy = SimpleNamespace(llm=SimpleNamespace(lm_head=head))
    limit = MismatchLimit(SimpleNamespace(policy=policy), Sampling())
    monkeypatch.setattr(limit, "_cause", lambda *_: "why")
    for step, gap in enumerate(gaps):
        if step == fails:
            with pytest.raises(UserError, match=f"step {step + 1}: .*; why"):
                limit.check(step, seen(gap), lambda: None, None)
            return
        limit.check(step, seen(gap), lambda: None, None)
    assert fails is None
