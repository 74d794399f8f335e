"""Differences between the tasks in scoring and reporting, as one object for each task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from audiorl.score import tts
from audiorl.score.ratio import UTTERANCES, Metric


@dataclass(frozen=True)
class Measures:
    """Scoring of one task."""

    judged: bool  # hypotheses are a judge's transcripts of synthesized waves
    metrics: Mapping[str, Metric]  # by name: numbers beside error rates and failures


# All output on recordings without speech is hallucinated.
OUTPUT = {
    "output": Metric("output %", ("output",), (UTTERANCES,)),
    "words_per_minute": Metric("words/min", ("output_words",), ("duration",), 60.0),
}
_MEASURES = {"asr": Measures(False, OUTPUT), "tts": Measures(True, tts.METRICS)}


def measures_of(task: str) -> Measures:
    """Return the measures of the task that a configuration names."""
    return _MEASURES[task]
