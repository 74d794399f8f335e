"""Batches: of like lengths, of an update, and those that are functions of the seed and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np

from audiorl.runtime.files import progress


class Timed(Protocol):
    """An utterance, as far as batches look at it."""

    id: str
    duration: float  # s


T = TypeVar("T")
U = TypeVar("U", bound=Timed)


def seconds(utterance: Timed) -> float:
    """Return the length of an utterance in s."""
    return utterance.duration


def epoch_batches(
    items: Sequence[T],
    size: float,
    seed: int,
    epoch: int,
    length: Callable[[T], float] = seconds,
) -> list[list[T]]:
    """Return all items once, in batches of like `length` that hold `size`, padding included."""
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
    """Yield batches of epoch after epoch without end, from batch number `first` on."""
    epoch = 0
    while True:
        batches = epoch_batches(items, size, seed, epoch, length)
        yield from batches[first:]
        first = max(0, first - len(batches))
        epoch += 1


def padded_batches(lengths: Sequence[float], most: float) -> Iterator[list[int]]:
    """Yield places of like lengths together; a batch holds `most` in all, padding included."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        # The first of a batch is its longest, and sets the width of all.
        if batch and lengths[batch[0]] * (len(batch) + 1) > most:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def batches_by_seconds(utterances: Sequence[U], most: float) -> Iterator[list[U]]:
    """Yield utterances of like length together, `most` seconds in a batch, padding included."""
    named = sorted(utterances, key=lambda u: u.id)
    for batch in padded_batches([u.duration for u in named], most):
        yield [named[i] for i in batch]


def shown_batches(desc: str, utterances: Sequence[U], most: float) -> Iterator[list[U]]:
    """Yield `batches_by_seconds`, with a progress bar."""
    with progress(desc=desc, total=len(utterances), unit="utt") as bar:
        for batch in batches_by_seconds(utterances, most):
            yield batch
            bar.update(len(batch))


def mini_batches(prompts: int, size: int) -> list[list[int]]:
    """Return the prompts of each update: `size` in turn, or all of them (size 0)."""
    size = size or prompts
    return [list(range(i, min(i + size, prompts))) for i in range(0, prompts, size)]


def some(items: list[T], count: int) -> list[T]:
    """Return `count` items, always the same and from all over; all of them if count is 0."""
    if count == 0 or count >= len(items):
        return items
    chosen = np.random.default_rng(0).choice(len(items), count, replace=False)
    return [items[i] for i in sorted(chosen)]
