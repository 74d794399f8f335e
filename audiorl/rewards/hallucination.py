"""Output that is not in the audio: R2 of the paper (section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import errors
from audiorl.rewards.core.reward import Context, Reward, Sample
from audiorl.text import detectors
from audiorl.text.align import align
from audiorl.text.detectors import Span
from audiorl.text.normalise import normal_units, normalizer, split_units, spoken

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

    In a recording without speech, an empty hypothesis gets 0 and any output from -1/2, for next to
    nothing, to -1 at `max_rate`: less made-up text is better than more. There, and where characters
    repeat, the text counts as it was output, whatever the normaliser removes.
    """

    def one(sample: Sample) -> float:
        share = _share(sample, context.score.normalizer, options.max_rate)
        return -1.0 if options.actual_kind == "gate" and share else 0.0 - share

    return Reward(lambda samples: [one(sample) for sample in samples])


def _share(sample: Sample, name: str, max_rate: float) -> float:
    """Return the share of the hypothesis that is made up, from 0 to 1."""
    clean, seconds = normalizer(name), sample.utterance.duration
    ref = normal_units(sample.utterance.text, name, UNIT)
    if not ref:
        hyp = split_units(spoken(sample.text), UNIT)
        heard = detectors.on_silence(hyp)
        return severity_without_speech(hyp, seconds, max_rate) if heard else 0.0
    hyp = normal_units(sample.text, name, UNIT)
    texts = sample.text, sample.utterance.text
    if detectors.concealed(hyp, *texts):
        return 1.0
    spans = find_spans(hyp, ref, (clean(texts[0]), clean(texts[1])), seconds, max_rate)
    return detectors.covered(spans) / len(hyp) if hyp else 0.0


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


def severity_without_speech(hyp: Sequence[str], seconds: float | None, max_rate: float) -> float:
    """Rate output where there is no speech, from 1/2 to 1; 1 if the duration is not known."""
    most, words = max_rate * seconds if seconds else 0.0, detectors.count_words(hyp)
    return 0.5 + 0.5 * words / max(most, words)
