"""The bench of a step: it runs, counts right, and refuses what would make its times lie."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
import torch
from grpo_step import lines, numbers, ratio, take_turns
from link import Child
from ours import bench_model, flop_rate
from peers import PEERS, Peer
from shapes import SHAPES, Shape, flops
from tiny import generate, random_prefix
from torch.utils.flop_counter import FlopCounterMode

from audiorl.engines.sampling import Sampling
from audiorl.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
TINY = SHAPES["tiny"]


def bench(*arguments: str) -> str:
    command = [sys.executable, ROOT / "bench" / "grpo_step.py", "--shape", "tiny", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_scaling_run(tmp_path: Path) -> None:
    report = tmp_path / "step.json"
    shown = bench("--repeats", "2", "--group", "2,3", "--json", str(report))
    found = json.loads(report.read_text())
    assert [result["shape"]["group"] for result in found["results"]] == [2, 3]
    for result in found["results"]:
        ours, floor = result["ours"], result["floor"]
        assert len(ours["cpu"]["runs"]) == len(ours["wall"]["runs"]) == 2
        assert ours["cpu"]["min"] <= ours["cpu"]["median"] <= ours["cpu"]["max"]
        assert {"rollout", "reward", "update"} <= ours["phases"].keys()
        assert sum(ours["phases"].values()) <= ours["wall"]["max"]
        assert 1e7 < ours["start_bytes"] <= ours["peak_bytes"]
        assert floor["flops"] == flops(Shape(**result["shape"]))
        assert floor["ours_over_floor"] > 1  # nothing beats the floor
        assert "ratio" not in result
        assert "\n".join(lines(result, None)) in shown
    assert found["threads"] == 1 and found["peer"] is None and found["machine"]


def test_against_trl(tmp_path: Path) -> None:
    """Both sides read and write the same tokens, or the bench would have refused."""
    if not PEERS["trl"].is_installed():
        pytest.skip("tools/venv_bench_trl is not there: bench/grpo_step.py --peer trl makes it")
    report = tmp_path / "step.json"
    shown = bench("--repeats", "1", "--peer", "trl", "--json", str(report))
    result = json.loads(report.read_text())["results"][0]
    assert result["peer"]["parameters"] == result["ours"]["parameters"]
    assert result["peer"]["version"] == "TRL 1.16.0"
    ratio = result["peer"]["cpu"]["median"] / result["ours"]["cpu"]["median"]
    assert result["ratio"]["cpu"]["median"] == pytest.approx(ratio)
    assert "trl" in shown


class FakeSide:
    """Answers like a process that is timed."""

    def __init__(self, steps: list[dict]) -> None:
        self.steps = iter(steps)

    def ask(self, request: dict) -> dict:
        assert request == {"do": "step"}
        return next(self.steps)


def step(cpu: float, tokens: int = TINY.rows * TINY.completion, prefix: int = TINY.prefix) -> dict:
    return {"cpu": cpu, "wall": 2 * cpu, "tokens": tokens, "prefix": prefix}


def test_the_first_step_does_not_count_and_pairs_make_the_ratio() -> None:
    sides = {
        "ours": FakeSide([step(9.0), step(1.0), step(2.0), step(1.5)]),
        "peer": FakeSide([step(99.0), step(6.0), step(6.0), step(7.5)]),
    }
    runs = take_turns(sides, TINY, repeats=3)
    assert [s["cpu"] for s in runs["ours"]] == [1.0, 2.0, 1.5]
    assert ratio(runs, "cpu") == {"median": 4.0, "min": 3.0, "max": 6.0}
    assert ratio(runs, "wall") == ratio(runs, "cpu")


@pytest.mark.parametrize("wrong", [{"tokens": 15}, {"prefix": 9}])
def test_other_work_is_refused(wrong: dict) -> None:
    sides = {"ours": FakeSide([step(1.0)]), "peer": FakeSide([step(1.0, **wrong)])}
    with pytest.raises(UserError, match="peer did other work than asked"):
        take_turns(sides, TINY, repeats=1)


def test_what_a_process_prints_does_not_disturb(tmp_path: Path) -> None:
    code = (
        "from link import Link; link = Link(); print('loading'); "
        "link.send({'twice': 2 * link.receive()['x']})"
    )
    child = Child([sys.executable, "-c", f"import sys; {code}"], tmp_path / "log", threads=1)
    assert child.ask({"x": 4}) == {"twice": 8}
    with pytest.raises(RuntimeError, match="loading"):  # it has ended; its log is shown
        child.ask({"x": 4})
    child.close()


@pytest.fixture(autouse=True)
def children_find_the_bench(monkeypatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'bench'}")


def test_an_absent_peer_is_noticed() -> None:
    assert not Peer("none", "1.0", "none.py").is_installed()


def test_the_floor_counts_what_rollout_does() -> None:
    """Operations as torch counts them in our own rollout."""
    shape = Shape(prefix=7, completion=5, group=3, prompts=2, vocab=40, hidden=32, heads=4)
    model = bench_model(shape, threads=1, micro_batch_tokens=100)
    prefix = random_prefix(shape.hidden, [shape.prefix] * shape.prompts)
    with FlopCounterMode(display=False) as counter:
        generate(
            model,
            prefix,
            group=shape.group,
            max_length=shape.completion,
            sampling=Sampling(),
            uniforms=torch.rand(shape.rows, shape.completion, dtype=torch.float64),
        )
    counted = sum(counter.get_flop_counts()["Global"].values())
    expected = flops(shape)["prefill"] + flops(shape)["decode"]
    # The head is applied once a row, not once a prefix, to the first token; and torch does not
    # count the attention of the prefill, which is one operation of the CPU's.
    expected += (shape.rows - shape.prompts) * 2 * shape.hidden * shape.vocab
    pairs = shape.prompts * shape.prefix * (shape.prefix + 1) / 2
    expected -= pairs * 4 * shape.layers * shape.hidden
    assert counted == expected


def test_the_rate_of_this_machine() -> None:
    threads = torch.get_num_threads()
    assert 1e8 < flop_rate(size=256, repeats=2) < 1e12 * threads


def test_lists_of_numbers() -> None:
    assert numbers("2,4") == [2, 4]
    for text in ("", "2,x", "0,4"):
        with pytest.raises((ValueError, ArgumentTypeError)):  # argparse makes a message of both
            numbers(text)
