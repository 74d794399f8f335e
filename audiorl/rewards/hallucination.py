"""R2 of the paper (section 4.1): output that is not in the audio."""

from __future__ import annotations

from collections.abc import Sequence

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.data.text import normal_units, normalizer
from audiorl.rewards.base import Reward, Sample, errors
from audiorl.score import detectors
from audiorl.score.align import align
from audiorl.score.detectors import Span

UNIT = "mixed"  # CJK characters and words of other scripts: spoken at comparable rates


def hallucination(score: ScoreConfig, options: RewardConfig) -> Reward:
    """Minus the share of the hypothesis that a detector finds, or as a gate -1 if there is any.

    Where nobody speaks, silence earns 0 and any output from -1/2 for one unit to -1 at
    `max_rate`: all is made up, and less of it is still better than more.
    """
    clean = normalizer(score.normalizer)
    kind = options.actual_kind

    def units(text: str) -> tuple[str, ...]:
        return normal_units(text, score.normalizer, UNIT)

    def one(sample: Sample) -> float:
        ref, hyp = units(sample.utterance.text), units(sample.text)
        if not detectors.on_silence(hyp):
            return 0.0
        seconds = sample.utterance.duration
        if not ref:
            share = severity_without_speech(hyp, seconds, options.max_rate)
        else:
            texts = clean(sample.text), clean(sample.utterance.text)
            spans = find_spans(hyp, ref, texts, seconds, options.max_rate)
            share = detectors.covered(spans) / len(hyp)
        if kind == "gate" and share:
            return -1.0
        return 0.0 - share

    def reward(samples: Sequence[Sample]) -> list[float]:
        return [one(sample) for sample in samples]

    return Reward(reward, kind, penalty=True)


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
    most = max_rate * seconds if seconds else 0.0
    return 0.5 + 0.5 * len(hyp) / max(most, len(hyp))
