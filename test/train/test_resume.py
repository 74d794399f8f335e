"""A run that was killed ends as one that was not: the same weights to the bit, each line once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from deaths import after, before, killed
from runs import RL, SFT, Corpus, lines, outcome
from safetensors.torch import load, load_file
from tiny import tiny_config, tiny_model

from audiorl.config import dump_config
from audiorl.data.utterance import read_utterances, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.models.policy import Policy
from audiorl.rewards.core.workers import RewardWorkers
from audiorl.rl.grpo import GRPO
from audiorl.rl.supervised import Continued
from audiorl.runs import checkpoint
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.runs.reporter import Reporter
from audiorl.tasks import recognition as recognition
from audiorl.train import rl as train_rl_module
from audiorl.train.rl import train_rl

# Two subsets that share an utterance; curriculum and reweight read the difficulty.
ORDERS = {
    "mixture": {"rl.prompt_order": "shuffle"},
    "curriculum": {"rl.prompt_order": "curriculum"},
    "reweight": {"rl.prompt_order": "reweight", "rl.dynamic_sample": True},
}


def mixture(corpus: Corpus, folder: Path) -> Path:
    """The RL set in two subsets of four and three utterances."""
    utterances, extras = read_utterances(corpus.data), {}
    for i, u in enumerate(utterances):
        weights = {"a": 1.5} if i < 3 else {"a": 1.5, "b": 1.0} if i == 3 else {"b": 1.0}
        extras[u.id] = {
            "subsets": {name: {"weight": w, "reason": ""} for name, w in weights.items()},
            "difficulty": {"reward_mean": i / 10, "reward_std": 0.1 + i / 10},
        }
    write_utterances_jsonl(folder / "mixture.jsonl", utterances, extras)
    return folder / "mixture.jsonl"


@pytest.fixture(scope="session")
def undisturbed(corpus: Corpus, tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Outcomes of runs that nothing interrupts."""
    root = tmp_path_factory.mktemp("undisturbed")
    corpus.sft(root / "sft")
    corpus.rl(root / "grpo")
    corpus.rl(root / "supervised", {"rl.algorithm": "supervised"})
    return {folder.name: outcome(folder) for folder in root.iterdir()}


def same(exp: Path, expected: dict[str, Any]) -> None:
    actual = outcome(exp)
    assert actual["metrics"] == expected["metrics"]
    assert actual["completions"] == expected["completions"]
    assert actual["weights"] == expected["weights"]
    assert actual["checkpoints"] == expected["checkpoints"]


def logged(step: int, key: str = "loss"):
    """After the line of a step, before whatever comes next."""
    return after(Reporter, "log", lambda self, at, metrics: at == step and key in metrics)


def writing_checkpoint(step: int):
    """With the weights of a checkpoint on disk, and the optimizer not yet."""
    return before(checkpoint.torch, "save", lambda value, stream: value["step"] == step)


SFT_DEATHS = {
    "before the first checkpoint": logged(2),
    "between checkpoints": logged(8),
    "in an evaluation": before(recognition, "evaluate", lambda *_: True),
    "after an evaluation": after(BestWeights, "offer", lambda self, step, *_: step == 8),
    "in the first checkpoint": writing_checkpoint(3),
    "in a later checkpoint": writing_checkpoint(9),
    "after a checkpoint": after(Checkpoints, "save", lambda self, step, *_: step == 6),
    "after the last checkpoint": after(Checkpoints, "save", lambda self, step, *_: step == 10),
    "before the model": before(Policy, "save", lambda *_: True),
    "in the model": before(
        sys.modules["audiorl.models.settings"],
        "save_weights",
        lambda model, path: path.parent.name == "model",
    ),
}
RL_DEATHS = {
    "before the first step": after(BestWeights, "offer", lambda self, step, *_: step == 0),
    "before the first checkpoint": logged(2),
    "between checkpoints": logged(5),
    "between lines of completions": after(
        Reporter, "completions", lambda self, step, given: step == 6
    ),
    "in an evaluation": before(
        recognition, "evaluate", lambda engine, dev, config, step, *_: step == 8
    ),
    "in a checkpoint": writing_checkpoint(6),
    "after the last checkpoint": after(Checkpoints, "save", lambda self, step, *_: step == 8),
}


@pytest.mark.parametrize("death", SFT_DEATHS)
def test_a_warm_start_goes_on_to_the_bit(death: str, corpus, undisturbed, tmp_path) -> None:
    killed(lambda: corpus.sft(tmp_path / "exp"), SFT_DEATHS[death])
    assert not (tmp_path / "exp" / "model" / "model.safetensors").exists()
    corpus.sft(tmp_path / "exp")
    same(tmp_path / "exp", undisturbed["sft"])


@pytest.mark.parametrize("death", RL_DEATHS)
def test_rl_goes_on_to_the_bit(death: str, corpus, undisturbed, tmp_path) -> None:
    killed(lambda: corpus.rl(tmp_path / "exp"), RL_DEATHS[death])
    corpus.rl(tmp_path / "exp")
    same(tmp_path / "exp", undisturbed["grpo"])


