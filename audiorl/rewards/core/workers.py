"""Rewards computed in processes of their own while the device continues."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import groupby

from audiorl.config.rewards import MODELS, REWARDS
from audiorl.config.schema import Config
from audiorl.rewards.core.build import build_rewards
from audiorl.rewards.core.combine import WeightedSum
from audiorl.rewards.core.reward import BatchRewards, Models, Sample
from audiorl.runtime import ranks
from audiorl.runtime.processes import Helper


@contextlib.contextmanager
def open_rewards(
    config: Config, models: Models | None = None
) -> Iterator[WeightedSum | RewardWorkers]:
    """Open the rewards of a run: in this process, or in `rl.reward_workers` others of a machine.

    `models`: those that rewards of synthesis need; they run in this process. A module of the user
    that needs none has at least one process, so that it cannot end the run.
    """
    rewards = config.rl.rewards
    users = any(REWARDS.plugin(reward.name) for reward in rewards)
    alone = any(MODELS.intersection(reward.needs) for reward in rewards)
    count = config.rl.reward_workers or int(users and not alone)
    count = -(-count // ranks.local_size())
    if not count:
        yield build_rewards(config, models)
        return
    workers = RewardWorkers(config, count)
    try:
        yield workers
    finally:
        workers.close()


class RewardWorkers:
    """Processes that reward samples as `build_rewards(config)` does."""

    def __init__(self, config: Config, workers: int) -> None:
        self.workers = workers
        self._all = [Helper("rewards", build_rewards, config) for _ in range(workers)]
        self._free: queue.SimpleQueue[Helper] = queue.SimpleQueue()
        for helper in self._all:
            self._free.put(helper)
        self._waiting = ThreadPoolExecutor(workers, "rewards of workers")

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
        coming = [self._waiting.submit(self._reward, part) for part in parts]
        return lambda: reduce(BatchRewards.join, (future.result() for future in coming))

    def _reward(self, samples: list[Sample]) -> BatchRewards:
        helper = self._free.get()
        try:
            return helper.call(samples)
        finally:
            self._free.put(helper)

    @property
    def pids(self) -> list[int]:
        """Return the numbers of the processes."""
        return [helper.pid for helper in self._all]

    def close(self) -> None:
        """End the processes, whatever they do."""
        for helper in self._all:
            helper.close()
        self._waiting.shutdown(cancel_futures=True)
