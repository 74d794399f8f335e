"""The bench of rollouts runs, and counts what was sampled."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import rollout as bench


def test_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    words = "--engines native --sizes tiny --groups 2 --prefixes 8 --prompts 2 --response 4"
    report = tmp_path / "rollout.json"
    monkeypatch.setattr(sys, "argv", ["rollout.py", *words.split(), "--json", str(report)])
    bench.main()
    assert "| tiny | native | 2 | 8 |" in capsys.readouterr().out
    (row,) = json.loads(report.read_text())["rows"]
    assert len(row["seconds"]) == 3 and all(s["wall"] > 0 for s in row["seconds"])
