"""Downloads of public corpora: resumed, checked and safely unpacked.

pooch transfers and hashes. By hand, because it cannot: resume (it starts a broken download of 15 GB
from the first byte) and unpack safely (on Python 3.11 it does without tarfile's filter).
"""

from __future__ import annotations

import contextlib
import http
import platform
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pooch

from audiorl.errors import UserError
from audiorl.runtime.files import progress

TRANSFERRED = 100_000  # bytes
TIMEOUT = 60  # s without an answer


def fetch(url: str, path: Path, checksum: str) -> None:
    """Download `url` to `path`; `checksum` is `<algorithm>:<hexadecimal digest>`.

    Where none is published it is `size:<bytes>`: unpacking checks the rest.

    The bytes that have arrived lie in `<path>.part` until all are there and right, and a later call
    continues there. A broken connection is tried again as long as bytes arrive. Raises UserError
    when none do, the disk refuses, or the checksum is wrong.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    while True:
        before = _size(partial)
        try:
            _append(url, partial)
            break
        except OSError as error:  # also the base of the errors of requests, which pooch uses
            if _size(partial) <= before:
                raise UserError(
                    f"{url}: stopped at {_size(partial) / 1e6:.0f} MB ({_reason(error)}); run the "
                    "same command again to continue."
                ) from error
    print(f"{path.name}: downloaded {_size(partial) / 1e6:,.0f} MB; checking them", flush=True)
    algorithm, _, expected = checksum.partition(":")
    if algorithm == "size":
        kind, found = "size", str(_size(partial))
    else:
        kind, found = f"{algorithm} checksum", pooch.file_hash(partial, algorithm)
    if found != expected:
        partial.unlink()
        raise UserError(
            f"{url}: the {kind} is {found}, not {expected}; the file was removed, run again to "
            "download it anew."
        )
    partial.rename(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(url: str, partial: Path) -> None:
    """Continue a download to its end; raise OSError where it breaks."""
    done = _size(partial)
    # Not compressed on the way: the sizes of parts count bytes of the file.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    bar = progress(desc=f"downloading {partial.stem}", total=1, unit="B")
    bar.unit_scale = True
    with open(partial, "ab") as stream, bar:

        def restart_unless_resumed(response: Any, **_: Any) -> None:
            if response.status_code == http.HTTPStatus.OK:
                stream.truncate(0)  # the server sends the whole file again

        transfer = pooch.HTTPDownloader(
            progressbar=bar,
            chunk_size=TRANSFERRED,
            timeout=TIMEOUT,
            headers=headers,
            hooks={"response": restart_unless_resumed},
        )
        try:
            transfer(url, stream, None)
        except OSError as error:
            # Nothing is left to send; the checksum decides.
            if _status(error) != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise


def _status(error: OSError) -> int | None:
    """Return the HTTP status of a refused request, if the error is one."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    """Return the cause of a failed transfer in a few words."""
    if _status(error):
        return error.response.reason
    while error.__context__ is not None:
        error = error.__context__
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Yield a folder beside the tar `archive` with its content, and remove the folder at the end.

    Members that would leave the folder, links that lead out of it and devices are refused. Raises
    UserError for those and for a damaged archive.
    """
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            f"{archive} is not unpacked: Python {platform.python_version()} cannot do that safely, "
            "3.11.4 and newer can; use another Python, or unpack it yourself."
        )
    folder = archive.with_name(f".{archive.name}.unpacked")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        with tarfile.open(archive, "r:bz2" if archive.suffix == ".bz2" else "r:gz") as tar:
            members = progress(tar, f"unpacking {archive.name}", unit="file")
            for member in members:
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"{archive} cannot be unpacked ({error}); remove it and run again."
        ) from error
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(
            f"{archive} cannot be unpacked ({error.strerror or error}); free the disk, or remove "
            "it if it is damaged, and run again."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
