"""Ways to kill a process where it hurts."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def a_dead_process() -> int:
    """Return the number of a process that is no more."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(run: Callable[[], None], prepare: Callable[[], None]) -> None:
    """Runs in a process of its own that must die by SIGKILL; `prepare` sees to that, inside."""
    child = os.fork()
    if child == 0:
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            prepare()
            run()
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended by itself, with status {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def after(owner: Any, name: str, condition: Callable[..., bool]) -> Callable[[], None]:
    """Kills the process when a call of owner.name has returned and its arguments are such."""
    original = getattr(owner, name)

    def patched(*arguments, **named):
        result = original(*arguments, **named)
        if condition(*arguments, **named):
            kill()
        return result

    return lambda: setattr(owner, name, patched)


def before(owner: Any, name: str, condition: Callable[..., bool]) -> Callable[[], None]:
    """Kills the process when owner.name is about to be called with such arguments."""
    original = getattr(owner, name)

    def patched(*arguments, **named):
        if condition(*arguments, **named):
            kill()
        return original(*arguments, **named)

    return lambda: setattr(owner, name, patched)
