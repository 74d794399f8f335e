"""Whatever ends a command ends it in one sentence that a terminal can show."""

from __future__ import annotations

import errno
import io
import sys

import pytest
import torch

from audiorl.bin import cli
from audiorl.errors import UserError, reason, visible


def ended(error: BaseException, monkeypatch: pytest.MonkeyPatch, encoding: str = "utf-8") -> str:
    """Return what a command says that ends with `error`."""
    said = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(said, encoding))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        cli.run(main)
    assert end.value.code == 1
    sys.stderr.flush()
    return said.getvalue().decode(encoding)


def allocation() -> RuntimeError:
    try:
        torch.empty(2**60)
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (UserError("a is b; fix it."), "error: a is b; fix it.\n"),
        (MemoryError(), "error: memory has ended (MemoryError); free some, or lower"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "memory has ended (CUDA out of mem"),
        (allocation(), "error: memory has ended ("),
        (OSError(errno.ENOSPC, "No space left on device", "x/y"), "x/y: No space left on device;"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "error: Disk quota exceeded; free the disk"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), "error: x: Permission denied;"),
    ],
    ids=repr,
)
def test_a_sentence(error: BaseException, sentence: str, monkeypatch) -> None:
    said = ended(error, monkeypatch)
    assert sentence in said and said.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("a mistake of ours"), FileNotFoundError(2, "x")])
def test_mistakes_of_ours_keep_their_traceback(error: Exception) -> None:
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        cli.run(main)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_of_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = ended(UserError("说话人 has no text"), monkeypatch, encoding)
    assert said.endswith(" has no text\n")


def test_a_long_message_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ended(UserError("begins " + "x" * 3_000_000 + " ends"), monkeypatch)
    assert said.startswith("error: begins") and said.endswith(" ends\n") and len(said) < 5000
    assert len(reason(ValueError("x" * 3_000_000))) < 400


def test_control_characters_are_shown() -> None:
    assert visible("a\x1b[31m\x07\r\x9b2J b\u202ec") == r"a\x1b[31m\x07\r\x9b2J b\u202ec"
    assert visible("今天 ünï\n") == "今天 ünï\n"
