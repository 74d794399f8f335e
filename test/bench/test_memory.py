"""The bench of memory: its three ways give the same numbers, and it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import memory
import pytest
import torch
from logprob_pass import WAYS, log_probabilities

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"vocab": 50, "rows": 3, "completion": 4, "prefix": 5}


@pytest.mark.parametrize("way", WAYS)
def test_the_ways_agree(way: str) -> None:
    found = log_probabilities({"way": way, **SIZES})(3)
    assert way in memory.WAYS
    expected = log_probabilities({"way": "full", **SIZES})(3)
    assert found.shape == (3, 4)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="it reads /proc (Linux)")
def test_it_runs(tmp_path: Path) -> None:
    report = tmp_path / "memory.json"
    command = [sys.executable, ROOT / "bench" / "memory.py", "--vocab", "60000", "--rows", "2"]
    command += ["--completion", "40", "--prefix", "40", "--json", str(report)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(report.read_text())["results"][0]
    logits = 4 * 2 * 60000  # bytes, of a position in both rows
    assert result["bytes"]["completion"] > 2 * 40 * logits  # logits and log-probabilities at least
    assert result["bytes"]["full"] > 2 * 79 * logits
    assert result["bytes"]["ours"] > 0
    assert f"{60000:10}" in done.stdout
