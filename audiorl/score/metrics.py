"""Numbers of a test set, by task, as ratios of columns of per_utt.tsv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.score import failures, tts
from audiorl.score.ratio import UTTERANCES, Metric

ERROR_RATES = {"word": "WER", "char": "CER", "mixed": "MER"}  # by unit
BIASED = {"b_wer": "B-WER", "u_wer": "U-WER"}  # error rates of the units of keywords, and others
# All output on recordings without speech is hallucinated.
OUTPUT = {
    "output": Metric("output %", ("output",), (UTTERANCES,)),
    "words_per_minute": Metric("words/min", ("output_words",), ("duration",), 60.0),
}
ON_SILENCE = {
    **OUTPUT,
    "words_output": Metric("output in words %", ("words_output",), (UTTERANCES,)),
    "signs_alone": Metric("output in signs alone %", ("signs_alone",), (UTTERANCES,)),
    "unfinished": Metric("unfinished %", ("truncated",), (UTTERANCES,)),
}


@dataclass(frozen=True)
class Measures:
    """Differences between the tasks in scoring and reporting."""

    judged: bool  # hypotheses are a judge's transcripts of synthesized waves
    metrics: Mapping[str, Metric]  # by name: numbers beside error rates and failures


def measures_of(task: str) -> Measures:
    """Return the measures of the task that a configuration names."""
    return {"asr": Measures(False, OUTPUT), "tts": Measures(True, tts.METRICS)}[task]


def metrics_of(config: Config, measures: Measures, name: str) -> Mapping[str, Metric]:
    """Return the metrics of a test set, or of those with speech together (`pooled`), by name."""
    if name in config.data.no_speech:
        return ON_SILENCE
    main = ERROR_RATES[config.score.unit]
    said, heard, hits = "keywords_said", "keywords_heard", "keyword_hits"
    spoken = {
        "cer": Metric("CER %", ("char_errors",), ("chars",)),
        "wer": Metric("WER %", ("word_errors",), ("word_units",)),
        main.lower(): Metric(f"{main} %", ("sub", "del", "ins"), ("words",)),
        "substitutions": Metric("substitutions %", ("sub",), ("words",)),
        "deletions": Metric("deletions %", ("del",), ("words",)),
        "insertions": Metric("insertions %", ("ins",), ("words",)),
        "insertions_per_minute": Metric("insertions/min", ("ins",), ("duration",), 60.0),
        "keyword_precision": Metric("keyword precision %", (hits,), (heard,)),
        "keyword_recall": Metric("keyword recall %", (hits,), (said,)),
        "keyword_f1": Metric("keyword F1 %", (hits, hits), (said, heard)),
        "b_wer": Metric("B-WER %", ("biased_errors",), ("biased_words",)),
        "u_wer": Metric("U-WER %", ("unbiased_errors",), ("unbiased_words",)),
        "cased": Metric("cased %", ("cased",), (UTTERANCES,)),
        "punctuated": Metric("punctuated %", ("punctuated",), (UTTERANCES,)),
        "formatted_wer": Metric("formatted WER %", ("formatted_errors",), ("formatted_words",)),
        **{name: Metric(name.replace("_", " "), (name,), factor=1.0) for name in failures.NAMES},
    }
    return {**spoken, **measures.metrics}


def read_columns(path: Path, names: Sequence[str]) -> tuple[list[str], list[str], np.ndarray]:
    """Return ids, sources and columns [N, len(names)] of a per_utt.tsv; an unknown number is 0.

    Raises UserError when the file, a column or a number is missing.
    """
    try:
        header, *rows = (line.split("\t") for line in path.read_text("utf-8").splitlines())
        source = header.index("source")
        places = [header.index(name) if name != UTTERANCES else None for name in names]
        values = [[1.0 if p is None else float(row[p] or 0) for p in places] for row in rows]
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"{path} lacks the counts of a scored set ({error}); score again (stage 7)."
        ) from error
    ids, sources = ([row[place] for row in rows] for place in (0, source))
    return ids, sources, np.array(values).reshape(len(rows), len(names))
