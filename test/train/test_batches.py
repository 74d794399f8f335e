"""Batches are functions of seed and step, and lose nobody."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from audiorl.data.utterance import Utterance
from audiorl.train.batches import batch_stream, epoch_batches, more_prompts, step_prompts


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


@pytest.mark.parametrize(("size", "count"), [(7, 3), (16, 16), (16, 4), (5, 5), (9, 1), (100, 16)])
def test_prompts_meet_no_one_twice_in_an_epoch(size: int, count: int) -> None:
    """Whole steps only: what is left of an epoch waits for another."""
    utterances = some_utterances(size)
    row = [u.id for step in range(8 * size) for u in step_prompts(utterances, count, 1, step)]
    epoch = size // count * count
    epochs = [row[i : i + epoch] for i in range(0, len(row), epoch)]
    for ids in epochs:
        assert len(set(ids)) == len(ids)
    assert set(row) == {u.id for u in utterances}
    assert size < 3 or epochs[0] != epochs[1]


def test_more_prompts_are_others() -> None:
    utterances = some_utterances(9)
    taken = {u.id for u in utterances[:6]}
    found = more_prompts(utterances, 1, 3, 0, taken, 2)
    assert len({u.id for u in found} - taken) == 2
    assert found == more_prompts(utterances, 1, 3, 0, taken, 2)
    assert len(more_prompts(utterances, 1, 3, 0, taken, 5)) == 3
    draws = {tuple(u.id for u in more_prompts(utterances, 1, 3, n, set(), 4)) for n in range(5)}
    assert len(draws) > 1


def test_prompts_are_a_function_of_seed_and_step() -> None:
    utterances = some_utterances(50)
    assert step_prompts(utterances, 8, 1, 5) == step_prompts(utterances, 8, 1, 5)
    assert step_prompts(utterances, 8, 1, 5) != step_prompts(utterances, 8, 1, 6)
    assert step_prompts(utterances, 8, 1, 5) != step_prompts(utterances, 8, 2, 5)
    order = [u.id for u in step_prompts(utterances, 50, 1, 0)]
    assert order != sorted(order)
