"""The watch over reward hacking: a reward that rises while an independent judge hears less.

A policy that finds out what its reward model overrates is paid for speech that nobody else
understands. The judge never rewards, so it shows this: from then on the two disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import combinations

log = logging.getLogger(__name__)

TREND = 0.6  # of four evaluations, five of the six pairs agree


class HackingWatch:
    """Looks at the latest `window` evaluations; `action`: never, flag or stop (rl.early_stop).

    `history` is what a run that is resumed had seen.
    """

    def __init__(
        self, action: str, window: int, history: Iterable[tuple[int, float, float]] = ()
    ) -> None:
        self.action = action
        self.window = window
        self.history = [tuple(seen) for seen in history]  # (step, reward, judge); plain, for saving

    def look(self, step: int, reward: float, judge: float) -> dict[str, float]:
        """Notes an evaluation; both scores: the higher, the better. Returns metrics to log."""
        self.history.append((step, reward, judge))
        flagged = self.is_hacking
        if flagged:
            (first, then, heard), *_, (_, now, hears) = self.history[-self.window :]
            log.warning(
                "reward hacking? From step %d to %d the reward model's score went from %.4g to "
                "%.4g and the judge's from %.4g to %.4g%s",
                first, step, then, now, heard, hears,
                "; the run ends (rl.early_stop)" if self.should_stop else "",
            )  # fmt: skip
        rewards, judged = self._trends()
        return {
            "eval/reward_model": reward,
            "eval/judge": judge,
            "hacking/reward_trend": rewards,
            "hacking/judge_trend": judged,
            "hacking/flag": float(flagged),
        }

    @property
    def is_hacking(self) -> bool:
        """Whether over the window the reward rises and the judge's score falls."""
        if self.action == "never" or len(self.history) < self.window:
            return False
        reward, judge = self._trends()
        return reward >= TREND and judge <= -TREND

    @property
    def should_stop(self) -> bool:
        """Whether the run is to end; it is also true of a run resumed after that."""
        return self.action == "stop" and self.is_hacking

    def _trends(self) -> tuple[float, float]:
        _, rewards, judged = zip(*self.history[-self.window :], strict=True)
        return trend(rewards), trend(judged)


def trend(values: tuple[float, ...]) -> float:
    """Kendall's tau of values against their order: 1 if each is above the last, -1 if below.

    It asks how many pairs rise, not how far: one lucky evaluation is no trend.
    """
    pairs = list(combinations(values, 2))
    signs = [(later > earlier) - (later < earlier) for earlier, later in pairs]
    return sum(signs) / len(pairs) if pairs else 0.0
