"""Runs jobs, some side by side: each with a log; one that fails stops none of the others."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import IO

from audiorl.config import dump_config
from audiorl.runtime.files import atomic_write
from audiorl.runtime.locks import Lock
from audiorl.table.plan import Job


@dataclass(frozen=True)
class Failure:
    """A job that was not done."""

    job: Job
    command: tuple[str, ...]
    code: int  # exit status; below 0: the signal that ended it

    def __str__(self) -> str:
        code = f"code {self.code}"
        if self.code < 0:
            code = f"ended by {signal.Signals(-self.code).name}"
            code += ", often for want of memory" * (-self.code == signal.SIGKILL)
        lines = self.job.file(".log").read_text(encoding="utf-8", errors="replace").splitlines()
        written = [line for line in lines if line.strip()]
        return f"{self.job.name}: {self.command[0]} ({code}): {written[-1]}"


def run_jobs(
    jobs: Sequence[Job], slots: int, lock: Lock, after_each: Callable[[], None] = lambda: None
) -> list[Failure]:
    """Do the unfinished jobs, `slots` at a time; end them all when interrupted or terminated."""
    left = [job for job in jobs if not job.is_done()]
    for job in jobs:
        if job not in left:
            print(f"{job.name}: done before")
    programs = _Programs(slots, lock)
    failures = []
    with ThreadPoolExecutor(slots) as pool:
        try:
            ends = [pool.submit(_do, job, programs) for job in left]
            for end in as_completed(ends):
                if failure := end.result():
                    failures.append(failure)
                after_each()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            programs.stop()
            raise
    return failures


def _do(job: Job, programs: _Programs) -> Failure | None:
    started = time.monotonic()
    stamp = job.stamp()
    with atomic_write(job.file(".yaml")) as stream:
        stream.write(dump_config(job.config))
    print(f"{job.name}: started, see {job.file('.log')}", flush=True)
    with open(job.file(".log"), "a", encoding="utf-8") as log:
        for command in job.commands:
            print("+", shlex.join(["python", "-m", *command]), file=log, flush=True)
            if code := programs.run(command, log):
                failure = Failure(job, command, code)
                print(f"FAILED {failure}", flush=True)
                return failure
    stamp.write()
    print(f"{job.name}: done in {time.monotonic() - started:.0f} s", flush=True)
    return None


class _Programs:
    def __init__(self, slots: int, lock: Lock) -> None:
        self.lock = lock
        self.running: set[subprocess.Popen] = set()
        self.guard = threading.Lock()
        self.stopped = False
        self.environment = dict(os.environ)
        if slots > 1:  # they share the cores, and their progress bars would overwrite each other
            threads = max(1, (os.cpu_count() or 1) // slots)
            self.environment.setdefault("OMP_NUM_THREADS", str(threads))
            self.environment.pop("AUDIORL_PROGRESS", None)

    def run(self, command: Sequence[str], log: IO[str]) -> int:
        with self.guard:
            if self.stopped:
                return -signal.SIGTERM
            program = subprocess.Popen(
                [sys.executable, "-m", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                pass_fds=[self.lock.fileno()],
            )
            self.running.add(program)
        code = program.wait()
        with self.guard:
            self.running.discard(program)
        return code

    def stop(self) -> None:
        with self.guard:
            self.stopped = True
            for program in self.running:
                program.terminate()