def test_rl_of_bf16_weights_goes_on_to_the_bit(corpus, tmp_path) -> None:
    """Steps that the weights alone would lose: their masters are in the checkpoints."""
    init, keys = tmp_path / "init", {"rl.learning_rate": 1e-5, "rl.max_steps": 5}
    tiny_model({"llm.dtype": "bfloat16"}, spread=3.0).save(init / "model")

    def run(name: str) -> None:
        train_rl(corpus.task(keys), init, corpus.data, tmp_path / name)

    run("plain")
    killed(lambda: run("exp"), logged(4))
    run("exp")
    same(tmp_path / "exp", outcome(tmp_path / "plain"))
    saved = load_file(tmp_path / "exp" / "checkpoints" / "step_00000005" / "model.safetensors")
    table = saved["llm.model.embed_tokens.weight"]
    assert table.dtype == torch.float32 and not torch.equal(table, table.bfloat16().float())


def test_rl_goes_on_after_a_killed_worker(corpus, undisturbed, tmp_path, monkeypatch) -> None:
    """A worker that the system kills for want of memory ends the run with one sentence."""
    submit, calls = RewardWorkers.submit, []

    def with_death(self: RewardWorkers, samples):
        calls.append(samples)
        if len(calls) == 5:
            os.kill(self.pids[0], signal.SIGKILL)
        return submit(self, samples)

    monkeypatch.setattr(RewardWorkers, "submit", with_death)
    with pytest.raises(UserError, match=r"of rewards ended \(it was killed.*; run the same"):
        corpus.rl(tmp_path / "exp", {"rl.reward_workers": 1})
    corpus.rl(tmp_path / "exp", {"rl.reward_workers": 1})
    same(tmp_path / "exp", undisturbed["grpo"])


def test_rl_continues_with_smaller_micro_batches(corpus, undisturbed, tmp_path) -> None:
    killed(lambda: corpus.rl(tmp_path / "exp"), logged(5))
    corpus.rl(tmp_path / "exp", {"rl.micro_batch_tokens": 40})
    weights = load_file(tmp_path / "exp" / "model" / "model.safetensors")
    expected = load(undisturbed["grpo"]["weights"])
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", ["grpo", "supervised"])
def test_an_update_that_is_tried_first_changes_nothing(
    name: str, corpus, undisturbed, tmp_path, monkeypatch
) -> None:
    tried = []
    learner = {"grpo": GRPO, "supervised": Continued}[name]
    monkeypatch.setattr(train_rl_module, "_is_probed", lambda model: True)
    monkeypatch.setattr(learner, "probe", after_probe(learner.probe, tried))
    keys = {} if name == "grpo" else {"rl.algorithm": "supervised", "rl.max_steps": 2}
    corpus.rl(tmp_path / "exp", keys)
    assert len(tried) == 1 and max(u.duration for u in tried[0]) == tried[0][0].duration
    if name == "grpo":
        same(tmp_path / "exp", undisturbed["grpo"])
        return
    monkeypatch.undo()
    corpus.rl(tmp_path / "plain", keys)
    same(tmp_path / "exp", outcome(tmp_path / "plain"))


def after_probe(probe, tried: list):
    def noted(self, utterances) -> None:
        tried.append(utterances)
        probe(self, utterances)

    return noted


def test_rl_continues_to_another_length(corpus, undisturbed, tmp_path) -> None:
    killed(lambda: corpus.rl(tmp_path / "exp", {"rl.max_steps": 100}), logged(5))
    corpus.rl(tmp_path / "exp")
    same(tmp_path / "exp", undisturbed["grpo"])


def test_a_finished_rl_run_is_extended(corpus, undisturbed, tmp_path) -> None:
    corpus.rl(tmp_path / "exp", {"rl.max_steps": 4})
    corpus.rl(tmp_path / "exp")
    same(tmp_path / "exp", undisturbed["grpo"])


ALGORITHMS = {
    "dapo": {"rl.dynamic_sample": True, "rl.num_prompts": 2, "rl.overlong_buffer": 4},
    "remax": {"rl.baseline": "greedy", "rl.scale_rewards": "none", "rl.mini_batch_prompts": 2},
}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_other_algorithms_go_on_to_the_bit(name: str, corpus, tmp_path) -> None:
    """Which prompts are drawn in place of flat groups is a function of the step."""
    keys = {"rl.max_steps": 5, "rl.save_steps": 2, **ALGORITHMS[name]}
    corpus.rl(tmp_path / "plain", keys)
    killed(lambda: corpus.rl(tmp_path / "exp", keys), logged(3))
    corpus.rl(tmp_path / "exp", keys)
    expected = outcome(tmp_path / "plain")
    same(tmp_path / "exp", expected)
    resampled = [m["frac_resampled"] for m in expected["metrics"] if "loss" in m]
    assert any(resampled) == (name == "dapo")


