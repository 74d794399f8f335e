"""One utterance of recognition scored: what was said, what was heard, and how they differ."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from audiorl.config.decoding import ScoreConfig
from audiorl.data.utterance import Utterance
from audiorl.score import failures, ratio, tts
from audiorl.score.formatting import Formatting, formatting
from audiorl.score.tts import Judged
from audiorl.text import keywords
from audiorl.text.align import Alignment, Counts, align, count_errors
from audiorl.text.detectors import count_words
from audiorl.text.keywords import Phrase, Reading
from audiorl.text.normalise import normalizer, split_units, spoken

SOURCE = "source"  # tag: the recording that this is made of, which other conditions share


@dataclass(frozen=True)
class ScoredUtterance:
    """One utterance with its hypothesis, both normalised; of a set without speech as written."""

    set: str
    utterance: Utterance
    ref: str
    hyp: str
    alignment: Alignment  # in units of the main error rate
    counts: dict[str, Counts]  # by unit: word, char and the main one
    said: Counter[Phrase]  # keywords of the set, in the reference
    heard: Counter[Phrase]  # and in the hypothesis
    biased: tuple[Counts, Counts]  # of the units in keywords (B-WER) and of the others (U-WER)
    formatting: Formatting
    flags: tuple[str, ...]  # names of failures, see `failures`
    judged: Judged | None = None  # of synthesis: what else was found in the wave

    @property
    def sound_columns(self) -> dict[str, float]:
        """Return the columns that the metrics of synthesis sum up (`tts.METRICS`)."""
        failed = {name: int(name in self.flags) for name in failures.NAMES}
        one = {ratio.UTTERANCES: 1}
        return tts.columns(self.judged, self.counts["char"].units) | failed | one

    @property
    def source(self) -> str:
        """Return the recording: that of utt2source, or one of its own."""
        return self.utterance.tags.get(SOURCE) or f"{self.set}/{self.utterance.id}"

    @property
    def errors(self) -> int:
        return self.alignment.counts.errors

    @property
    def output_words(self) -> float:
        """Return the amount of text in words; signs are none."""
        return count_words(split_units(spoken(self.hyp), "mixed"))

    @property
    def on_silence(self) -> dict[str, bool]:
        """Return what was output, if it is a recording without speech."""
        some, worded = bool(self.hyp), self.output_words > 0
        found = {"non_empty": some, "words_output": worded, "signs_alone": some and not worded}
        return found | {"unfinished": "truncated" in self.flags}

    @property
    def keywords(self) -> Counts:
        return keywords.compare_keywords(self.said, self.heard)


def units_of(main: str) -> list[str]:
    """Return the units that are always counted, and the main one."""
    return list(dict.fromkeys(["word", "char", main]))


def score_utterance(
    name: str,
    utterance: Utterance,
    hypothesis: str,
    truncated: bool,
    listed: frozenset[Reading],
    score: ScoreConfig,
) -> ScoredUtterance:
    """Return one utterance scored; `listed` are the keywords of its whole set."""
    main, texts = score.unit, (utterance.text, hypothesis)
    ref, hyp = map(normalizer(score.normalizer), texts)
    said, heard = (
        keywords.find_keywords(keywords.read(text, score.normalizer), listed) for text in texts
    )
    own = keywords.read_phrases(utterance.keywords, score.normalizer)
    ref_units, hyp_units = split_units(ref, main), split_units(hyp, main)
    alignment = align(ref_units, hyp_units)
    counts = {
        unit: count_errors(split_units(ref, unit), split_units(hyp, unit))
        for unit in units_of(main)
    }
    mixed = split_units(ref, "mixed"), split_units(hyp, "mixed")
    flags = failures.find_failures(ref_units, hyp_units, ref, hyp, alignment)
    flags += ["truncated"] * truncated
    return ScoredUtterance(
        name,
        utterance,
        ref,
        hyp,
        alignment,
        counts,
        said,
        heard,
        keywords.biased_errors(alignment if main == "mixed" else align(*mixed), own),
        formatting(*texts),
        tuple(flags),
    )


def read_keywords(utterances: list[Utterance], normalizer_name: str) -> frozenset[Reading]:
    """Return all keywords of utterances, split: Latin by word, CJK by character."""
    return keywords.read_all((k for u in utterances for k in u.keywords), normalizer_name)
