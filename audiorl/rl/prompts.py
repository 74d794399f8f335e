"""Prompts of each step: subsets by their weights, and an order inside each.

    shuffle      epochs of all utterances, each in an order of its own
    curriculum   at random among the easiest, and among ever more (competence-based curriculum,
                 arXiv 1903.09848, with a linear pace)
    reweight     at random, in proportion to how much the rewards of an utterance lately differed:
                 a group without spread has no gradient (the control, which has no rewards, goes by
                 those of stage 4)

What is random is a function of the seed and the step; what else counts is `state`, which
checkpoints hold.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from audiorl.config.schema import Config
from audiorl.data.rl_set import Item
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError

EASIEST = (
    0.25  # share of the utterances that a curriculum begins with; at half of the run it has all
)
UNIFORM = 0.2  # share of the draws that reweighting leaves to chance, so that nobody is lost
MEMORY = 0.5  # weight of the spread that an utterance had before, against the one it has now


class Prompts:
    """The prompts of each step, no utterance twice in one: both would draw the same hypotheses."""

    def __init__(self, items: Sequence[Item], config: Config) -> None:
        """Raises UserError if a subset is too small or lacks the difficulty that an order needs."""
        self.rl, self.seed = config.rl, config.seed
        self.utterances = [item.utterance for item in items]
        self.places_of = {u.id: i for i, u in enumerate(self.utterances)}
        weights = {name: weight for item in items for name, weight in item.subsets.items()}
        names = sorted(weights)
        self.shares = np.array([weights[name] for name in names]) / sum(weights.values())  # [S]
        self.subsets = [
            np.array([i for i, item in enumerate(items) if name in item.subsets]) for name in names
        ]
        for name, share, subset in zip(names, self.shares, self.subsets, strict=True):
            _refuse_small(name, len(subset), math.ceil(round(share * self.rl.num_prompts, 6)))
        if self.rl.prompt_order == "curriculum":
            ease = np.array([_known(item, item.reward_mean) for item in items])
            self.subsets = [s[np.argsort(-ease[s], kind="stable")] for s in self.subsets]
        reweight = self.rl.prompt_order == "reweight"
        self.spread = np.array([_known(item, item.reward_std) for item in items if reweight])
        self.credit = np.zeros(len(names))  # prompts that each subset is due
        self.turns = [(0, 0)] * len(names)  # shuffle: epoch, and place in it

    @property
    def state(self) -> dict[str, list]:
        """State that later steps depend on, besides the seed; plain types."""
        return {
            "credit": self.credit.tolist(),
            "turns": list(self.turns),
            "spread": self.spread.tolist(),
        }

    def restore(self, state: Mapping[str, list]) -> None:
        """Goes on where `state` was taken."""
        self.credit, self.spread = np.array(state["credit"]), np.array(state["spread"])
        self.turns = [tuple(turn) for turn in state["turns"]]

    def draw(self, step: int) -> list[Utterance]:
        """The `rl.num_prompts` prompts of a step."""
        return self._draw(self.rl.num_prompts, set(), step, 0)

    def longest(self) -> list[Utterance]:
        """Return the `rl.num_prompts` longest, by duration; texts alone by characters."""
        order = sorted(self.utterances, key=lambda u: (u.duration or 0.0, len(u.text)))
        return order[: -self.rl.num_prompts - 1 : -1]

    def more(self, step: int, attempt: int, taken: set[str], count: int) -> list[Utterance]:
        """`count` others that are not `taken`, fewer if there are no more."""
        return self._draw(count, {self.places_of[name] for name in taken}, step, attempt + 1)

    def learn(self, spreads: Mapping[str, float]) -> None:
        """Takes note of the standard deviations of the rewards that utterances earned, by id."""
        if self.rl.prompt_order == "reweight":
            for name, spread in spreads.items():
                i = self.places_of[name]
                self.spread[i] = MEMORY * self.spread[i] + (1 - MEMORY) * spread

    def _draw(self, count: int, taken: set[int], step: int, attempt: int) -> list[Utterance]:
        chosen: list[int] = []
        for index, quota in enumerate(self._quotas(count)):
            used = taken | set(chosen)
            if self.rl.prompt_order == "shuffle" and attempt == 0:
                chosen += self._next(index, quota, used)
            else:
                chosen += self._random(index, quota, used, step, attempt)
        if len(chosen) < count:  # a subset has nobody left: what it lacks comes from all
            rng = np.random.default_rng([self.seed, step, attempt, len(self.subsets)])
            used = taken | set(chosen)
            others = (i for i in rng.permutation(len(self.utterances)).tolist() if i not in used)
            chosen += itertools.islice(others, count - len(chosen))
        return [self.utterances[i] for i in chosen]

    def _quotas(self, count: int) -> list[int]:
        """Split `count` prompts among the subsets by their shares, exactly in the long run.

        Smooth weighted round-robin: each draw credits all with their shares, and the richest pays.
        """
        quotas = [0] * len(self.shares)
        for _ in range(count):
            self.credit += self.shares
            richest = int(self.credit.argmax())
            self.credit[richest] -= 1
            quotas[richest] += 1
        return quotas

    def _next(self, index: int, quota: int, used: set[int]) -> list[int]:
        """The next of an epoch. A rest that is too few for `quota` is skipped."""
        epoch, first = self.turns[index]
        found = self._in_epoch(index, epoch, first, quota, used)
        if len(found) < quota:
            epoch, first = epoch + 1, 0
            found = self._in_epoch(index, epoch, first, quota, used)
        self.turns[index] = (epoch, found[-1][0] + 1 if found else first)
        return [i for _, i in found]

    def _in_epoch(
        self, index: int, epoch: int, first: int, quota: int, used: set[int]
    ) -> list[tuple[int, int]]:
        """(place, utterance) of the next `quota` in an epoch, from the place `first` on."""
        subset = self.subsets[index]
        order = subset[_shuffled(len(subset), self.seed, epoch, index)].tolist()
        places = range(first, len(order))
        free = ((place, order[place]) for place in places if order[place] not in used)
        return list(itertools.islice(free, quota))

    def _random(self, index: int, quota: int, used: set[int], step: int, attempt: int) -> list[int]:
        """At random, without repetition, by weights: the first to ring of exponential clocks."""
        subset, rl = self.subsets[index], self.rl
        if rl.prompt_order == "curriculum":
            subset = subset[: max(quota, math.ceil(self._pace(step) * len(subset)))]
        weights = np.ones(len(subset))
        if rl.prompt_order == "reweight":
            spread = self.spread[subset]
            weights = (1 - UNIFORM) * spread / (spread.mean() or 1.0) + UNIFORM
        rng = np.random.default_rng([self.seed, step, attempt, index])
        order = subset[np.argsort(rng.exponential(size=len(subset)) / weights)].tolist()
        return [i for i in order if i not in used][:quota]

    def _pace(self, step: int) -> float:
        """Share of the utterances that the curriculum has reached."""
        return EASIEST + (1 - EASIEST) * min(1.0, step / max(1, self.rl.max_steps // 2))


@functools.lru_cache(maxsize=32)
def _shuffled(size: int, seed: int, epoch: int, index: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, index]).permutation(size)


def _known(item: Item, value: float | None) -> float:
    if value is None:
        raise UserError(
            f"{item.utterance.id} has no difficulty, which rl.prompt_order looks at; build the RL "
            "set (stage 4), or set rl.prompt_order: shuffle."
        )
    return value


def _refuse_small(name: str, size: int, quota: int) -> None:
    if size < quota:
        raise UserError(
            f"subset {name} of the RL set has {size} utterances, fewer than its share of a step "
            f"({quota} prompts); make it larger, or lower its weight or rl.num_prompts."
        )
