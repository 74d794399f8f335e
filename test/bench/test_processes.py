"""The bench of several processes: what each of them prints, and the ratio."""

from __future__ import annotations

import json

import processes
import pytest


def test_a_process_tells_its_steps(capsys: pytest.CaptureFixture) -> None:
    processes._steps("tiny", 2)
    seconds = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(seconds) == 2 and min(seconds) > 0


def test_the_ratio(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(processes, "_measured", lambda shape, steps, count: 3.0 / count)
    monkeypatch.setattr("sys.argv", ["processes.py", "--shape", "tiny"])
    processes.main()
    assert capsys.readouterr().out == "tiny: 3.00 s by 1 process, 1.50 s by 2: 2.00 times as fast\n"
