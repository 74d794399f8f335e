"""The bench of rewards: it times the rules, all of which can score its pairs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_it_runs() -> None:
    command = [sys.executable, "bench/rewards.py", "--language", "zh", "--pairs", "80"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    first, *rows, together = done.stdout.splitlines()
    assert first.startswith("80 pairs, ")
    timed = {row.split()[0] for row in rows}
    assert {"wer", "hallucination", "keywords", "language"} < timed
    assert not timed & {"duration", "likelihood", "speaker_similarity", "file", "http"}
    assert together.startswith(f"all {len(rows)} together")
