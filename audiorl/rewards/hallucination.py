"""R2 of the paper (section 4.1): output that is not in the audio."""

from __future__ import annotations

from collections.abc import Sequence

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.rewards.base import Reward, Sample, errors
from audiorl.text import detectors
from audiorl.text.align import align
from audiorl.text.detectors import Span
from audiorl.text.normalise import normal_units, normalizer, split_units, spoken

UNIT = "mixed"  # CJK characters and words of other scripts: spoken at comparable rates


def hallucination(score: ScoreConfig, options: RewardConfig) -> Reward:
    """Minus the share of the hypothesis that a detector finds, or as a gate -1 if there is any.

    Where nobody speaks, silence earns 0 and any output from -1/2 for next to nothing to -1 at
    `max_rate`: all is made up, and less of it is still better than more. There, and where signs
    repeat themselves, the text counts as it was output, whatever the normaliser takes away.
    """

    def one(sample: Sample) -> float:
        share = _share(sample, score.normalizer, options.max_rate)
        return -1.0 if options.actual_kind == "gate" and share else 0.0 - share

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [one(sample) for sample in samples]

    return Reward(reward, options.actual_kind, penalty=True)


def _share(sample: Sample, name: str, max_rate: float) -> float:
    """How much of the hypothesis is made up, from 0 to 1."""
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
    """What the detectors find in the units of a hypothesis on speech; `texts`: hypothesis, ref."""
    spans = detectors.loops(hyp, ref)
    spans += detectors.compressible(hyp, *texts)
    spans += detectors.beyond_audio(hyp, seconds, max_rate, len(ref))
    spans += detectors.overlong(hyp, ref)
    spans += detectors.foreign(hyp, ref)
    if errors(ref, hyp).insertions >= detectors.BURST:
        spans += detectors.bursts(align(ref, hyp))
    return spans


def severity_without_speech(hyp: Sequence[str], seconds: float | None, max_rate: float) -> float:
    """Of output where nobody speaks, from 1/2 to 1; 1 if the duration is not known."""
    most, words = max_rate * seconds if seconds else 0.0, detectors.count_words(hyp)
    return 0.5 + 0.5 * words / max(most, words)
