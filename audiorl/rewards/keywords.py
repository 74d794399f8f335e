"""Names, brands and terms: R3 of the paper (section 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.data.utterance import Utterance
from audiorl.rewards.core.counting import errors
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text.align import Counts
from audiorl.text.keywords import Reading, count_loosely, keyword_scores, read, read_all


@dataclass
class Options(RewardOptions):
    """The measure, and how exactly a keyword has to stand in a text."""

    measure: str = key(
        "f1",
        "mean: of precision and recall, as in the paper",
        choices=("f1", "precision", "recall", "mean"),
    )
    boundary: int = key(1, "letters that a word may have before or after the keyword", ge=0)


def build(options: Options, context: Context) -> Reward:
    """Return F1, precision, recall or their mean (the paper's) over the utterance's keywords.

    It applies to utterances with keywords. A keyword said once but output twice counts against
    precision, and a hypothesis with half of the reference's units wrong or more gets 0: keywords
    among filler are no transcript, whatever the weight. Keywords that are not said count only if
    the hypothesis has them; with none said and none output the value is 1.
    """
    normalizer = context.score.normalizer

    def units(text: str) -> Reading:
        return read(text, normalizer)

    def phrases(utterance: Utterance) -> frozenset[Reading]:
        return read_all(utterance.keywords, normalizer)

    def one(sample: Sample) -> float:
        ref, hyp = units(sample.utterance.text), units(sample.text)
        if 2 * errors(ref.normal, hyp.normal).errors >= len(ref.normal):
            return 0.0
        counts = count_loosely(ref, hyp, phrases(sample.utterance), options.boundary)
        return _measure(counts, options.measure)

    return Reward(
        lambda samples: [one(sample) for sample in samples],
        applies=lambda utterance: bool(phrases(utterance)),
    )


def _measure(counts: Counts, name: str) -> float:
    scores = keyword_scores(counts)
    if name == "mean":
        return (scores["precision"] + scores["recall"]) / 2
    return scores[name]
