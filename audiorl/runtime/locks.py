"""Locks: one process at a time writes into a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from audiorl.errors import UserError
from audiorl.runtime import ranks
from audiorl.runtime.files import disk_errors, remove_leftovers

Lock = IO[str]


@contextlib.contextmanager
def exclusive(folder: Path, name: str = "") -> Iterator[Lock]:
    """Hold `folder`, or a file `name` in it, against every other program.

    What a killed holder was writing there is removed. The system releases the lock when its holder
    dies, however that happens, and keeps it for programs that inherit the stream. Raises UserError,
    naming the holder, when there is another. Of several processes of one program, one holds it.
    """
    if not ranks.is_main():
        ranks.wait_for_all()
        with open(os.devnull, encoding="utf-8") as nothing:
            yield nothing
        return
    target = folder / name
    with disk_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / f".{name}.lock".replace("..", "."), "a+", encoding="utf-8")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            raise UserError(
                f"{target} is being written by {holder}, or by a program that it started; wait "
                "for it or end it, or name another folder."
            ) from error
        except OSError as error:  # some cluster file systems have no locks
            print(f"{target}: not locked ({error.strerror})", file=sys.stderr)
        else:
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            remove_leftovers(
                folder.glob(f".{Path(name).stem}.*.tmp") if name else folder.rglob(".*.tmp")
            )
        ranks.wait_for_all()
        yield lock
