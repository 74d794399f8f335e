"""Locks: another process is refused while the holder lives, and not a moment longer."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deaths import a_dead_process

from audiorl.errors import UserError
from audiorl.runtime import locks
from audiorl.runtime.files import remove_leftovers
from audiorl.runtime.locks import exclusive

HOLD = """\
import sys, time
from pathlib import Path
from audiorl.runtime.locks import exclusive
with exclusive(Path(sys.argv[1]), *sys.argv[2:]) as lock:
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path, *name: str) -> subprocess.Popen:
    """A process that holds a folder until its input ends."""
    command = [sys.executable, "-c", HOLD, folder, *name]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_in_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "exp" / "sft"
    process = holder(folder)
    whose = f"process {process.pid} on {socket.gethostname()}"
    with pytest.raises(UserError, match=f"^{folder} is being written by {re.escape(whose)}, or"):
        with exclusive(folder):
            pass
    assert process.communicate()[0] == "" and process.returncode == 0
    with exclusive(folder):
        pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_death_releases_it(how: signal.Signals, tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.send_signal(how)
    process.wait()
    with exclusive(tmp_path):
        pass


def test_what_a_killed_holder_started_keeps_it(tmp_path: Path) -> None:
    with exclusive(tmp_path) as lock:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE, pass_fds=[lock.fileno()],
        )  # fmt: skip
    with pytest.raises(UserError, match=f"process {os.getpid()} on .*, or by a program that it"):
        with exclusive(tmp_path):
            pass
    child.communicate()
    with exclusive(tmp_path):
        pass


def test_files_of_a_folder_have_a_lock_each(tmp_path: Path) -> None:
    process = holder(tmp_path, "a.jsonl")
    with exclusive(tmp_path, "b.jsonl"), exclusive(tmp_path):
        pass
    with pytest.raises(UserError, match=r"/a\.jsonl is being written by process"):
        with exclusive(tmp_path, "a.jsonl"):
            pass
    process.communicate()


def test_a_disk_without_locks_is_used_all_the_same(tmp_path: Path, monkeypatch, capsys) -> None:
    def refuse(*_) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with exclusive(tmp_path):
        pass
    assert capsys.readouterr().err == f"{tmp_path}: not locked (Function not implemented)\n"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/exp.*: cannot be written"):
        with exclusive(tmp_path / "file" / "exp"):
            pass


def test_what_a_killed_holder_was_writing_is_removed(tmp_path: Path) -> None:
    dead = a_dead_process()
    gone = [tmp_path / "model" / f".w.{dead}.tmp", tmp_path / f".rl.meta.json.{dead}.tmp"]
    kept = [tmp_path / f".w.{os.getpid()}.tmp", tmp_path / ".set.tmp", tmp_path / f"w.{dead}.tmp"]
    (tmp_path / "model").mkdir()
    for path in gone + kept:
        path.touch()
    with exclusive(tmp_path, "rl.jsonl"):  # a file's lock: that file's leftovers
        assert [path.exists() for path in gone + kept] == [True, False, True, True, True]
    with exclusive(tmp_path):
        assert [path.exists() for path in gone + kept] == [False, False, True, True, True]


def test_a_file_of_a_process_whose_number_another_has_got_is_removed(tmp_path: Path) -> None:
    old, new = tmp_path / f".old.{os.getpid()}.tmp", tmp_path / f".new.{os.getpid()}.tmp"
    for path in (old, new):
        path.write_text("")
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    os.utime(old, (boot, boot))
    remove_leftovers([old, new])
    assert new.exists() and not old.exists()
