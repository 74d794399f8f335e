"""Batches are functions of seed and step, and lose nobody."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from audiorl.data.utterance import Utterance
from audiorl.runtime.batching import batch_stream, epoch_batches


def some_utterances(count: int) -> list[Utterance]:
    lengths = np.random.default_rng(0).uniform(0.5, 12, count)
    return [Utterance(f"u{i:03d}", "", "", "s", duration=float(d)) for i, d in enumerate(lengths)]


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_an_epoch_holds_everyone_once(count: int) -> None:
    utterances = some_utterances(count)
    for epoch in range(3):
        batches = epoch_batches(utterances, 30.0, seed=1, epoch=epoch)
        assert sorted(u.id for batch in batches for u in batch) == [u.id for u in utterances]
        assert all(batches)


def test_batches_hold_so_many_seconds_padding_included() -> None:
    batches = epoch_batches(some_utterances(200), 30.0, seed=1, epoch=0)
    padded = [max(u.duration for u in batch) * len(batch) for batch in batches]
    assert all(
        seconds <= 30 or len(batch) == 1 for seconds, batch in zip(padded, batches, strict=True)
    )
    spoken = sum(u.duration for batch in batches for u in batch)
    assert spoken / sum(padded) > 0.85  # like lengths together: little padding


def test_an_utterance_longer_than_a_batch_is_one() -> None:
    utterances = [*some_utterances(5), Utterance("long", "", "", "s", duration=500.0)]
    batches = epoch_batches(utterances, 30.0, seed=1, epoch=0)
    assert [[u.id for u in batch] for batch in batches if len(batch) == 1].count(["long"]) == 1


def test_epochs_and_seeds_differ_and_come_back() -> None:
    utterances = some_utterances(60)

    def ids(seed: int, epoch: int) -> list[list[str]]:
        return [[u.id for u in b] for b in epoch_batches(utterances, 30.0, seed, epoch)]

    assert ids(1, 0) == ids(1, 0)
    assert ids(1, 0) != ids(1, 1)
    assert ids(1, 0) != ids(2, 0)
    # Another order, and also other company.
    assert {frozenset(batch) for batch in ids(1, 0)} != {frozenset(batch) for batch in ids(1, 1)}
    lengths = [epoch_batches(utterances, 30.0, 1, 0)[i][0].duration for i in range(10)]
    assert lengths != sorted(lengths)


@pytest.mark.parametrize("first", [0, 1, 5, 17, 40, 123])
def test_a_stream_may_begin_anywhere(first: int) -> None:
    utterances = some_utterances(40)
    whole = itertools.islice(batch_stream(utterances, 30.0, 3, 0), first, first + 30)
    later = itertools.islice(batch_stream(utterances, 30.0, 3, first), 30)
    assert list(whole) == list(later)
