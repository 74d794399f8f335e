"""Whole runs of several processes: rules of FSDP2, checkpoints that others continue, signals."""

from __future__ import annotations

import functools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import forked
from ranks_grid import SHARING
from runs import RL, SFT, Corpus, lines, outcome
from safetensors.torch import load_file
from test_resume import same
from test_rl_synthesis import World
from tiny import WORDS, tiny_model
from torch.distributed.tensor import DTensor

from audiorl.config.parallelism import ParallelismConfig
from audiorl.errors import UserError
from audiorl.infer.decode import decode_sets
from audiorl.models import weights_of
from audiorl.runs.optimizer import Optimizers
from audiorl.runs.reporter import Reporter
from audiorl.runtime import ranks, sharding
from audiorl.runtime.stopping import Stopped

KEYS = {**RL, "rl.learning_rate": 1e-4, "rl.average": 2}
SMALL_SFT = {
    **SFT,
    "sft.schedule.max_steps": 4,
    "sft.schedule.learning_rate": 1e-4,
    "sft.schedule.muon_learning_rate": 0.0,
}


def weights(exp: Path) -> dict[str, torch.Tensor]:
    return load_file(exp / "model" / "model.safetensors")


def said(exp: Path) -> list[tuple]:
    found = lines(exp / "completions.jsonl")
    return [(line["step"], line["id"], line["completion"]) for line in found]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def close(found: Path, expected: Path) -> None:
    one, other = weights(found), weights(expected)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert (value - other[name]).abs().max() <= 1e-5, name


def shared_model(kept: str, precision: str = "float32", dtype: str = "float32") -> Any:
    model = tiny_model({"llm.dtype": dtype}, spread=3.0)
    learning = model.train_only(["adaptor", "llm"])
    model.share_weights(ParallelismConfig(-1, kept, precision, precision))
    return model, Optimizers(learning, 1e-3, 0.0, model=model)


def unequal(kept: str, precision: str = "float32") -> float:
    """As many passes as this process's rank, and none on the first; the gradient's norm."""
    model, optimizer = shared_model(kept, precision)
    embeds = torch.ones(1, 3, 32)
    optimizer.zero_grad()
    losses = [lambda: (model.llm(embeds).sum(), {})] * ranks.rank()
    sharding.backward(model, losses, lambda: 0.0 * model.llm(embeds).sum(), {})
    return optimizer.step(1.0, 1.0, [])


def forgotten() -> tuple[int, int]:
    """Passes remembered for prefetching, after different numbers of them without a backward."""
    model, _ = shared_model("never")
    order = model.llm.layers[0]._get_fsdp_state()._comm_ctx.post_forward_order
    with torch.no_grad(), sharding.whole(model):
        for _ in range(1 + ranks.rank()):
            model.llm(torch.ones(1, 3, 32))
        during = len(order)
    return during, len(order)


def kinds() -> tuple[bool, set[str]]:
    """Whether the optimizer has shards, and names of weights that are kept."""
    model, optimizer = shared_model("never")
    return all(isinstance(p, DTensor) for p in optimizer.parameters), set(weights_of(model))


def everything() -> dict[str, Any]:
    with pytest.raises(UserError, match="kept in fp32, and this model was made in bf16; set 1"):
        shared_model("never", dtype="bfloat16")
    return {
        "never": unequal("never"),
        "always": unequal("always"),
        "half": unequal("never", "bfloat16"),
        "remembered": forgotten(),
        "kinds": kinds(),
    }


def test_rules_that_fsdp_does_not_enforce(corpus: Corpus) -> None:
    """Unequal passes, passes that are remembered, shards of the optimizer, empty shards."""
    first, second = forked(2, everything)
    assert first["never"] == pytest.approx(second["never"]) and first["never"] > 0
    assert first["always"] == pytest.approx(first["never"], rel=1e-5)
    assert first["half"] == pytest.approx(first["never"], rel=0.05)
    assert first["half"] != first["never"]
    assert [first["remembered"], second["remembered"]] == [(2, 0), (4, 0)]
    names = set(weights_of(tiny_model()))
    assert first["kinds"] == second["kinds"] == (True, names)


