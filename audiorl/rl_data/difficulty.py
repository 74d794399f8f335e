"""Difficulty of an utterance, from the hypotheses of systems."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

from audiorl.config.rewards import reward_options
from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance
from audiorl.rewards import Context, Sample, build_reward
from audiorl.rewards.hallucination import UNIT
from audiorl.rl.advantages import flat_groups, group_std
from audiorl.rl_data.probe import Probe
from audiorl.text.align import count_errors
from audiorl.text.detectors import loops
from audiorl.text.normalise import normal_units


@dataclass(frozen=True)
class Difficulty:
    """Results of a policy on one utterance. Rates are fractions."""

    reward_mean: float  # of the sampled hypotheses; NaN if none of them can be scored
    reward_std: float
    reward_best: float
    flat: bool  # all rewards equal: such a group has no gradient
    pass_rate: float  # share of the samples without an error
    # Error rate of the greedy hypothesis; None if normalisation leaves nothing of the reference.
    error: float | None
    disagreement: float  # 0 .. 1, mean distance between systems' hypotheses
    repeats: bool  # the speaker, or the greedy hypothesis of a system, says the same over and over
    hallucinated: float  # share of the hypotheses with what is not in the audio


class DifficultyMeasure:
    """Measures difficulty in the units of scoring."""

    def __init__(self, config: Config) -> None:
        self.score = config.score
        # As the reward sees it, if there is one: what counts as too fast is a setting of its.
        given = [reward for reward in config.rl.rewards if reward.name == "hallucination"]
        options = given[0] if given else reward_options("hallucination")
        self.hallucination = build_reward(options, Context(config.score))

    def __call__(self, utterance: Utterance, probe: Probe, others: Sequence[str]) -> Difficulty:
        """The difficulty of an utterance; `others`: greedy hypotheses of further systems."""
        ref = self.units(utterance.text)
        rewards = torch.tensor([probe.rewards], dtype=torch.float64)
        said = [probe.greedy, *probe.samples]
        ended = [True, *probe.finished]
        samples = [Sample(utterance, *how) for how in zip(said, ended, strict=True)]
        severity = self.hallucination.function(samples)
        passed = [count_errors(ref, self.units(s)).rate <= 0 for s in probe.samples]
        if not utterance.has_speech:
            passed = [value == 0 for value in severity[1:]]
        scorable = not rewards.isnan().all()
        return Difficulty(
            reward_mean=rewards.nanmean().item(),
            reward_std=group_std(rewards).item(),
            reward_best=rewards.nan_to_num(-math.inf).max().item() if scorable else math.nan,
            flat=flat_groups(rewards).item(),
            pass_rate=fmean(passed),
            error=count_errors(ref, self.units(probe.greedy)).rate if ref else None,
            disagreement=self._disagreement(probe, others),
            repeats=self._repeats(utterance.text, [probe.greedy, *others]),
            hallucinated=fmean(value < 0 for value in severity),
        )

    def units(self, text: str) -> tuple[str, ...]:
        """Return the units that errors are counted in."""
        return normal_units(text, self.score.normalizer, self.score.unit)

    def _repeats(self, reference: str, hypotheses: Sequence[str]) -> bool:
        ref = normal_units(reference, self.score.normalizer, UNIT)
        said = (normal_units(text, self.score.normalizer, UNIT) for text in hypotheses)
        return bool(loops(ref)) or any(loops(units, ref) for units in said)

    def _disagreement(self, probe: Probe, others: Sequence[str]) -> float:
        """Mean of errors / length of the longer, over the pairs of systems.

        Without further systems, over the pairs of the greedy hypothesis and a sample.
        """
        pairs = itertools.combinations([probe.greedy, *others], 2)
        if not others:
            pairs = ((probe.greedy, sample) for sample in probe.samples)
        return fmean(self._distance(self.units(one), self.units(other)) for one, other in pairs)

    @staticmethod
    def _distance(one: Sequence[str], other: Sequence[str]) -> float:
        return count_errors(one, other).errors / max(len(one), len(other), 1)
