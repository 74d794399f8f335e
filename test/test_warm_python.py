"""The tests' Python with its imports done: programs see what they see under the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python

ROOT = Path(__file__).resolve().parents[1]


def call(python: str, *words: str | Path, cwd: Path, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    return subprocess.run(
        [python, *words], cwd=cwd, env=environment, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "audiorl.bin.check_config", "--defaults", "asr"),
        ("-m", "audiorl.bin.check_config", "none.yaml"),
        ("-m", "audiorl.bin.score_text", "--help"),
        ("-m", "audiorl.bin.decode", "--odd"),
        ("-m", "audiorl.bin.score_text", "--ref", "/dev/stdin", "--hyp", "hyp.txt"),
        ("-c", "import sys; print(sys.path[0], sys.stdin.read()); sys.exit(3)"),
    ],
)
def test_a_program_ends_as_under_the_real_one(words: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "hyp.txt").write_text("a\nb d\n")
    warm, real = (
        call(python, *words, cwd=tmp_path, input="a\nb c\n")
        for python in (warm_python.program(), sys.executable)
    )
    assert (warm.returncode, warm.stdout, warm.stderr) == (
        real.returncode,
        real.stdout,
        real.stderr,
    )


def test_a_signal_reaches_the_program(tmp_path: Path) -> None:
    command = [warm_python.program(), "-m", "audiorl.bin.score_text", "--hyp", "/dev/null"]
    command += ["--ref", "/dev/stdin"]  # which is left open
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(1)
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) != 0
    program.stdin.close()
