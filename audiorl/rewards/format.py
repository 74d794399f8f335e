"""Form of the output as a regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text.silence import ANNOTATION


@dataclass
class Options(RewardOptions):
    """The expression; by default anything on one line without brackets, bars and the like."""

    kinds, penalty = ("sample", "gate"), True

    pattern: str = key(
        r"[^\n<>()\[\]{}|`*（）［］＜＞]*",
        "regular expression that the whole output, not normalised, has to match",
    )

    def problems(self) -> Iterator[str]:
        try:
            re.compile(self.pattern)
        except re.error as error:
            yield f"pattern is no regular expression ({error}); fix it"


def build(options: Options, context: Context) -> Reward:
    """Return -1 unless the hypothesis ends by itself and all of it matches `pattern`, else 0.

    Annotations of the reference, [laughter] say, are looked over: whoever writes them is right.
    """
    pattern = re.compile(options.pattern)

    def reward(samples: Sequence[Sample]) -> list[float]:
        fits = [s.finished and pattern.fullmatch(_without_annotations(s)) for s in samples]
        return [0.0 if ok else -1.0 for ok in fits]

    return Reward(reward)


def _without_annotations(sample: Sample) -> str:
    """Return the output without the annotations of the reference, each as often as it is there."""
    text = sample.text
    for annotation in ANNOTATION.findall(sample.utterance.text):
        text = text.replace(annotation, "", 1)
    return text
