"""Atomic writing of files, hashes, and progress bars."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from audiorl.errors import UserError, reason
from audiorl.runtime import ranks

LINE_SECONDS = 60  # between two lines of progress where there is no terminal
PROGRESS_LINE = "{desc}: {n_fmt} of {total_fmt} ({unit}) in {elapsed}, {remaining} left{postfix}"


@contextlib.contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Raise UserError instead of OSError (disk full, read-only) while `path` is written.

    Also where a library raises its own error on top of one: torch does.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise UserError(
            f"{path}: cannot be written ({cause.strerror or cause}); free the disk or fix access, "
            "then run again."
        ) from error


@contextlib.contextmanager
def atomic_path(path: str | Path, own: bool = False) -> Iterator[Path]:
    """Yield a temporary name beside `path`; rename it to `path` when the block ends well.

    Raises UserError when the disk is full or read-only; the old file survives. What several
    processes write alike is kept of one of them, unless it is the `own` work of each.
    """
    path = Path(path)
    if not (own or ranks.is_main()):
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder, path.name)
        return
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


def read_json(path: str | Path, fix: str) -> dict[str, Any]:
    """Return the JSON object in a file; UserError, which ends with `fix`, if there is none."""
    try:
        return json_object(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {fix}.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not whole ({reason(error)}); {fix}.") from error


def read_json_lines(path: str | Path, fix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the JSON object of each line; UserError, with `fix`, for any other.

    A name that ends in .gz is that of a compressed file.
    """
    with gzip.open(path) if str(path).endswith(".gz") else open(path, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield number, json_object(line)
            except (ValueError, RecursionError) as error:
                message = f"{path}:{number} is not a JSON object ({reason(error)}); {fix}."
                raise UserError(message) from error


def json_object(text: bytes) -> dict[str, Any]:
    """Return the JSON object that `text` is.

    Raises ValueError or RecursionError for any other text, for a key that stands twice, and for
    half a character (\\ud800), which no file can hold.
    """
    found = json.loads(text.decode(), object_pairs_hook=_once)
    if not isinstance(found, dict):
        raise ValueError(f"it begins with {text[:20]!r}")
    if b"\\u" in text:
        json.dumps(found, ensure_ascii=False).encode()
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(k for k in keys if keys.count(k) > 1)} twice")
    return found


def remove_leftovers(found: Iterable[Path]) -> None:
    """Remove temporary files and folders, `.<name>.<process>.tmp`, whose process was killed."""
    for path in list(found):
        writer = path.name.split(".")[-2]
        if writer.isdigit() and not _is_written(path, writer):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _is_written(path: Path, writer: str) -> bool:
    """Return whether its writer is there; a younger process has only got the same number."""
    try:
        fields = Path(f"/proc/{writer}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        modified = path.stat().st_mtime
    except (OSError, UnicodeDecodeError):
        return False
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # s after the machine's start
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    return age >= time.time() - modified


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's content."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _Lines:
    """A stream for a progress bar where there is no terminal: a line a minute."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.last = stream, time.monotonic()

    def write(self, text: str) -> None:
        now, text = time.monotonic(), text.strip()
        if text and now - self.last >= LINE_SECONDS:
            self.last = now
            self.stream.write(f"{text}\n")

    def flush(self) -> None:
        self.stream.flush()


def progress(
    iterable: Iterable | None = None, desc: str = "", total: int | None = None, unit: str = "it"
):
    """Return a tqdm bar on the terminal; a line a minute if standard error is a file or a pipe.

    A recipe logs the standard error of its stages, and names its terminal in AUDIORL_PROGRESS.
    """
    from tqdm import tqdm

    stream = sys.stderr
    if not stream.isatty() and (terminal := os.environ.get("AUDIORL_PROGRESS")):
        with contextlib.suppress(OSError):
            stream = open(terminal, "w", encoding="utf-8")
    shown: dict[str, Any] = {"file": stream, "dynamic_ncols": True}
    if not stream.isatty():
        tqdm.monitor_interval = 0  # no thread of its own: workers are forked
        shown = {
            "file": _Lines(stream),
            "bar_format": PROGRESS_LINE,
            "miniters": 1,
            "mininterval": 1,
        }
    return tqdm(iterable, desc=desc, total=total, unit=unit, **shown)
