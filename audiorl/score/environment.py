"""What a result was made with: versions, commit, machine."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import audiorl

PACKAGES = ("torch", "transformers", "espnet", "torchaudio", "numpy")


def environment() -> dict[str, str]:
    """Name to value, in the order they are shown; nothing heavy is imported for it."""
    versions = {f"{name} version": _version(name) for name in PACKAGES}
    return {
        "date": datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "audiorl version": audiorl.__version__,
        "git commit": _commit(),
        "python version": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "CPU": _cpu(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    """Hash and date of the commit of audiorl's checkout; `dirty` when files differ from it."""
    git = ["git", "-C", str(Path(audiorl.__file__).parent)]
    try:
        shown = subprocess.run(
            [*git, "log", "-1", "--format=%h of %cs"], capture_output=True, text=True, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "none (not a git checkout)"
    return shown.stdout.strip() + (", dirty" if changes.stdout.strip() else ", clean")


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            models = [line.partition(":")[2].strip() for line in stream if "model name" in line]
    except OSError:
        models = []
    return f"{len(models)} x {models[0]}" if models else platform.processor() or "unknown"
