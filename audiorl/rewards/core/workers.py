"""Rewards computed in processes of their own while the device continues."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from itertools import groupby
from logging.handlers import QueueHandler, QueueListener

from audiorl.config.schema import Config
from audiorl.rewards.core.build import build_rewards
from audiorl.rewards.core.combine import WeightedSum
from audiorl.rewards.core.reward import BatchRewards, Models, Sample

_rewards: Callable[[Sequence[Sample]], BatchRewards] | None = None  # of a worker process


@contextlib.contextmanager
def open_rewards(
    config: Config, models: Models | None = None
) -> Iterator[WeightedSum | RewardWorkers]:
    """Open the rewards of a run: in this process, or in `rl.reward_workers` others.

    `models`: those that rewards of synthesis need; they run in this process.
    """
    if not config.rl.reward_workers:
        yield build_rewards(config, models)
        return
    workers = RewardWorkers(config, config.rl.reward_workers)
    try:
        yield workers
    finally:
        workers.close()


class RewardWorkers:
    """Processes that reward samples as `build_rewards(config)` does."""

    def __init__(self, config: Config, workers: int) -> None:
        # Forked from this process, they would inherit its threads' locks.
        context = multiprocessing.get_context("spawn")
        self.workers = workers
        messages = context.Queue()
        self._listener = QueueListener(messages, *logging.getLogger().handlers)
        self._pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start, initargs=(config, messages)
        )
        self._listener.start()

    def submit(self, samples: Sequence[Sample]) -> Callable[[], BatchRewards]:
        """Begin to reward samples; the function returned waits for their rewards.

        The samples of an utterance are consecutive, and are rewarded together.
        """
        groups = [list(group) for _, group in groupby(samples, lambda s: s.utterance.id)]
        share = -(-len(groups) // self.workers)
        parts = [
            [sample for group in groups[i : i + share] for sample in group]
            for i in range(0, len(groups), share)
        ]
        coming = [self._pool.submit(_reward, part) for part in parts]
        return lambda: reduce(BatchRewards.join, (future.result() for future in coming))

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)
        self._listener.stop()


def _start(config: Config, messages: multiprocessing.Queue) -> None:
    global _rewards
    logging.getLogger().addHandler(QueueHandler(messages))
    _rewards = build_rewards(config)


def _reward(samples: list[Sample]) -> BatchRewards:
    return _rewards(samples)
