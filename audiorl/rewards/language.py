"""Language: the hypothesis is in that of the reference (the gate of Fun-ASR)."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text.detectors import covered, foreign
from audiorl.text.normalise import normal_units


@dataclass
class Options(RewardOptions):
    """A gate by default: the wrong language makes the total -1."""

    kinds, penalty = ("gate", "sample"), True


def build(options: Options, context: Context) -> Reward:
    """Return -1 if half of the hypothesis or more is in another script or language, else 0.

    It applies to utterances with a reference.
    """

    def units(text: str) -> tuple[str, ...]:
        return normal_units(text, context.score.normalizer, "mixed")

    def one(sample: Sample) -> float:
        hyp = units(sample.text)
        strange = covered(foreign(hyp, units(sample.utterance.text)))
        return -1.0 if strange and 2 * strange >= len(hyp) else 0.0

    return Reward(
        lambda samples: [one(sample) for sample in samples],
        applies=lambda utterance: bool(units(utterance.text)),
    )
