"""JSON lines between the bench and the processes that it times, and what these measure.

Imports nothing but the standard library: the peer's environment reads this file, too.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

STATUS = Path("/proc/self/status")  # Linux


class Link:
    """The child's end: requests on standard input, replies on what was standard output.

    Whatever else the child prints goes to standard error.
    """

    def __init__(self) -> None:
        self._replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def receive(self) -> dict | None:
        """The next request; None when the bench has gone."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def send(self, reply: dict) -> None:
        self._replies.write(json.dumps(reply) + "\n")
        self._replies.flush()


class Child:
    """The bench's end: a process that is asked for one step after the other."""

    def __init__(self, command: Sequence[str | Path], log: Path, threads: int) -> None:
        self.log = log
        variables = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w", encoding="utf-8"),
            text=True,
            env={**os.environ, **variables},
        )

    def ask(self, request: dict) -> dict:
        """Sends a request, waits for its reply. Raises RuntimeError if the child has died."""
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its log says why, below
        line = self._process.stdout.readline()
        if not line:
            tail = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"a timed process has died ({self.log}):\n{tail}")
        return json.loads(line)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Clock:
    """Seconds since it was made: on the wall, and of this process on the processor."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "wall": time.perf_counter() - self._wall,
            "cpu": time.process_time() - self._cpu,
        }


def peak_memory() -> int:
    """The most bytes that this process has had in memory (since `reset_peak`)."""
    if STATUS.exists():  # ru_maxrss would count the parent as it was at the fork
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def current_memory() -> int:
    """The bytes that this process has in memory; Linux only."""
    return _status_bytes("VmRSS")


def reset_peak() -> None:
    """Forgets the peak so far; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")


def _status_bytes(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
