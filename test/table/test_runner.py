"""Jobs: done once, side by side, with logs; failures stop no other; nothing outlives the driver."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audiorl.config import Config, load_config
from audiorl.errors import UserError
from audiorl.runtime.locks import exclusive
from audiorl.table.plan import Job
from audiorl.table.runner import Failure, run_jobs

ROOT = Path(__file__).resolve().parents[2]
# A stage that appends its words to a file, and fails or waits when asked to.
STAGE = """\
import os, sys, time
out, *words = sys.argv[1:]
with open(out, "a") as stream:
    print(*words, os.environ.get("OMP_NUM_THREADS"), file=stream)
if "fail" in words:
    sys.exit("error: it was asked to fail.")
if "die" in words:
    os.kill(os.getpid(), 9)
if "wait" in words:
    time.sleep(600)
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a job of stages, each given by its words."""
    (tmp_path / "stage.py").write_text(STAGE)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "input").write_text("1")

    def make(name: str, *stages: str, config: Config | None = None) -> Job:
        path, output = tmp_path / name, tmp_path / f"{name}.out"
        commands = tuple(("stage", str(output), *words.split()) for words in stages)
        return Job(path, name, config or Config(), commands, (tmp_path / "input",), output)

    return make


def run(folder: Path, *jobs: Job, slots: int = 1) -> list[Failure]:
    with exclusive(folder) as lock:
        return run_jobs(jobs, slots, lock)


def test_stages_run_in_order_and_once(tmp_path: Path, job, capsys) -> None:
    one = job("one", "a b", "c")
    assert not one.is_done()
    assert run(tmp_path, one) == []
    assert one.is_done()
    assert one.output.read_text() == "a b None\nc None\n"
    log = (tmp_path / "one.log").read_text().splitlines()
    assert [line.split()[:4] for line in log] == 2 * [["+", "python", "-m", "stage"]]
    assert load_config(tmp_path / "one.yaml") == Config()
    assert re.search(r"one: started, see .*one\.log\none: done in \d+ s\n", capsys.readouterr().out)
    assert run(tmp_path, one) == []
    assert capsys.readouterr().out == "one: done before\n"
    assert one.output.read_text().count("\n") == 2


def test_what_changes_is_done_again(tmp_path: Path, job) -> None:
    one = job("one", "a")
    run(tmp_path, one)
    (tmp_path / "input").write_text("22")
    assert not one.is_done()
    run(tmp_path, one)
    assert one.is_done() and one.output.read_text().count("\n") == 2
    assert not job("one", "a", "b").is_done()
    other = Config()
    other.rl.beta = 0.5
    assert not job("one", "a", config=other).is_done()
    other.encoder.init = str(tmp_path / "checkpoint")  # a file that the config names
    Path(other.encoder.init).write_text("1")
    two = job("two", "a", config=other)
    run(tmp_path, two)
    assert two.is_done()
    Path(other.encoder.init).write_text("22")
    assert not two.is_done()
    one.output.unlink()
    assert not one.is_done()
    one.output.touch()
    assert one.is_done()
    for text in ("", "[", '{"inputs": "x"}', '{"format": 99}'):
        one.file(".done.json").write_text(text)
        assert not one.is_done()


def test_contents_count_and_not_dates(tmp_path: Path, job) -> None:
    one, path = job("one", "a"), tmp_path / "input"
    run(tmp_path, one)
    state = path.stat()
    for times in ((1, 1), (4e9, 4e9)):
        os.utime(path, times)
        assert one.is_done()
    path.write_text("2")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert not one.is_done()
    path.write_text("1")
    assert one.is_done()


def test_a_failure_stops_no_other(tmp_path: Path, job, capsys) -> None:
    jobs = [job("bad", "a", "fail", "never"), job("dead", "die"), job("good", "a")]
    failures = run(tmp_path, *jobs)
    assert [str(failure) for failure in failures] == [
        "bad: stage (code 1): error: it was asked to fail.",
        "dead: stage (ended by SIGKILL, often for want of memory): "
        f"+ python -m stage {tmp_path}/dead.out die",
    ]
    assert [one.is_done() for one in jobs] == [False, False, True]
    assert "never" not in jobs[0].output.read_text()
    assert "FAILED bad: stage (code 1)" in capsys.readouterr().out
    # Mended, only what is left is done.
    again = [job("bad", "a", "b"), job("dead", "b"), jobs[2]]
    assert run(tmp_path, *again) == []
    assert "good: done before\n" in capsys.readouterr().out
    assert (tmp_path / "bad.log").read_text().count("+ python -m stage") == 4


def test_jobs_side_by_side_share_the_cores(tmp_path: Path, job, monkeypatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    jobs = [job(name, "a") for name in "abc"]
    assert run(tmp_path, *jobs, slots=2) == []
    assert all(one.output.read_text() == "a 3\n" for one in jobs)
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert run(tmp_path, job("d", "a"), slots=2) == []
    assert (tmp_path / "d.out").read_text() == "a 5\n"


def test_after_each(tmp_path: Path, job) -> None:
    seen: list[int] = []
    jobs = [job("a", "x"), job("b", "fail"), job("c", "x")]
    with exclusive(tmp_path) as lock:
        run_jobs(jobs, 1, lock, lambda: seen.append(sum(one.is_done() for one in jobs)))
    assert seen == [1, 1, 2]


DRIVER = """\
import sys
from pathlib import Path
from audiorl.bin import cli
from audiorl.config import Config
from audiorl.table.plan import Job
from audiorl.runtime.locks import exclusive
from audiorl.table.runner import run_jobs
folder = Path(sys.argv[1])
jobs = [Job(folder / n, n, Config(), (("stage", str(folder / n), "wait"),), (), folder / n)
        for n in "abc"]
def main():
    with exclusive(folder) as lock:
        run_jobs(jobs, 2, lock)
cli.run(main)
"""


def started(folder: Path, expect: int) -> subprocess.Popen:
    """A driver whose jobs wait; returns when `expect` of them have begun."""
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, folder])
    for _ in range(1200):
        if sum((folder / name).exists() for name in "abc") == expect:
            return driver
        time.sleep(0.05)
    driver.kill()
    raise AssertionError("the jobs did not start")


def test_terminated_it_ends_what_it_started(tmp_path: Path, job) -> None:
    driver = started(tmp_path, expect=2)
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(timeout=60) == 143
    assert not (tmp_path / "c").exists()
    with exclusive(tmp_path):  # nobody holds it any more
        pass


def test_what_outlives_a_killed_driver_keeps_the_next_one_out(tmp_path: Path, job) -> None:
    driver = started(tmp_path, expect=2)
    with pytest.raises(UserError, match=r"is being written by process .*, or by a program that it"):
        run(tmp_path, job("x", "a"))
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    if not children.exists():
        driver.terminate()
        pytest.skip("this kernel does not list the children of a process")
    # Started by threads of the driver: they are listed below the thread that started them.
    tasks = Path(f"/proc/{driver.pid}/task").glob("*/children")
    left = [int(pid) for task in tasks for pid in task.read_text().split()]
    driver.kill()
    driver.wait()
    try:
        with pytest.raises(UserError, match="is being written by process"):
            run(tmp_path, job("x", "a"))
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    for _ in range(200):
        try:
            assert run(tmp_path, job("x", "a")) == []
            return
        except UserError:
            time.sleep(0.05)
    raise AssertionError("the lock was not released")