def test_the_control_goes_on_to_the_bit(corpus, undisturbed, tmp_path) -> None:
    keys = {"rl.algorithm": "supervised"}
    killed(lambda: corpus.rl(tmp_path / "exp", keys), logged(5))
    corpus.rl(tmp_path / "exp", keys)
    same(tmp_path / "exp", undisturbed["supervised"])


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_prompts_goes_on_to_the_bit(order: str, corpus: Corpus, tmp_path) -> None:
    data, keys = mixture(corpus, tmp_path), {"rl.num_prompts": 3, **ORDERS[order]}

    def run(name: str) -> None:
        train_rl(corpus.task(keys), corpus.init, data, tmp_path / name)

    run("plain")
    for death in (logged(2), logged(5), writing_checkpoint(6)):
        killed(lambda: run("exp"), death)
    run("exp")
    same(tmp_path / "exp", outcome(tmp_path / "plain"))


def test_another_mixture_is_another_input(corpus: Corpus, tmp_path: Path) -> None:
    data, keys = mixture(corpus, tmp_path), {"rl.num_prompts": 3, "rl.max_steps": 1}
    arguments = (corpus.task(keys), corpus.init, data, tmp_path / "exp")
    train_rl(*arguments)
    data.write_text(data.read_text().replace('"weight": 1.5', '"weight": 2.5'))
    with pytest.raises(UserError, match=r"begun with other inputs .*\(train changed\)"):
        train_rl(*arguments)


def test_it_may_be_killed_again_and_again(corpus, undisturbed, tmp_path) -> None:
    for death in (logged(2), logged(4), writing_checkpoint(6), logged(7), logged(7), logged(9)):
        killed(lambda: corpus.sft(tmp_path / "exp"), death)
    corpus.sft(tmp_path / "exp")
    same(tmp_path / "exp", undisturbed["sft"])


@pytest.mark.parametrize("file", ["model.safetensors", "trainer.pt"])
def test_a_checkpoint_cut_short_costs_some_steps_only(file, corpus, undisturbed, tmp_path) -> None:
    killed(lambda: corpus.sft(tmp_path / "exp"), logged(7))
    broken = tmp_path / "exp" / "checkpoints" / "step_00000006" / file
    broken.write_bytes(broken.read_bytes()[:-100])
    corpus.sft(tmp_path / "exp")
    assert "step_00000006 cannot be used" in (tmp_path / "exp" / "train.log").read_text()
    same(tmp_path / "exp", undisturbed["sft"])


def test_without_a_readable_checkpoint_nothing_is_lost(corpus, tmp_path) -> None:
    exp = tmp_path / "exp"
    killed(lambda: corpus.sft(exp), logged(7))
    for folder in (exp / "checkpoints").glob("step_*"):
        (folder / "trainer.pt").write_bytes(b"")
    before = lines(exp / "metrics.jsonl")
    with pytest.raises(UserError, match="none of its checkpoints can be used"):
        corpus.sft(exp)
    assert lines(exp / "metrics.jsonl") == before


def test_each_step_has_its_line(undisturbed) -> None:
    for name, steps in (("sft", 10), ("grpo", 8), ("supervised", 8)):
        metrics = undisturbed[name]["metrics"]
        assert [m["step"] for m in metrics if "loss" in m] == list(range(1, steps + 1))
        evaluated = [m["step"] for m in metrics if "eval/wer" in m]
        assert evaluated == ([4, 8, 10] if name == "sft" else [0, 4, 8])
    completions = undisturbed["grpo"]["completions"]
    assert [line["step"] for line in completions] == [s for s in range(1, 9) for _ in range(16)]


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_a_second_call_does_nothing(kind: str, corpus, tmp_path, capsys) -> None:
    exp = tmp_path / "exp"
    getattr(corpus, kind)(exp)

    def state() -> dict[str, tuple[int, bytes]]:
        files = [p for p in exp.rglob("*") if p.is_file() and p.name not in ("run.sh", "train.log")]
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}

    before = state()
    capsys.readouterr()
    getattr(corpus, kind)(exp)
    assert state() == before
    assert capsys.readouterr().out == f"{exp} is complete: nothing to do\n"


KILLER = """
import runpy, sys
from audiorl.runs.reporter import Reporter
from deaths import after
after(Reporter, "log", lambda self, step, metrics: step == {step} and "loss" in metrics)()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("kind", ["sft", "grpo"])
def test_the_commands_go_on(kind: str, corpus: Corpus, undisturbed, tmp_path) -> None:
    """As a user would: the command, killed, and the run.sh that it left; in paths with spaces."""
    root = Path(__file__).resolve().parents[2]
    exp, recipe = tmp_path / "my exp", tmp_path / "a recipe.yaml"
    recipe.write_text(dump_config(tiny_config(SFT if kind == "sft" else RL)))
    command = {
        "sft": ["audiorl.bin.train_sft"],
        "grpo": ["audiorl.bin.train_rl", "--init", corpus.init, "--data", corpus.data],
    }[kind]
    command += ["--config", recipe, "--dump", corpus.dump, "--out", exp]
    paths = os.pathsep.join(map(str, (root, root / "test", root / "test" / "train")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    dead = subprocess.run(
        [sys.executable, "-c", KILLER.format(step=5), *map(str, command)], env=environment, cwd=root
    )
    assert dead.returncode == -9
    done = subprocess.run([exp / "run.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "continuing from" in done.stdout
    same(exp, undisturbed[kind])
