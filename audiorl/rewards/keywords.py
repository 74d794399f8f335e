"""R3 of the paper (section 4.1): names, brands and terms."""

from __future__ import annotations

from collections.abc import Sequence

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.data.utterance import Utterance
from audiorl.rewards.base import Reward, Sample, errors
from audiorl.text.align import Counts
from audiorl.text.keywords import Reading, count_loosely, keyword_scores, read, read_all


def keywords(score: ScoreConfig, options: RewardConfig) -> Reward:
    """F1, precision, recall or their mean (the paper's) over the utterance's keywords.

    It applies to utterances with keywords. Said twice by the hypothesis but once by the speaker
    counts against precision, and a hypothesis with half of the reference's units wrong or more
    earns nothing: keywords among filling are no transcript, whatever the weight. Keywords that the
    speaker does not say count only if the hypothesis has them; with none said and none heard the
    value is 1.
    """

    def units(text: str) -> Reading:
        return read(text, score.normalizer)

    def phrases(utterance: Utterance) -> set[Reading]:
        return read_all(utterance.keywords, score.normalizer)

    def one(sample: Sample) -> float:
        ref, hyp = units(sample.utterance.text), units(sample.text)
        if 2 * errors(ref.normal, hyp.normal).errors >= len(ref.normal):
            return 0.0
        counts = count_loosely(ref, hyp, phrases(sample.utterance), options.boundary)
        return _measure(counts, options.measure)

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [one(sample) for sample in samples]

    return Reward(reward, applies=lambda utterance: bool(phrases(utterance)))


def _measure(counts: Counts, name: str) -> float:
    scores = keyword_scores(counts)
    if name == "mean":
        return (scores["precision"] + scores["recall"]) / 2
    return scores[name]
