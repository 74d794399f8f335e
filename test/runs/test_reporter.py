"""Numbers of a run: one line each, also after a restart, and in TensorBoard."""

from __future__ import annotations

import errno
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from audiorl.config import Config
from audiorl.errors import UserError
from audiorl.runs import reporter as reporter_module
from audiorl.runs.reporter import Reporter


def lines(path: Path) -> list[dict]:
    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().split("\n")[:-1]]


def curves(folder: Path, **options):
    """Return what TensorBoard reads of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder / "tensorboard"), **options)
    board.Reload()
    return board


def test_lines_and_curves(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path, 0)
    reporter.log(1, {"loss": 0.123456789, "reward": float("nan")})
    reporter.log(2, {"loss": 1e-9, "reward": float("-inf"), "kl": float("inf")})
    reporter.completions(1, [{"text": "汉字"}, {"text": "b"}])
    wave = np.sin(np.arange(1600)).astype(np.float32)
    reporter.audio(2, "eval/sample", wave, 16000, "reference: a\n\nhypothesis: b")
    reporter.close()
    assert lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.123457, "reward": None},
        {"step": 2, "loss": 1e-9, "reward": None, "kl": None},
    ]
    assert lines(tmp_path / "completions.jsonl")[0] == {"step": 1, "text": "汉字"}
    board = curves(tmp_path, size_guidance={"audio": 0})
    assert [(e.step, round(e.value, 6)) for e in board.Scalars("loss")] == [(1, 0.123457), (2, 0.0)]
    assert board.Tags()["audio"] == ["eval/sample"]


def test_a_resumed_run_replaces_what_it_does_again(tmp_path: Path) -> None:
    first = Reporter(tmp_path, -1)
    for step in range(5):
        first.log(step, {"loss": float(step)})
        first.completions(step, [{"n": n} for n in range(2)])
    first.close()
    again = Reporter(tmp_path, 2)
    again.log(3, {"loss": 33.0})
    again.close()
    assert [(m["step"], m["loss"]) for m in lines(tmp_path / "metrics.jsonl")] == [
        (0, 0.0),
        (1, 1.0),
        (2, 2.0),
        (3, 33.0),
    ]
    assert [line["step"] for line in lines(tmp_path / "completions.jsonl")] == [0, 0, 1, 1, 2, 2]
    board = curves(tmp_path)
    assert [(e.step, e.value) for e in board.Scalars("loss")][-1] == (3, 33.0)


def test_a_disk_that_refuses_is_named(tmp_path: Path, monkeypatch) -> None:
    reporter = Reporter(tmp_path, 0)

    def full(*arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(reporter_module, "open", full, raising=False)
    with pytest.raises(UserError, match=r"metrics\.jsonl: cannot be written \(No space left"):
        reporter.log(1, {"loss": 0.0})
    monkeypatch.undo()
    monkeypatch.setattr(reporter.tensorboard, "add_scalar", full)
    with pytest.raises(UserError, match=r"tensorboard: cannot be written \(No space left"):
        reporter.log(1, {"loss": 0.0})
    reporter.close()


class Tracker:
    """A module as wandb and trackio are: it writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple] = []

    def init(self, **options) -> None:
        self.told.append(("init", options))

    def log(self, metrics: dict, step: int) -> None:
        self.told.append(("log", step, metrics))

    def finish(self) -> None:
        self.told.append(("finish",))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_tracker_is_told_beside_tensorboard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    tracker = Tracker()
    monkeypatch.setitem(sys.modules, name, tracker)
    config = Config(report_to=name)
    folder = tmp_path / "mini_asr" / "exp" / "grpo"
    for last in (-1, 1):  # begun, and continued
        reporter = Reporter(folder, last, config)
        reporter.log(last + 2, {"reward": 0.5, "eval/judge": math.nan})
        reporter.close()
    (_, first), one, end, (_, again), two, _ = tracker.told
    assert one == ("log", 1, {"reward": 0.5}) and two[1] == 3 and end == ("finish",)
    assert first == again and first["resume"] == "allow" and first["config"]["seed"] == 1
    json.dumps(first["config"])  # as both keep it
    assert first["name"].startswith("mini_asr-exp-grpo-")
    assert (first.get("id") == first["name"]) == (name == "wandb")
    assert list((folder / "tensorboard").iterdir())


def test_a_tracker_that_is_missing_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="wandb is not installed; run `pip install wandb`"):
        Reporter(tmp_path, -1, Config(report_to="wandb"))
