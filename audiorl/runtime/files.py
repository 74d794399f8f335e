"""Atomic writing of files, hashes, and progress bars."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from audiorl.errors import UserError


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raise UserError instead of OSError (disk full, read-only) while `path` is written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: cannot be written ({reason}); free the disk or fix access, then run again."
        ) from error


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well.

    Raises UserError when the disk is full or read-only; the old file survives.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            # Durable before visible: a power cut after the rename must not leave an empty file.
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing that appears at `path` only when the block ends well."""
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with atomic_path(path) as temporary, open(temporary, mode, **text) as stream:
        yield stream


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with atomic_write(path) as stream:
        json.dump(value, stream, indent=2, ensure_ascii=False)
        stream.write("\n")


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def progress(
    iterable: Iterable | None = None, desc: str = "", total: int | None = None, unit: str = "it"
):
    """Return a tqdm bar on the terminal; silent if standard error is a file or a pipe.

    A recipe logs the standard error of its stages, and names its terminal in AUDIORL_PROGRESS.
    """
    from tqdm import tqdm

    stream = sys.stderr
    if not stream.isatty() and (terminal := os.environ.get("AUDIORL_PROGRESS")):
        with contextlib.suppress(OSError):
            stream = open(terminal, "w", encoding="utf-8")
    return tqdm(
        iterable,
        desc=desc,
        total=total,
        unit=unit,
        file=stream,
        disable=not stream.isatty(),
        dynamic_ncols=True,
    )
