"""Stamps: whether what was made before is up to date.

A stamp is a JSON file beside outputs, written last and atomically. It holds what the outputs follow
from: digests of input files and settings by key; and digests of the outputs themselves. Contents
alone count, never times: a file that comes back with another date is unchanged.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from audiorl.errors import UserError
from audiorl.runtime import ranks
from audiorl.runtime.files import read_json, sha256, write_json

FORMAT = 1  # of stamps; with another number, all is made again
SETTLED = 2_000_000_000  # ns; a file younger than that may change and keep its times
ABSENT = "absent"
NAMED = 5  # names of what changed
PARTS = ("format", "settings", "inputs", "outputs")


class Stamp:
    """Inputs and settings of outputs as they are now, and the file that records the former ones."""

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        outputs: Iterable[Path] = (),
    ) -> None:
        """`settings`: JSON by key, nested or not; `inputs`: a file, or its digest, by name.

        Files are read here, so that a change while outputs are made is noticed the next time.
        """
        self.path, self.outputs = path, list(outputs)
        digests = {n: digest(i) if isinstance(i, Path) else i for n, i in inputs.items()}
        content = {"format": FORMAT, "settings": dict(settings), "inputs": digests}
        self.content = json.loads(json.dumps(content))

    def at(self, path: Path, outputs: Iterable[Path] = (), without: str = "") -> Stamp:
        """Return a stamp of other outputs that follow from the same.

        `without`: beginning of the names of inputs that they do not follow from.
        """
        inputs = self.content["inputs"].items()
        kept = {n: i for n, i in inputs if not (without and n.startswith(without))}
        return Stamp(path, self.content["settings"], kept, outputs)

    def facts(self) -> dict[str, Any]:
        """Return what was written beside the stamp's own parts."""
        return {name: v for name, v in self._read().items() if name not in PARTS}

    def _read(self) -> dict[str, Any]:
        """Return the file; empty when it is absent or broken."""
        try:
            return read_json(self.path, "")
        except UserError:
            return {}

    def changes(self, found: Mapping[str, Any] | None = None) -> list[str]:
        """Return the names of the inputs, settings and outputs that differ; none: up to date.

        `found`: a stamp that is kept elsewhere than in the file.
        """
        then, now = self._read(), {**self.content, "outputs": self._made()}
        if found is not None:
            then, now = found, self.content
        if then.get("format") != FORMAT:
            return [f"{self.path.name} (of another version, or broken)"]
        return [n for key in now if key != "format" for n in _differ(then, now, key)]

    def is_current(self, name: str | Path = "") -> bool:
        """Whether the outputs follow from these inputs; says what has changed since they were made.

        `name`: of the outputs, in that line; without it nothing is said.
        """
        changed = ranks.from_main(self.changes())
        if changed and name and self.path.exists():
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            print(f"{name} is out of date: {', '.join(changed[:NAMED])}{more} changed")
        return not changed

    def write(self, **facts: Any) -> None:
        """Write the stamp and `facts`, which must not be named as its own parts."""
        write_json(self.path, {**self.content, "outputs": self._made(), **facts})

    def _made(self) -> dict[str, str]:
        folder = self.path.parent
        return {os.path.relpath(path, folder): digest(path) for path in self.outputs}


def differs_from_stamp(output: Path, stamp: Path) -> bool:
    """Whether an output is not what the stamp that was written with it says."""
    outputs = Stamp(stamp, {}, {})._read().get("outputs")
    stated = outputs.get(output.name) if isinstance(outputs, dict) else None
    return stated is not None and stated != digest(output)


def digest(path: str | Path) -> str:
    """Return the sha256 of a file, or that it is absent; an unchanged file is read once."""
    try:
        state = os.stat(path)
        key = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
        young = time.time_ns() - state.st_ctime_ns < SETTLED
        return sha256(path) if young else _settled_digest(os.path.abspath(path), key)
    except OSError:
        return ABSENT


def folder_files(folder: Path) -> dict[str, Path]:
    """Return the files directly in a folder by `<folder>/<file>`, hidden ones left out."""
    files = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
    return {f"{folder.name}/{file.name}": file for file in files if file.is_file()}


@functools.lru_cache(maxsize=1 << 16)
def _settled_digest(path: str, state: tuple[int, ...]) -> str:
    return sha256(path)


def _differ(then: Any, now: Any, key: str, name: str = "") -> Iterator[str]:
    """Yield the names below `key` whose values differ, nested ones as `outer.inner`."""
    old, new = then.get(key), now.get(key)
    if isinstance(old, dict) and isinstance(new, dict):
        for inner in sorted(old.keys() | new.keys()):
            yield from _differ(old, new, inner, f"{name}.{inner}".lstrip("."))
    elif old != new or (key in then) != (key in now):
        yield name or key
