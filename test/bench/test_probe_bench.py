"""The bench of the probe: it runs, and both ways do the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import probe as bench
import torch
from ours import bench_model
from shapes import SHAPES

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs(tmp_path: Path) -> None:
    report = tmp_path / "probe.json"
    command = [sys.executable, ROOT / "bench" / "probe.py", "--shape", "tiny", "--repeats", "2"]
    done = subprocess.run([*command, "--json", report], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "probe / rollout: " in done.stdout
    result = json.loads(report.read_text())
    assert result["utterances"] == 2 * SHAPES["tiny"].prompts
    assert len(result["probe"]) == len(result["rollout"]) == 2
    assert all(seconds["cpu"] > 0 for name in bench.WAYS for seconds in result[name])


def test_the_audio_is_as_long_as_the_prefix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = SHAPES["tiny"]
    model = bench_model(shape, 1, 1024)
    frames = bench.encode_utterances(model, bench.noises(shape, 2, tmp_path))
    assert all(abs(model.prefix_length(found) - shape.prefix) <= 1 for found in frames)
