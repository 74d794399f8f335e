"""utils/slurm.sh, with programs that stand for slurm's."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCONTROL = """\
#!/bin/sh
[ "$1" != show ] || printf 'first\nsecond\n'
[ "$1" != requeue ] || echo "requeue $2"
"""
TRAINING = """\
#!/bin/bash
trap 'echo "saved"; exit 143' USR1
echo "training at $MAIN_ADDRESS: $*"
touch "$BEGUN"
while :; do sleep 0.1; done
"""


def test_what_slurm_takes_back_saves_and_is_queued_again(tmp_path: Path) -> None:
    programs = {"srun": '#!/bin/sh\nexec "$@"\n', "scontrol": SCONTROL, "training": TRAINING}
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JOB_ID": "7", "BEGUN": str(tmp_path / "begun")}
    job = subprocess.Popen(
        ["bash", ROOT / "utils" / "slurm.sh", "training", "--num_nodes", "2"],
        env={**os.environ, **slurm, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "begun").exists():
        assert job.poll() is None
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    said, _ = job.communicate(timeout=60)
    assert said.splitlines() == ["training at first:29500: --num_nodes 2", "saved", "requeue 7"]
