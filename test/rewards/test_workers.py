"""Rewards in processes of their own are those of this process."""

from __future__ import annotations

import time

import pytest

from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.rewards import Sample, build_rewards
from audiorl.rewards.core.workers import RewardWorkers, open_rewards


def some_samples() -> list[Sample]:
    texts = ["turn on the light", "go", "", "what a day it is"]
    utterances = [
        Utterance(f"u{i}", "x.wav", text, "s", duration=1.0) for i, text in enumerate(texts)
    ]
    heard = ["turn the light", "go", "turn on on the light", ""]
    return [Sample(u, text, True) for u in utterances for text in heard]


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
    until = time.monotonic() + 30
    while "unscorable" not in caplog.text and time.monotonic() < until:
        time.sleep(0.05)
    assert "reward wer failed on 1 of 1 samples" in caplog.text


def test_without_workers_it_is_this_process() -> None:
    with open_rewards(Config()) as rewards:
        assert (
            rewards.submit(some_samples()[:4])().total
            == build_rewards(Config())(some_samples()[:4]).total
        )
