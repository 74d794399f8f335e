"""Style of the whole repository: ruff, shellcheck, and the words of the package."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
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

# Docstrings begin with a verb or a noun.
RIDDLE = re.compile(r"(what|who|whose|where|which|how|that|those|such|the same)\b", re.IGNORECASE)
# The words that the field does not use; Heard and Ear as parts of names of classes.
DIALECT = re.compile(r"[Tt]aught|[Tt]eaching|[Ll]essons?|[Mm]end(s|ed|ing|able)?|Heard|Ears?")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # also within identifiers: TokenEar


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


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of each docstring of a file."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def words(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, word) of identifiers that a file defines or uses, and of its strings."""
    for node in ast.walk(tree):
        texts = [getattr(node, name, None) for name in ("id", "attr", "name", "arg", "value")]
        for text in filter(lambda text: isinstance(text, str), texts):
            for word in WORD.findall(text):
                yield getattr(node, "lineno", 0), word


def offences(tree: ast.Module) -> list[str]:
    """Docstrings that begin with a riddle, and words of the dialect, each with its line."""
    found = [f"{line}: {text[:40]}" for line, text in docstrings(tree) if RIDDLE.match(text)]
    return found + [f"{line}: {word}" for line, word in words(tree) if DIALECT.fullmatch(word)]


def test_the_prose_is_plain() -> None:
    found = []
    for path in sorted((ROOT / "audiorl").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(ROOT)}:{offence}" for offence in offences(tree)]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        '"""What it is."""',
        'def f():\n    """The same."""',
        "class TokenEar: ...",
        "mended = 1",
        "def f(taught): ...",
        "f(lesson=1)",
        'raise UserError(f"{x}: mend it.")',
    ],
)
def test_riddles_and_dialect_are_noticed(code: str) -> None:
    assert len(offences(ast.parse(code))) == 1


@pytest.mark.parametrize("code", ['"""Whatever."""', "heard = search.ear", "recommended = earned"])
def test_other_words_are_not(code: str) -> None:
    assert not offences(ast.parse(code))


def test_no_two_classes_or_constants_have_one_name() -> None:
    """`Options` of the rewards alone: each reward's module has its own, found by that name."""
    places: dict[str, list[str]] = {}
    for path in sorted((ROOT / "audiorl").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [n.name for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
        names += constants(tree)
        for name in set(names) - {"Options"}:
            places.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def constants(tree: ast.Module) -> Iterator[str]:
    """Names of a module in capitals; those of one letter are types."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in ast.walk(node):
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store):
                    if target.id.isupper() and len(target.id) > 1:
                        yield target.id
