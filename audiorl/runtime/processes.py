"""Processes of ours: they end with their parent, are limited in time, and their end is told.

A helper runs `python -m audiorl.runtime.processes`, so that no thread's lock is inherited and no
main program is imported again.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, Pipe
from typing import Any

from audiorl.errors import UserError, reason

DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux


def end_with(parent: int) -> None:
    """Leave interruptions to the parent, and be killed when it dies, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent(parent)


def die_with_parent(parent: int) -> None:
    """Be killed when the parent dies, however that happens."""
    with contextlib.suppress(OSError, AttributeError):  # another system: the pipe's end tells it
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before


class Helper:
    """A process that calls one function, again and again, outside of this one.

    Create it in the main thread: the system counts the end of the thread that did as the parent's.
    """

    def __init__(
        self,
        name: str,
        start: Callable[..., Callable],
        *arguments: Any,
        timeout: float | None = None,
    ) -> None:
        """`start(*arguments)` returns the function, in the helper; `name`: for messages.

        `timeout`: of that and of every call, in s; None: no limit.
        """
        self.name, self.timeout = name, timeout
        self._pipe, there = Pipe()
        numbers = [str(there.fileno()), str(os.getpid())]
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, *numbers],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                pass_fds=[there.fileno()],
            )
        self.pid = self._process.pid
        self.close = weakref.finalize(self, _kill, self._process, self._pipe)
        self.call(start, *arguments)

    def call(self, *arguments: Any) -> Any:
        """Return the function's value, or raise its error; its log is ours.

        Raises UserError if the helper dies, or takes too long and is ended for it.
        """
        try:
            self._pipe.send_bytes(pickle.dumps(arguments, pickle.HIGHEST_PROTOCOL))
            if not self._pipe.poll(self.timeout):
                self.close()
                raise UserError(
                    f"{self.name} took more than {self.timeout:g} s; fix it, or raise its timeout."
                )
            value, error, records = pickle.loads(self._pipe.recv_bytes())
        except (EOFError, BrokenPipeError, ConnectionResetError) as error:
            raise UserError(
                f"the process of {self.name} ended ({self._end()}); run the same command again to "
                "continue."
            ) from error
        for record in records:
            logging.getLogger(record.name).handle(record)
        if error is not None:
            raise error
        return value

    def _end(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "it was killed, for want of memory as a rule"
        return f"by signal {-code}" if code < 0 else f"by itself, with status {code}"


def _kill(process: subprocess.Popen, pipe: Connection) -> None:
    process.kill()
    process.wait()
    pipe.close()


def _serve(number: int, parent: int) -> None:
    end_with(parent)
    records: queue.SimpleQueue = queue.SimpleQueue()
    logging.getLogger().addHandler(QueueHandler(records))
    logging.getLogger().setLevel(logging.INFO)
    function = None
    with Connection(number) as pipe, contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            value = error = None
            try:
                arguments = pickle.loads(pipe.recv_bytes())
                if function is None:
                    function = arguments[0](*arguments[1:])
                else:
                    value = function(*arguments)
            except EOFError:
                raise
            except SystemExit as end:
                code = "" if end.code is None else repr(end.code)
                error = RuntimeError(f"it calls exit({code})")
            except Exception as raised:
                error = _portable(raised)
            said = [records.get() for _ in range(records.qsize())]
            pipe.send_bytes(pickle.dumps((value, error, said), pickle.HIGHEST_PROTOCOL))


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent, with its traceback as a note."""
    with contextlib.suppress(Exception):
        pickle.loads(pickle.dumps(error))
        if not isinstance(error, UserError):
            error.add_note("".join(traceback.format_exception(error)))
        return error
    return RuntimeError(f"{type(error).__name__}: {reason(error)}")


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]))
