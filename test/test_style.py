"""ruff and shellcheck over the whole repository."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("test/**", "tools", "utils", "egs/*", "egs/*/local")
SCRIPTS = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.sh"))
SCRIPTS.append(ROOT / ".ci" / "run")
# bash 3.2 (macOS) has none of these.
TOO_NEW = {
    "mapfile": r"\b(mapfile|readarray)\b",
    "associative array": r"\b(declare|local|typeset) -\w*A",
    "reference variable": r"\b(declare|local|typeset) -\w*n",
    "change of case": r"\$\{\w+(\^|,)",
    "transformation": r"\$\{\w+(\[@\])?@[A-Z]\}",
    "negative index": r"\[-\d+\]\}",
    "wait -n": r"\bwait -n",
    "coproc": r"\bcoproc\b",
    "|&": r"\|&",
    "&>>": r"&>>",
    "$BASHPID": r"\$\{?BASHPID",
    "$EPOCHSECONDS": r"\$\{?EPOCH",
}


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr


def test_no_two_test_files_have_one_name() -> None:
    """Pytest would collect only one of them, and stop there if it is given both."""
    names = Counter(path.name for path in ROOT.glob("test/**/test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_shellcheck() -> None:
    assert len(SCRIPTS) >= 8
    program = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([program, *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_run_with_bash_3(script: Path) -> None:
    code = [re.sub(r"(^|\s)#.*", "", line) for line in script.read_text().splitlines()]
    found = {name for name, form in TOO_NEW.items() for line in code if re.search(form, line)}
    assert not found


@pytest.mark.parametrize("line", ["declare -A x", 'echo "${x^^}"', "wait -n", "a |& b", "${a[-1]}"])
def test_bash_4_is_noticed(line: str) -> None:
    assert any(re.search(form, line) for form in TOO_NEW.values())
