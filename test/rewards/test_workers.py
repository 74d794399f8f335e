"""Rewards in processes of their own are those of this process."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rewards import Sample, build_rewards
from audiorl.rewards.core.workers import RewardWorkers, open_rewards


def some_samples() -> list[Sample]:
    texts = ["turn on the light", "go", "", "what a day it is"]
    utterances = [
        Utterance(f"u{i}", "x.wav", text, "s", duration=1.0) for i, text in enumerate(texts)
    ]
    heard = ["turn the light", "go", "turn on on the light", ""]
    return [Sample(u, text, True) for u in utterances for text in heard]


def with_workers(count: int) -> Config:
    config = Config()
    config.rl.reward_workers = count
    return config


@pytest.fixture(scope="module")
def workers():
    found = RewardWorkers(Config(), 2)
    yield found
    found.close()


def test_scores_are_those_of_one_process(workers: RewardWorkers) -> None:
    samples = some_samples()
    expected = build_rewards(Config())(samples)
    first, second = workers.submit(samples), workers.submit(samples[:4])
    assert repr(first()) == repr(expected)  # NaN included: nothing can be scored without reference
    assert second().total == expected.total[:4]


def test_what_a_worker_says_reaches_the_log(workers: RewardWorkers, caplog) -> None:
    """A reward that fails makes its samples unscorable, and the log has the reason."""
    bad = [Sample(some_samples()[0].utterance, None, True)]  # no text at all
    assert str(workers.submit(bad)().total) == "[nan]"
    assert "unscorable" in caplog.text
    assert "reward wer failed on 1 of 1 samples" in caplog.text


def test_without_workers_it_is_this_process() -> None:
    with open_rewards(Config()) as rewards:
        assert (
            rewards.submit(some_samples()[:4])().total
            == build_rewards(Config())(some_samples()[:4]).total
        )


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [child for one in map(int, found) for child in (one, *children(one))]


def gone(pids: list[int]) -> bool:
    """Wait until the processes are no more, or only wait to be collected."""
    for pid in pids:
        handle = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
        if handle is not None:
            ready = select.select([handle], [], [], 60)[0]
            os.close(handle)
            if not ready:
                return False
    return True


def test_a_killed_worker_is_one_sentence() -> None:
    others = children(os.getpid())
    with pytest.raises(UserError, match=r"rewards ended \(it was killed.*; run the same command"):
        with open_rewards(with_workers(1)) as rewards:
            assert rewards.submit(some_samples())().total
            (child,) = set(children(os.getpid())) - set(others)
            os.kill(child, signal.SIGKILL)
            rewards.submit(some_samples())()
    assert gone([child])


HUNG = """
import sys, time
from pathlib import Path
from audiorl.bin import cli
from audiorl.config.rewards import reward_options
from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.rewards import Sample
from audiorl.rewards.core.workers import open_rewards

def main():
    config = Config()
    config.rl.rewards = [reward_options("file", reward_file="mine.py")]
    config.rl.reward_workers = 2
    with open_rewards(config) as rewards:
        rewards.submit([Sample(Utterance("u", "", "a", "s"), "a", True)])()

cli.run(main)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_hung_workers_end_with_their_parent(tmp_path: Path, sign: signal.Signals) -> None:
    (tmp_path / "mine.py").write_text(
        "import time\ndef reward(samples):\n    print('hangs', flush=True)\n    time.sleep(600)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", HUNG], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert run.stdout.readline() == b"hangs\n"
    late = time.monotonic() + 60
    while len(found := children(run.pid)) < 4 and time.monotonic() < late:
        time.sleep(0.1)  # the other worker may still be beginning
    assert len(found) == 4  # a worker's reward file has a process of its own
    run.send_signal(sign)
    assert gone(found)
    expected = {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}
    assert run.wait(60) == expected[sign]
    assert b"Traceback" not in run.communicate()[1]
