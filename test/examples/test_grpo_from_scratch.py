"""examples/grpo_from_scratch.py: the same step as the package's, and a run of it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from tiny import sampler, sentences, tiny_model, write_set

from audiorl.models.policy import load_policy
from audiorl.rewards import WeightedSum
from audiorl.rl.frames import FrameStore
from audiorl.rl.groups import read_text
from audiorl.rl.grpo import GRPO

PATH = Path(__file__).resolve().parents[2] / "examples" / "grpo_from_scratch.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("grpo_from_scratch", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Gradients:
    """Stands for the package's optimizer, and keeps the gradients."""

    def __init__(self, model) -> None:
        self.model = model

    def zero_grad(self) -> None:
        self.model.zero_grad()

    def step(self, *_) -> float:
        self.found = {
            n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None
        }
        return 0.0


def test_it_is_short() -> None:
    assert len(PATH.read_text().splitlines()) <= 300


def test_its_gradient_is_that_of_the_package(example, tmp_path: Path) -> None:
    utterances = write_set(tmp_path / "rl", sentences(5, seed=4))
    keys = {"rl.num_prompts": 5, "rl.loss_type": "grpo", "rl.temperature": 0.6}
    settings = example.Settings(prompts=5, group=4, max_length=8, micro_batch=2)
    theirs, ours = (tiny_model(keys, spread=3.0) for _ in range(2))
    for model in (theirs, ours):
        model.train_only(["adaptor", "llm"])

    def rewards(samples) -> list[float]:
        return [example.reward(s.utterance.text, s.text) for s in samples]

    gradients = Gradients(theirs)
    frames, read = FrameStore(theirs, frozen=True), read_text(theirs.tokenizer)
    terms = WeightedSum({"wer": (rewards, 1.0)})
    output = GRPO(sampler(theirs), None, terms, gradients, frames, read).step(0, utterances, 1.0)

    encoded = example.Frames(ours)(utterances)
    rollout = example.roll_out(ours, encoded, [u.id for u in utterances], 0, settings)
    texts = example.texts_of(ours, rollout)
    assert texts == [line["completion"] for line in output.completions]
    references = [u.text for u in utterances for _ in range(4)]
    earned = torch.tensor(list(map(example.reward, references, texts))).view(5, 4)
    optimizer = torch.optim.SGD([p for p in ours.parameters() if p.requires_grad], 0.0)
    loss = example.update(ours, optimizer, encoded, rollout, example.advantages(earned), settings)
    assert loss == pytest.approx(output.metrics["loss"], abs=1e-5)
    largest = max(g.abs().max().item() for g in gradients.found.values())
    assert largest > 0
    norm = torch.cat([g.flatten() for g in gradients.found.values()]).norm().item()
    clipped = min(1.0, settings.max_grad_norm / norm)  # the example has clipped, the package not
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            expected = clipped * gradients.found[name]
            torch.testing.assert_close(parameter.grad, expected, rtol=0, atol=1e-4 * largest)


def test_it_runs_and_leaves_a_model(example, tmp_path: Path, monkeypatch, capsys) -> None:
    write_set(tmp_path / "dump" / "rl", sentences(6, seed=5))
    write_set(tmp_path / "dump" / "test", sentences(4, seed=6))
    tiny_model(spread=3.0).save(tmp_path / "sft" / "model")
    command = f"x --init {tmp_path}/sft --dump {tmp_path}/dump --test test --steps 2 --prompts 3"
    monkeypatch.setattr(sys, "argv", [*command.split(), "--out", str(tmp_path / "grpo")])
    example.main()
    shown = capsys.readouterr().out
    assert "step   2  reward" in shown
    assert "points [" in shown and "on 4 utterances" in shown
    trained, start = (load_policy(tmp_path / name / "model") for name in ("grpo", "sft"))
    assert not torch.equal(trained.llm.lm_head.weight, start.llm.lm_head.weight)
    for name in ("encoder", "frontend"):
        one, other = getattr(trained, name).state_dict(), getattr(start, name).state_dict()
        assert all(torch.equal(one[key], other[key]) for key in one)
