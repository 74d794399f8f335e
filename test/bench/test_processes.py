"""The bench of several processes: what each of them prints, and the ratio."""

from __future__ import annotations

import json

import processes
import pytest


def test_a_process_tells_its_steps(capsys: pytest.CaptureFixture) -> None:
    processes._steps("tiny", 2)
    seconds = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(seconds) == 2 and min(min(step.values()) for step in seconds) > 0


def test_the_ratio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    found = {1: {"wall": 3.0, "cpu": 2.9}, 2: {"wall": 2.0, "cpu": 1.6}}
    monkeypatch.setattr(processes, "_measured", lambda shape, steps, count: found[count])
    monkeypatch.setattr("sys.argv", ["processes.py", "--shape", "tiny"])
    processes.main()
    assert capsys.readouterr().out == (
        "tiny: 3.00 seconds by 1 process, 2.00 by 2: 1.50 times as fast\n"
        "tiny: 2.90 seconds of processor time by 1 process, 1.60 by 2: 1.81 times as fast\n"
    )