def test_a_checkpoint_of_two_is_continued_by_one_and_by_four(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shared or not; the same as one that never stopped, and files that one process writes."""
    one = tmp_path / "one"
    corpus.rl(one, KEYS)

    def begin() -> None:
        original = Reporter.log

        def log(self: Reporter, step: int, metrics: dict[str, float]) -> None:
            original(self, step, metrics)
            if step == 5:
                os.kill(os.getpid(), signal.SIGUSR1)

        monkeypatch.setattr(Reporter, "log", log)
        for kept, keys in SHARING.items():
            with pytest.raises(Stopped):
                corpus.rl(tmp_path / kept, {**KEYS, **keys})
            corpus.sft(tmp_path / f"sft_{kept}", {**SMALL_SFT, **keys})

    def go_on(keys: dict[str, dict[str, Any]]) -> None:
        for name, more in keys.items():
            corpus.rl(tmp_path / name, {**KEYS, **more})

    forked(2, begin)
    for kept in SHARING:
        assert [p.name for p in (tmp_path / kept / "checkpoints").glob("step_*")] == [
            "step_00000003",
            "step_00000005",
        ]
    go_on({"never": {}})
    forked(4, lambda: go_on({"always": SHARING["never"], "replicate": SHARING["always"]}))
    for kept in SHARING:
        close(tmp_path / kept, one)
        assert said(tmp_path / kept) == said(one), kept
    corpus.sft(one / "sft", SMALL_SFT)
    expected = lines(one / "sft" / "metrics.jsonl")
    for kept in SHARING:
        close(tmp_path / f"sft_{kept}", one / "sft")
        found = lines(tmp_path / f"sft_{kept}" / "metrics.jsonl")
        assert [line["step"] for line in found] == [line["step"] for line in expected]


def test_test_sets_are_decoded_and_spoken_alike(corpus: Corpus, tmp_path: Path) -> None:
    """One file each, from batches that two processes take in turn."""
    world = World(tmp_path)
    task = corpus.task({"data.test": ["train"], "decode.batch_seconds": 1.0})
    speaking = world.task({"data.test": ["train"], "decode.batch_size": 3})

    def both(name: str) -> None:
        decode_sets(task.decoder(), corpus.dump, [tmp_path / "asr" / name])
        decode_sets(speaking.decoder(), world.dump, [tmp_path / "tts" / name])

    for name in ("one", "two"):
        shutil.copytree(corpus.init / "model", tmp_path / "asr" / name / "model")
        shutil.copytree(world.exp / "sft" / "model", tmp_path / "tts" / name / "model")
    both("one")
    forked(2, lambda: both("two"))
    for kind in ("asr", "tts"):
        one, two = (contents(tmp_path / kind / name) for name in ("one", "two"))
        assert one.keys() == two.keys()
        alike = {name for name in one if one[name] == two[name]}
        assert {n for n in one if n.endswith(("text", "tokens", "codec.json", ".wav"))} <= alike
        assert kind == "asr" or sum(n.endswith(".wav") for n in one) == len(WORDS)


def test_one_process_that_is_asked_to_stop_saves_and_goes_on_to_the_bit(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, sent = Reporter.log, []

    def log(self: Reporter, step: int, metrics: dict[str, float]) -> None:
        original(self, step, metrics)
        if step == 2 and not sent:
            sent.append(step)
            os.kill(os.getpid(), signal.SIGTERM)

    short: Callable[[str], None] = functools.partial(corpus.rl, keys={"rl.max_steps": 4})
    short(tmp_path / "one")
    monkeypatch.setattr(Reporter, "log", log)
    with pytest.raises(Stopped, match="stopped behind step 2, which is saved"):
        short(tmp_path / "stopped")
    short(tmp_path / "stopped")
    expected = outcome(tmp_path / "one")
    expected["checkpoints"] = outcome(tmp_path / "stopped")["checkpoints"]
    same(tmp_path / "stopped", expected)


def test_one_process_under_torchrun_is_one(corpus: Corpus, tmp_path: Path) -> None:
    keys = {"rl.max_steps": 2}
    corpus.rl(tmp_path / "plain", keys)
    forked(1, lambda: corpus.rl(tmp_path / "launched", {**keys, **SHARING["always"]}))
    same(tmp_path / "launched", outcome(tmp_path / "plain"))
