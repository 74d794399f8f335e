"""Runs of both tasks whose responses vLLM samples: killed, resumed, and with a spoilt sync."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from deaths import after, is_running, killed
from real_vllm import SETTINGS, WIDE, needs_vllm
from runs import Corpus, lines
from test_rl_synthesis import World
from tiny import tiny_model
from tiny_speech import tiny_speech_lm

from audiorl.engines.vllm import VllmEngine
from audiorl.errors import UserError
from audiorl.runs.reporter import Reporter

pytestmark = needs_vllm
GAP = "sampling/sampling_logp_difference"
KEYS = {**SETTINGS, **WIDE, "rl.max_steps": 4, "rl.eval_steps": 2, "rl.save_steps": 2}


def gaps(exp: Path) -> dict[int, float]:
    return {
        line["step"]: line[f"{GAP}/max"]
        for line in lines(exp / "metrics.jsonl")
        if f"{GAP}/max" in line
    }


def test_recognition_goes_on_from_the_checkpoint(tmp_path: Path, capfd) -> None:
    """The trainer is killed, its engine with it; the next engine gets the weights first."""
    corpus, exp = Corpus(tmp_path), tmp_path / "exp" / "grpo"
    tiny_model(WIDE, spread=3.0).save(corpus.init / "model")

    def prepare() -> None:
        start = VllmEngine.__init__

        def note(self, *arguments) -> None:
            start(self, *arguments)
            (tmp_path / "pid").write_text(str(self.link.pid))

        VllmEngine.__init__ = note
        after(Reporter, "log", lambda self, step, metrics: step == 3 and "loss" in metrics)()

    killed(lambda: corpus.rl(exp, KEYS), prepare)
    deadline, pid = time.monotonic() + 10, int((tmp_path / "pid").read_text())
    while is_running(pid):
        assert time.monotonic() < deadline, "the engine outlives its trainer"
        time.sleep(0.05)
    corpus.rl(exp, KEYS)
    log = capfd.readouterr().out
    assert "going on from the checkpoint of step 2; vllm samples otherwise" in log
    found = gaps(exp)
    assert sorted(found) == [1, 2, 3, 4] and max(found.values()) < 1e-4


def test_synthesis(tmp_path: Path) -> None:
    world, exp = World(tmp_path), tmp_path / "exp" / "grpo"
    tiny_speech_lm(WIDE, spread=2.0, codec=world.info).save(world.exp / "sft" / "model")
    world.run(exp, KEYS)
    found = gaps(exp)
    assert sorted(found) == [1, 2, 3, 4] and max(found.values()) < 1e-4


def test_a_sync_that_is_left_out_ends_the_run(tmp_path: Path, monkeypatch) -> None:
    corpus = Corpus(tmp_path)
    tiny_model(WIDE, spread=3.0).save(corpus.init / "model")
    sync, calls = VllmEngine.sync, []

    def once(self) -> None:
        calls.append(0)
        if len(calls) != 2:  # behind the first update
            sync(self)

    monkeypatch.setattr(VllmEngine, "sync", once)
    with pytest.raises(UserError, match=r"step 2: .* an update was not followed by sync"):
        corpus.rl(tmp_path / "exp" / "grpo", {**KEYS, "rl.learning_rate": 0.1})
