"""tools/install.sh, up to the point where it would download: the rest takes minutes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = ("setup.py", "tools/install.sh", "tools/constraints.txt", "tools/check_install.py")
LINE = "tools/venv is complete: Python 3.11.7, torch 2.13.0+cpu"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the installer needs of the repository, in a folder with a space."""
    root = tmp_path / "a copy"
    (root / "tools").mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, root / name)
    return root


def install(root: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "AUDIORL_"))}
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        settings.pop(name, None)
    return subprocess.run(
        [root / "tools" / "install.sh", *options],
        cwd="/",
        env={**settings, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def complete(root: Path, torch: str = "cpu") -> None:
    """Leaves in `root` what an installation leaves there at its end."""
    (root / "tools" / "venv" / "bin").mkdir(parents=True)
    (root / "tools" / "venv" / "bin" / "python").symlink_to(sys.executable)
    files = "setup.py tools/constraints.txt tools/install.sh"
    command = f'{{ echo "$PWD" && cat {files}; }} | cksum'
    fingerprint = subprocess.check_output(["bash", "-c", command], cwd=root, text=True)
    (root / "tools" / "venv" / ".audiorl").write_text(f"{fingerprint}{torch}\n{LINE}\n")


def test_a_second_call_is_one_line(copy: Path) -> None:
    complete(copy, "cuda")
    for options in ([], ["--torch", "cuda"], ["--torch=cuda"]):
        done = install(copy, *options, PATH="/usr/bin:/bin")
        assert (done.returncode, done.stdout, done.stderr) == (0, LINE + "\n", "")
    assert not (copy / "tools" / "install.log").exists()


@pytest.mark.parametrize("change", ["constraints", "torch", "python", "unfinished"])
def test_what_has_changed_is_installed(copy: Path, change: str) -> None:
    """The lock of another installation, this test's, keeps it from going further."""
    complete(copy)
    (copy / "tools" / "install.lock").symlink_to(str(os.getpid()))
    options = ["--torch", "2.12.1"] if change == "torch" else []
    if change == "constraints":
        with open(copy / "tools" / "constraints.txt", "a") as stream:
            stream.write("six==1.17.0\n")
    elif change == "python":
        (copy / "tools" / "venv" / "bin" / "python").unlink()
    elif change == "unfinished":
        (copy / "tools" / "venv" / ".audiorl").unlink()
    done = install(copy, *options)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: process {os.getpid()} is installing already")


def test_without_an_index_it_says_so_and_goes_on_later(copy: Path) -> None:
    (copy / "tools" / "install.lock").symlink_to("999999999")  # of a process long gone
    offline = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
    }
    for label in (f"environment, of {shutil.which('python3.11') or ''}", "environment ..."):
        done = install(copy, "--torch=cpu", **offline)
        assert done.returncode == 1
        assert f"[1/5] {label}" in done.stdout
        assert "[2/5] torch==" in done.stdout and done.stdout.endswith("failed\n")
        error, again = done.stderr.splitlines()
        assert error.startswith("error: pip does not reach its package index")
        assert "install.sh --torch=cpu" in again.partition("Continue with: ")[2]
        assert not (copy / "tools" / "install.lock").exists()
    assert not (copy / "tools" / "venv" / ".audiorl").exists()


def test_an_unfit_python_is_refused(copy: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    needed = "bash dirname sed cat cksum ln readlink rm mkdir"
    for name in needed.split():
        (programs / name).symlink_to(shutil.which(name))
    for name in ("python3.11", "python3", "python"):  # too old, and one that only says so
        (programs / name).write_text("#!/bin/bash\nexit 1\n")
        (programs / name).chmod(0o755)
    done = install(copy, PATH=str(programs))
    assert done.returncode == 1
    assert done.stderr == (
        "error: no Python 3.11, 3.12 or 3.13 on PATH can make an environment; install one.\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--torhc", "cpu"], "--torhc is no option"),
        (["--torch"], "--torch needs cpu, cuda or a version such as 2.13.0, not 'missing'"),
        (["--torch", "rocm"], "not 'rocm'"),
        (["--torch=$(touch harm)"], "not '$(touch harm)'"),
        (["cuda"], "cuda is no option"),
        (["--into-active"], "no environment is active"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "-",
)
def test_wrong_options_are_refused(copy: Path, options: list[str], message: str) -> None:
    done = install(copy, *options)
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert {path.name for path in (copy / "tools").iterdir()} == {Path(x).name for x in FILES[1:]}


def test_an_environment_that_lacks_nothing_is_left_alone(copy: Path) -> None:
    done = install(copy, "--into-active", AUDIORL_PYTHON=sys.executable)
    assert (done.returncode, done.stdout) == (0, f"{sys.executable} lacks nothing.\n")
    assert not (copy / "tools" / "install.log").exists()


def test_help_is_the_header(copy: Path) -> None:
    done = install(copy, "--help")
    assert done.returncode == 0 and "--into-active" in done.stdout
    assert "set -euo" not in done.stdout and "#" not in done.stdout
