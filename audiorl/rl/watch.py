"""The watch over reward hacking: a reward that rises while an independent judge hears less.

A policy that finds out what its reward model overrates is paid for speech that nobody else
understands. The judge never rewards, so it shows this: from then on the two disagree.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from audiorl.score.significance import rate_interval
from audiorl.text.align import Counts

log = logging.getLogger(__name__)

TREND = 0.6  # of four evaluations, five of the six pairs agree
SAMPLES = 1000  # of the bootstrap

# Step, the reward model's score, and the judge's errors of each utterance in so many units, [U].
Look = tuple[int, float, list[int], list[int]]


class HackingWatch:
    """Looks at the latest `window` evaluations; `action`: never, flag or stop (rl.early_stop).

    A judge's error wavers from evaluation to evaluation, as speech is sampled: of a flat one, every
    sixth window of four has such a trend. So it also has to be higher than at the window's start,
    beyond what the draw of utterances explains (paired bootstrap, 95 %).

    `history` is what a run that is resumed had seen.
    """

    def __init__(self, action: str, window: int, history: Iterable[Look] = ()) -> None:
        self.action = action
        self.window = window
        self.history = [tuple(seen) for seen in history]  # plain, for saving

    def look(self, step: int, reward: float, judged: Sequence[Counts]) -> dict[str, float]:
        """Notes an evaluation; returns metrics to log.

        `reward`: the reward model's score, the higher, the better. `judged`: what the judge heard
        of each utterance, the same ones in every call.
        """
        errors, units = ([getattr(c, name) for c in judged] for name in ("errors", "units"))
        self.history.append((step, reward, errors, units))
        flagged = self.is_hacking
        _, rewards, scores = self._latest()
        if flagged:
            log.warning(
                "reward hacking? From step %d to %d the reward model's score went from %.4g to "
                "%.4g and the judge's from %.4g to %.4g%s",
                self.history[-self.window][0], step, rewards[0], rewards[-1], scores[0], scores[-1],
                "; the run ends (rl.early_stop)" if self.should_stop else "",
            )  # fmt: skip
        return {
            "eval/reward_model": reward,
            "eval/judge": scores[-1],
            "hacking/reward_trend": trend(rewards),
            "hacking/judge_trend": trend(scores),
            "hacking/flag": float(flagged),
        }

    @property
    def is_hacking(self) -> bool:
        """Whether over the window the reward rises and the judge's score falls."""
        if self.action == "never" or len(self.history) < self.window:
            return False
        latest, rewards, scores = self._latest()
        if trend(rewards) < TREND or trend(scores) > -TREND:
            return False
        (*_, before, units), (*_, after, _) = latest[0], latest[-1]
        more = np.subtract(after, before)  # [U], errors: both are drawn with the same utterances
        return rate_interval(more, np.array(units), SAMPLES, seed=0)[0] > 0

    @property
    def should_stop(self) -> bool:
        """Whether the run is to end; it is also true of a run resumed after that."""
        return self.action == "stop" and self.is_hacking

    def _latest(self) -> tuple[list[Look], list[float], list[float]]:
        """The window, with its rewards and the judge's scores."""
        latest = self.history[-self.window :]
        scores = [1 - sum(errors) / max(sum(units), 1) for *_, errors, units in latest]
        return latest, [reward for _, reward, *_ in latest], scores


def trend(values: Sequence[float]) -> float:
    """Kendall's tau of values against their order: 1 if each is above the last, -1 if below.

    It asks how many pairs rise, not how far: one lucky evaluation is no trend.
    """
    pairs = list(combinations(values, 2))
    signs = [(later > earlier) - (later < earlier) for earlier, later in pairs]
    return sum(signs) / len(pairs) if pairs else 0.0
