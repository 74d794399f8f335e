"""Downloads of public corpora: they go on where they stopped, are checked, and unpack safely."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import platform
import shutil
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

from audiorl.errors import UserError
from audiorl.runtime.files import progress

CHUNK = 1 << 20  # bytes
TIMEOUT = 60  # s without an answer


def fetch(url: str, path: Path, checksum: str) -> None:
    """Downloads `url` to `path`; `checksum` is `<algorithm>:<hexadecimal digest>`.

    Where nobody published one it is `size:<bytes>`: unpacking checks the rest.

    What arrives lies in `<path>.part` until it is whole and right, and a later call goes on there.
    A broken connection is tried again for as long as something arrives. Raises UserError when
    nothing does, the disk refuses, or the checksum is wrong.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    complete = False
    while not complete:
        before = _size(partial)
        try:
            complete = _append(url, partial)
            reason = "the connection ended early"
        except urllib.error.URLError as error:
            reason = str(error.reason)
        except (OSError, http.client.HTTPException) as error:
            reason = str(error)
        if not complete and _size(partial) <= before:
            raise UserError(
                f"{url}: stopped at {_size(partial) / 1e6:.0f} MB ({reason}); run the same command "
                "again to go on."
            )
    print(f"{path.name}: {_size(partial) / 1e6:,.0f} MB are here; checking them", flush=True)
    algorithm, _, expected = checksum.partition(":")
    if algorithm == "size":
        what, found = "size", str(_size(partial))
    else:
        with open(partial, "rb") as stream:
            what, found = (
                f"{algorithm} checksum",
                hashlib.file_digest(stream, algorithm).hexdigest(),
            )
    if found != expected:
        partial.unlink()
        raise UserError(
            f"{url}: the {what} is {found}, not {expected}; the file was removed, run again to "
            "download it anew."
        )
    partial.rename(path)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _append(url: str, partial: Path) -> bool:
    """Goes on with a download; returns whether it is whole."""
    done = _size(partial)
    headers = {"Range": f"bytes={done}-"} if done else {}
    try:
        response = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is left to send; the checksum decides
        raise
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server sends all of it again
        total = done + int(response.headers.get("Content-Length", 0))
        bar = progress(desc=f"downloading {partial.stem}", total=total >> 20, unit="MB")
        with open(partial, "ab" if done else "wb") as stream, bar:
            while chunk := response.read(CHUNK):
                stream.write(chunk)
                bar.update((stream.tell() >> 20) - bar.n)
    return _size(partial) >= total


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Yields a folder beside the tar `archive` with its content; what stays there is removed.

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
