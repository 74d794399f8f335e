"""A program whose processes step together, for tests of its launcher: `FAULT FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from audiorl.bin.cli import run
from audiorl.errors import UserError
from audiorl.runtime import ranks
from audiorl.runtime.stopping import asked_to_stop, stop


def main() -> None:
    fault, folder = sys.argv[1], Path(sys.argv[2])
    with ranks.joined(5.0 if fault == "sleep" else 100.0), asked_to_stop() as is_asked:
        for step in range(100_000):
            if step == 3 and ranks.rank() == 1:
                _fail(fault)
            time.sleep(0.02)
            if is_asked():
                time.sleep(1 - ranks.rank())  # one writes for longer than the others
                (folder / f"saved_{ranks.rank()}").touch()
                stop(step)
            if step == 5 and ranks.is_main():
                (folder / "steps").touch()


def _fail(fault: str) -> None:
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "refused":
        raise UserError("s2-dev003: no such file; format the set again.")
    elif fault == "wrong":
        raise ValueError("a mistake of ours")
    elif fault == "sleep":
        time.sleep(1000)


if __name__ == "__main__":
    run(main)
