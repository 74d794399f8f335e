"""Signals that ask a training to end: it saves at the end of its step, and ends with a status."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from audiorl.runtime import ranks

TERMINATED = 143  # status of a program that a signal ended; continued by the same command


class Stopped(Exception):
    """A training that was asked to end, and has saved."""


@contextlib.contextmanager
def asked_to_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether any process was asked; all of them have to ask it.

    SIGUSR1 asks, which schedulers send before they take a machine away; so does SIGTERM where there
    is one process. Sent again, they end the program at once.
    """
    asked = False

    def ask(number: int, _: Any) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before[number])

    numbers = [signal.SIGUSR1] if ranks.launched() else [signal.SIGUSR1, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: any(ranks.gather(asked))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop(step: int) -> None:
    """Raise `Stopped` behind a checkpoint of `step`, when every process has come here.

    The first that ends has the others ended, of which one may still be writing.
    """
    ranks.wait_for_all()
    raise Stopped(f"stopped behind step {step}, which is saved; run the same command to continue.")
