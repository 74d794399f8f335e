"""Which utterances a step sees: a function of the seed and the step, so nothing has to be saved."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from audiorl.data.utterance import Utterance


def epoch_batches(
    utterances: Sequence[Utterance], batch_seconds: float, seed: int, epoch: int
) -> list[list[Utterance]]:
    """All utterances once, in batches of like length (padding included in `batch_seconds`)."""
    rng = np.random.default_rng([seed, epoch])
    # Lengths are blurred by a tenth, so that an utterance meets other company in each epoch.
    lengths = np.array([u.duration for u in utterances])
    order = np.argsort(lengths * rng.uniform(0.9, 1.1, len(lengths)), kind="stable")
    batches: list[list[Utterance]] = [[]]
    longest = 0.0
    for i in order:
        longest = max(longest, lengths[i])
        if batches[-1] and longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = lengths[i]
        batches[-1].append(utterances[i])
    rng.shuffle(batches)
    return batches


def batch_stream(
    utterances: Sequence[Utterance], batch_seconds: float, seed: int, first: int
) -> Iterator[list[Utterance]]:
    """Endless batches of bucketed epochs, from batch number `first` on."""
    epoch = 0
    while True:
        batches = epoch_batches(utterances, batch_seconds, seed, epoch)
        yield from batches[first:]
        first = max(0, first - len(batches))
        epoch += 1


def step_prompts(
    utterances: Sequence[Utterance], count: int, seed: int, step: int
) -> list[Utterance]:
    """The `count` prompts of a step: consecutive pieces of shuffled epochs.

    What is left at the end of an epoch, too few for a step, is skipped: no utterance is twice in a
    step, where both would draw the same hypotheses.
    """
    epoch, place = divmod(step, len(utterances) // count)
    order = _shuffled(len(utterances), seed, epoch)
    return [utterances[i] for i in order[place * count : (place + 1) * count]]


def more_prompts(
    utterances: Sequence[Utterance], seed: int, step: int, attempt: int, taken: set[str], count: int
) -> list[Utterance]:
    """`count` random utterances that are not `taken`, fewer if there are no more."""
    order = np.random.default_rng([seed, step, attempt, len(utterances)]).permutation(
        len(utterances)
    )
    fresh = (utterances[i] for i in order if utterances[i].id not in taken)
    return list(itertools.islice(fresh, count))


@functools.lru_cache(maxsize=2)
def _shuffled(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(size)
