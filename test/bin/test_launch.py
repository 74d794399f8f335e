"""Several processes end together, however one of them ends, with the message of that one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from deaths import MARK, left_of

from audiorl.bin.launch import _signals_handed_on

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ("killed", "refused", "wrong", "sleep", "interrupted", "launcher_killed")
SENT = {
    "interrupted": signal.SIGINT,
    "launcher_killed": signal.SIGKILL,
}


class Launch:
    """A launcher of two processes, and what is left of them."""

    def __init__(self, fault: str, folder: Path) -> None:
        self.fault, self.folder = fault, folder
        folder.mkdir()
        program = ["-m", "steps_together", fault, str(folder)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "audiorl.bin.launch", "--num_processes", "2", *program],
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'test'}", MARK: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> Launch:
        if self.fault in SENT:
            for _ in range(6000):
                if (self.folder / "steps").exists():
                    break
                time.sleep(0.05)
            self.process.send_signal(SENT[self.fault])
        _, self.said = self.process.communicate(timeout=500)
        self.code = self.process.returncode
        self.left = left_of(self.folder, 20)
        self.saved = sorted(path.name for path in self.folder.glob("saved_*"))
        return self


@pytest.fixture(scope="module")
def launches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Launch]:
    root = tmp_path_factory.mktemp("launches")
    begun = [Launch(fault, root / fault) for fault in FAULTS]
    return {launch.fault: launch.finish() for launch in begun}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_process_is_left(fault: str, launches: dict[str, Launch]) -> None:
    assert launches[fault].left == []


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        (
            "killed",
            137,
            r"error: rank 1: it was ended by SIGKILL, for want of memory as a rule; run",
        ),
        ("refused", 1, r"error: rank 1: s2-dev003: no such file; format the set again\."),
        ("wrong", 1, r"error: rank 1: Traceback .*ValueError: a mistake of ours"),
        ("sleep", 1, r"error: rank 0: waited 5 s for rank 1 in vain; look at what it does"),
    ],
)
def test_the_one_that_failed_says_why(
    fault: str, code: int, sentence: str, launches: dict[str, Launch]
) -> None:
    launch = launches[fault]
    assert re.search(sentence, launch.said, re.DOTALL), launch.said
    assert launch.code == code
    assert launch.said.count("Traceback") == (fault == "wrong")


def test_a_signal_before_the_processes_are_there_ends_it() -> None:
    child = os.fork()
    if child == 0:
        code = 99
        try:
            with _signals_handed_on():
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
        except SystemExit as ended:
            code = ended.code
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 143


def test_a_signal_lets_all_save(launches: dict[str, Launch]) -> None:
    launch = launches["interrupted"]
    assert launch.code == 130, launch.said
    assert launch.saved == ["saved_0", "saved_1"]
    assert "which is saved; run the same command to continue" in launch.said
