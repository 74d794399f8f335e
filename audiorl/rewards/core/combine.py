"""Several rewards as one number: terms by weighted sum or harmonic mean, then gates."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.rewards.core.attempts import Attempts, by_utterance, one_by_one
from audiorl.rewards.core.reward import BatchRewards, Reward, RewardFunction, Sample

log = logging.getLogger(__name__)


class WeightedSum:
    """The sum of the rewards that apply to a sample, times their weights; a gate replaces it.

    Where several gates are below 0, the lowest counts. A sample that no term applies to has the
    total 0 if a gate applies (a recording without speech, say) and is unscorable otherwise.
    """

    def __init__(
        self,
        rewards: Mapping[str, tuple[Reward | RewardFunction, float]],
        recordings: int | None = None,
    ) -> None:
        """Take name -> reward (a plain function is one of kind `sample`) and weight.

        recordings: the sample rate at which samples get the recording as their wave; None: not.
        """
        self.recordings = recordings
        self.rewards = {
            name: (reward if isinstance(reward, Reward) else Reward(reward), weight)
            for name, (reward, weight) in rewards.items()
        }
        self.terms = [name for name, (r, _) in self.rewards.items() if r.kind != "gate"]
        self.gates = [name for name, (r, _) in self.rewards.items() if r.kind == "gate"]

    def tell_coverage(self, utterances: Sequence[Utterance]) -> None:
        """Log which rewards apply to only some of the utterances; warn of one that never does."""
        for name, (reward, _) in self.rewards.items():
            found = sum(map(reward.applies, utterances))
            if found < len(utterances):
                level = logging.INFO if found else logging.WARNING
                log.log(
                    level, "reward %s: applies to %d of %d utterances", name, found, len(utterances)
                )

    def submit(self, samples: Sequence[Sample]) -> Callable[[], BatchRewards]:
        """Reward samples at once, with the interface of `RewardWorkers`."""
        rewards = self(samples)
        return lambda: rewards

    def __call__(self, samples: Sequence[Sample]) -> BatchRewards:
        """Reward samples; those of one utterance are consecutive."""
        if self.recordings:
            samples = _with_recordings(samples, self.recordings)
        rows = [{} for _ in samples]  # name -> value, of the rewards that apply
        failed = [""] * len(samples)
        for name, (reward, _) in self.rewards.items():
            chosen = [i for i, s in enumerate(samples) if reward.applies(s.utterance)]
            found = _values(name, reward, [samples[i] for i in chosen])
            for i, (value, why) in zip(chosen, found, strict=True):
                rows[i][name] = value
                if why and not failed[i]:
                    failed[i] = f"{name} ({why})"
        parts = {name: [row.get(name, math.nan) for row in rows] for name in self.rewards}
        weights = {name: self.rewards[name][1] for name in self.terms}
        return BatchRewards([self._total(row) for row in rows], parts, weights, failed)

    def _total(self, row: dict[str, float]) -> float:
        if not row or any(map(math.isnan, row.values())):
            return math.nan
        fired = [self.rewards[name][1] * row[name] for name in self.gates if row.get(name, 0) < 0]
        terms = [name for name in self.terms if name in row]
        return min(fired) if fired else self._combine(terms, row) if terms else 0.0

    def _combine(self, terms: list[str], row: dict[str, float]) -> float:
        return sum(self.rewards[name][1] * row[name] for name in terms)


class HarmonicMean(WeightedSum):
    """The weighted harmonic mean in place of the sum: bad in one is bad in all.

    Of values between 0 and 1; lower ones count as 0, and of a penalty p, 1 + p is taken.
    """

    def _combine(self, terms: list[str], row: dict[str, float]) -> float:
        weights = [self.rewards[name][1] for name in terms]
        values = [row[name] + self.rewards[name][0].penalty for name in terms]
        if min(values) <= 0:
            return 0.0
        return sum(weights) / sum(w / value for w, value in zip(weights, values, strict=True))


def _values(name: str, reward: Reward, samples: list[Sample]) -> list[tuple[float, str]]:
    """Return the values of a reward; NaN where it has none, and why."""
    attempts = Attempts(name, reward)
    if reward.kind == "group":
        values = [value for group in by_utterance(samples) for value in attempts.ask(group)]
    else:  # hypotheses of an utterance that are the same are scored once
        distinct = {_content(sample): sample for sample in samples}
        asked = list(distinct.values())
        scored = attempts.ask(asked, by_utterance, one_by_one) if asked else []
        found = dict(zip(distinct, scored, strict=True))
        values = [found[_content(sample)] for sample in samples]
    attempts.log()
    if lost := sum(math.isnan(value) for value, _ in values):
        log.warning("reward %s: %d of %d samples are unscorable", name, lost, len(values))
    return values


def _with_recordings(samples: Sequence[Sample], rate: int) -> list[Sample]:
    """Return the samples with their recordings, each read once, as their waves."""
    utterances = {sample.utterance.id: sample.utterance for sample in samples}
    waves = {name: read_audio(utterance, rate) for name, utterance in utterances.items()}
    return [replace(s, wave=waves[s.utterance.id], sample_rate=rate) for s in samples]


def _content(sample: Sample) -> tuple:
    return sample.utterance.id, sample.text, sample.finished, sample.tokens, id(sample.wave)
