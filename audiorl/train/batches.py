"""Batches of the warm start: functions of the seed and the step, so nothing has to be saved."""

from __future__ import annotations

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
