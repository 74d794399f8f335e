"""Times GRPO steps of one process and of several that share each step, as ratios.

example:
  python bench/processes.py --shape asr --num_processes 2

Each process has one thread. The first step is not counted. Processor time is that of the process
that has most of it in a step: where cores are busy with other work, it tells what idle ones gain.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import torch
from ours import learner, timed_step
from shapes import SHAPES

from audiorl.bin.cli import parser, run
from audiorl.runtime import ranks

HERE = Path(__file__).resolve().parent


def main() -> None:
    options = parser(__doc__, config=False)
    options.add_argument("--shape", choices=sorted(SHAPES), default="asr")
    options.add_argument("--num_processes", type=int, default=2)
    options.add_argument("--steps", type=int, default=3)
    args = options.parse_args()
    if ranks.launched():
        _steps(args.shape, args.steps)
        return
    one, several = (_measured(args.shape, args.steps, n) for n in (1, args.num_processes))
    for name, clock in (("wall", "seconds"), ("cpu", "seconds of processor time")):
        print(
            f"{args.shape}: {one[name]:.2f} {clock} by 1 process, {several[name]:.2f} by "
            f"{args.num_processes}: {one[name] / several[name]:.2f} times as fast"
        )


def _measured(shape: str, steps: int, count: int) -> dict[str, float]:
    """Return the median seconds of a step by clock."""
    command = [sys.executable, "-m", "audiorl.bin.launch", "--num_processes", str(count)]
    command += ["-m", "processes", "--shape", shape, "--steps", str(steps)]
    paths = os.pathsep.join(map(str, (HERE, HERE.parent)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return {clock: median(step[clock] for step in found) for clock in found[0]}


def _steps(shape: str, steps: int) -> None:
    torch.set_num_threads(1)
    with ranks.joined(600):
        grpo = learner(SHAPES[shape], 1, 1024)
        seconds = []
        for step in range(steps + 1):
            ranks.wait_for_all()
            own = timed_step(grpo, SHAPES[shape], step)
            every = ranks.gather({clock: own[clock] for clock in ("wall", "cpu")})
            seconds.append({clock: max(one[clock] for one in every) for clock in every[0]})
        print(json.dumps(seconds[1:]))


if __name__ == "__main__":
    run(main)
