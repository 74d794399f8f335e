"""The bench of Whisper's window: it runs, and says what was asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny_whisper import save_whisper

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs(tmp_path: Path) -> None:
    model = save_whisper(tmp_path / "whisper", spread=0.1)
    command = [sys.executable, ROOT / "bench" / "window.py", "--model", model, "--repeats", "2"]
    command += ["--lengths", "0.5,1", "--out", tmp_path / "window.png"]
    command += ["--json", tmp_path / "window.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("times as fast") == 4
    assert (tmp_path / "window.png").read_bytes().startswith(b"\x89PNG")
    seconds = json.loads((tmp_path / "window.json").read_text())["seconds"]
    assert list(seconds) == ["0.5", "1.0"]
    for found in seconds.values():
        for window in ("full", "utterance"):
            encoder, whole = (found[window][way] for way in ("encoder", "recogniser"))
            assert len(encoder) == 2
            assert all(0 < a <= b for a, b in zip(encoder, whole, strict=True))
