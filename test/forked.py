"""Several processes that share work, forked from a test, so that nothing is imported again."""

from __future__ import annotations

import functools
import math
import os
import pickle
import signal
import socket
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from audiorl.runtime import ranks


def forked(size: int, function: Callable[[], Any], timeout: float = 200.0) -> list[Any]:
    """Return what a function returns in each of `size` processes, which wait `timeout` s at most.

    Raises RuntimeError with the traceback of those that raise or die.
    """
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
        free.close()
        start = functools.partial(_fork, size, port, function, Path(folder), timeout)
        children = [start(rank) for rank in range(size)]
        until = math.inf
        left = set(children)
        while left and time.monotonic() < until:
            for child in list(left):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    left.discard(child)
                    if status:  # the others wait for it in vain
                        until = min(until, time.monotonic() + 5)
            time.sleep(0.01)
        for child in left:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        found = [_found(Path(folder, str(rank))) for rank in range(size)]
    wrong = [error for _, error in found if error]
    if wrong:
        raise RuntimeError("\n".join(wrong))
    return [value for value, _ in found]


def _fork(
    size: int, port: int, function: Callable[[], Any], folder: Path, timeout: float, rank: int
) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.environ |= {
            "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
        }  # fmt: skip
        with ranks.joined(timeout):
            value = function()
        (folder / str(rank)).write_bytes(pickle.dumps((value, "")))
        code = 0
    except BaseException:
        (folder / str(rank)).write_bytes(pickle.dumps((None, traceback.format_exc())))
    finally:
        os._exit(code)


def _found(path: Path) -> tuple[Any, str]:
    if not path.exists():
        return None, f"rank {path.name} was killed"
    return pickle.loads(path.read_bytes())
