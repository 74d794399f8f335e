"""Output that is not in the audio: R2 of the paper (section 4.1)."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from itertools import groupby

from audiorl.config.decoding import ScoreConfig
from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import errors
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text import detectors
from audiorl.text.align import align
from audiorl.text.detectors import Span
from audiorl.text.normalise import normal_units, normalizer, split_units, spoken
from audiorl.text.silence import is_annotation, output_on_silence

BRACKETS = str.maketrans("()[]<>", 6 * " ")  # Whisper's normaliser removes what stands in them
UNIT = "mixed"  # CJK characters and words of other scripts: spoken at comparable rates


@dataclass
class Options(RewardOptions):
    """The rate of speech above which output was not spoken."""

    kinds, penalty = ("sample", "gate"), True

    max_rate: float = key(
        8.0,
        "words or CJK characters a second above which output was not spoken; a little more than "
        "the fastest speaker of the corpus reaches: stage 2 prints most/s",
        gt=0,
    )


def build(options: Options, context: Context) -> Reward:
    """Return minus the share of the hypothesis that a detector finds, or as a gate -1 for any.

    In a recording without speech, the empty hypothesis gets 0, any other from -1/2, for next to
    nothing, to -1 at `max_rate` or without an end: less made-up text is better than more. There,
    and where characters repeat, the text counts as it was output, whatever the normaliser removes.
    Nor are brackets forgiven, or fillers (um) in a row.
    """

    def one(sample: Sample) -> float:
        share = _share(sample, context.score, options.max_rate)
        return -1.0 if options.actual_kind == "gate" and share else 0.0 - share

    return Reward(lambda samples: [one(sample) for sample in samples])


def _share(sample: Sample, score: ScoreConfig, max_rate: float) -> float:
    """Return the share of the hypothesis that is made up, from 0 to 1."""
    utterance, name = sample.utterance, score.normalizer
    if not utterance.has_speech:
        output = output_on_silence(sample.text, score.count_annotations)
        severity = severity_without_speech(output, utterance.duration, max_rate) if output else 0.0
        return severity if sample.finished else 1.0
    written = sample.text, utterance.text
    texts = _audible(written, name)
    hyp, ref = (tuple(split_units(text, UNIT)) for text in texts)
    if detectors.concealed(hyp, *written):
        return 1.0
    spans = find_spans(hyp, ref, texts, utterance.duration, max_rate)
    fillers = _fillers(written, name)
    made_up = max(detectors.covered(spans), _forgiven(hyp, ref, written, name)) + fillers
    return made_up / (len(hyp) + fillers) if made_up else 0.0


def _audible(written: tuple[str, str], name: str) -> tuple[str, str]:
    """Return hypothesis and reference normalised, with what stands in brackets.

    Where that leaves nothing of the reference (um), both are read as they are written.
    """
    plain = [_opened(text) for text in written]
    for read in (normalizer(name), spoken):
        hyp, ref = map(read, plain)
        if ref:
            return hyp, ref
    return written


def _opened(text: str) -> str:
    """Return the text without its brackets; those of full width, and of one sign as ⒜, are some."""
    plain = unicodedata.normalize("NFKC", text)
    opened = plain.translate(BRACKETS)
    return text if opened == plain else opened


def _forgiven(
    hyp: tuple[str, ...], ref: tuple[str, ...], written: tuple[str, str], name: str
) -> int:
    """Count the units that nobody said and that the error rate forgives, as in brackets."""
    if is_annotation(written[1]):  # nobody says a word
        return (Counter(hyp) - Counter(ref)).total()
    if written[0] == _opened(written[0]):
        return 0
    scored = normal_units(written[0], name, UNIT)
    return (Counter(hyp) - Counter(ref) & Counter(hyp) - Counter(scored)).total()


def _fillers(written: tuple[str, str], name: str) -> int:
    """Count the words in runs of `BURST` that the normaliser removes, beyond the reference's."""
    clean = normalizer(name)
    hyp, ref = (
        [not clean(word) for word in split_units(spoken(_opened(text)), UNIT)] for text in written
    )
    runs = [len(list(run)) for removed, run in groupby(hyp) if removed]
    return max(0, sum(n for n in runs if n >= detectors.BURST) - sum(ref))


def find_spans(
    hyp: tuple[str, ...],
    ref: tuple[str, ...],
    texts: tuple[str, str],
    seconds: float | None,
    max_rate: float,
) -> list[Span]:
    """Run the detectors on the units of a hypothesis on speech; `texts`: hypothesis, ref."""
    spans = detectors.loops(hyp, ref)
    spans += detectors.compressible(hyp, *texts)
    spans += detectors.beyond_audio(hyp, seconds, max_rate, len(ref))
    spans += detectors.overlong(hyp, ref)
    spans += detectors.foreign(hyp, ref)
    if errors(ref, hyp).insertions >= detectors.BURST:
        spans += detectors.bursts(align(ref, hyp))
    return spans


def severity_without_speech(output: str, seconds: float | None, max_rate: float) -> float:
    """Rate output where there is no speech, from 1/2 to 1; 1 if the duration is not known."""
    words = detectors.count_words(split_units(output, UNIT)) or len(output) / detectors.LETTERS
    most = max_rate * seconds if seconds else 0.0
    return 0.5 + 0.5 * words / max(most, words)
