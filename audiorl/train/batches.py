"""Batches of the warm start: functions of the seed and the step, so nothing has to be saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from audiorl.data.utterance import Utterance

T = TypeVar("T")


def seconds(utterance: Utterance) -> float:
    """The length of an utterance."""
    return utterance.duration


def epoch_batches(
    items: Sequence[T],
    size: float,
    seed: int,
    epoch: int,
    length: Callable[[T], float] = seconds,
) -> list[list[T]]:
    """All items once, in batches of like `length`, which add up to `size` padding included."""
    rng = np.random.default_rng([seed, epoch])
    # Lengths are blurred by a tenth, so that an utterance meets other company in each epoch.
    lengths = np.array([length(item) for item in items])
    order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)), kind="stable")
    batches: list[list[T]] = [[]]
    longest = 0.0
    for i in order:
        longest = max(longest, lengths[i])
        if batches[-1] and longest * (len(batches[-1]) + 1) > size:
            batches.append([])
            longest = lengths[i]
        batches[-1].append(items[i])
    rng.shuffle(batches)
    return batches


def batch_stream(
    items: Sequence[T],
    size: float,
    seed: int,
    first: int,
    length: Callable[[T], float] = seconds,
) -> Iterator[list[T]]:
    """Endless batches of bucketed epochs, from batch number `first` on."""
    epoch = 0
    while True:
        batches = epoch_batches(items, size, seed, epoch, length)
        yield from batches[first:]
        first = max(0, first - len(batches))
        epoch += 1
