"""Scoring of recognition: hypotheses joined with references by id, counts summed, errors kept.

A folder `decode_<name>/<set>` has the hypotheses (`text`), `dump/<set>` has the references. A
hypothesis that is missing, or that belongs to no reference, is an error: scoring what is there
would flatter the system that failed. All rates are fractions.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

import audiorl
from audiorl.config.decoding import ScoreConfig
from audiorl.config.schema import Config
from audiorl.data.utterance import read_utterances
from audiorl.errors import UserError
from audiorl.runtime.files import progress
from audiorl.score import failures, ratio, tts
from audiorl.score.hypotheses import (
    check_ids,
    check_recordings,
    read_decoding,
    read_hypotheses,
    some,
)
from audiorl.score.metrics import BIASED, ERROR_RATES, Measures
from audiorl.score.ratio import Ratio
from audiorl.score.scored import ScoredUtterance, read_keywords, score_utterance, units_of
from audiorl.score.significance import Comparison, by_source, compare, rate_interval
from audiorl.text import keywords
from audiorl.text.align import Counts
from audiorl.text.silence import is_annotation, output_on_silence

POOLED = "pooled"
SCORED_FORMAT = 12  # of the files that scoring writes; another number, and they are written again


@dataclass(frozen=True)
class SetScore:
    """A test set scored, or the sets with speech pooled."""

    name: str
    speech: bool
    utterances: list[ScoredUtterance]  # by id
    seconds: float | None  # of decoding; None: not known
    audio_seconds: float
    summary: dict  # what result.json holds
    sound: dict[str, Ratio]  # of synthesis: its metrics by name (`tts.METRICS`)


@dataclass(frozen=True)
class SystemScore:
    """All test sets of one system, and how they compare with the first system's."""

    label: str
    exp: Path
    folder: Path  # exp/decode_<name>
    sets: dict[str, SetScore]  # in the order of the config
    pooled: SetScore
    scoring: ScoreConfig  # how
    against: dict[str, Comparison]  # by set and for `pooled`; empty for the first system

    @property
    def is_reference(self) -> bool:
        """Return whether it is no system but a reference, such as natural recordings."""
        return (self.exp / tts.REFERENCE).exists()

    @property
    def speech(self) -> dict[str, SetScore]:
        """Return the sets with speech, then `pooled`."""
        spoken = {name: score for name, score in self.sets.items() if score.speech}
        return spoken | {POOLED: self.pooled}

    @property
    def no_speech(self) -> dict[str, SetScore]:
        return {name: score for name, score in self.sets.items() if not score.speech}


def score_systems(
    exps: list[Path], dump: Path, cfg: Config, measures: Measures
) -> list[SystemScore]:
    """Score every system on every test set; the later ones are compared with the first."""
    systems: list[SystemScore] = []
    for exp, label in zip(exps, labels(exps), strict=True):
        first = systems[0] if systems else None
        systems.append(_score_system(exp, label, dump, cfg, measures, first))
    return systems


def labels(exps: list[Path]) -> list[str]:
    """Return short names of experiment folders, different ones; a `seed1` with its row's name."""
    parts = [exp.resolve().parts for exp in exps]
    least = [2 if re.fullmatch(r"seed\d+", path[-1]) else 1 for path in parts]
    for more in range(max(map(len, parts))):
        names = ["/".join(path[-n - more :]) for path, n in zip(parts, least, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [str(exp) for exp in exps]


def _score_system(
    exp: Path,
    label: str,
    dump: Path,
    cfg: Config,
    measures: Measures,
    first: SystemScore | None,
) -> SystemScore:
    folder = exp / f"decode_{cfg.decode.name}"
    sets = {
        name: score_set(dump, folder, name, cfg, measures)
        for name in progress(cfg.data.test, desc=f"scoring {label}", unit="set")
    }
    if not any(score.speech for score in sets.values()):
        raise UserError("data.test names no set with speech; add one to score.")
    pooled = pool([score for score in sets.values() if score.speech], cfg.score)
    system = SystemScore(label, exp, folder, sets, pooled, cfg.score, {})
    if first is not None:
        for name, score in system.speech.items():
            system.against[name] = compare_sets(first.speech[name], score, cfg.score)
    return system


def compare_sets(first: SetScore, second: SetScore, cfg: ScoreConfig) -> Comparison:
    """Compare two systems on the same utterances."""
    (before, _), (after, units) = (
        errors_and_units(one.utterances, lambda u: u.counts[cfg.unit]) for one in (first, second)
    )
    return compare(before, after, units, cfg.bootstrap_samples, cfg.seed)


def score_set(dump: Path, folder: Path, name: str, cfg: Config, measures: Measures) -> SetScore:
    """Score the hypotheses in `folder/name/text` against `dump/name`.

    Raises UserError when a hypothesis is missing or unknown, when a set with speech has no
    reference words, or when a set without speech has some.
    """
    utterances = read_utterances(dump / name, texts_alone=measures.judged)
    instruments = cfg.score.instruments
    judged = tts.read_judged(folder / name, instruments) if measures.judged else {}
    ids = [u.id for u in utterances]
    if measures.judged:
        hypotheses = {uid: one.heard for uid, one in judged.items()}
        check_ids(folder / name / tts.JUDGED, hypotheses, ids, dump / name)
    else:
        hypotheses = read_hypotheses(folder / name / "text", ids, dump / name)
    decoding = read_decoding(folder / name / "decode.json")
    check_recordings(folder / name, decoding, dump / name)
    truncated = set(decoding.get("truncated", ()))
    speech = name not in cfg.data.no_speech
    listed = read_keywords(utterances, cfg.score.normalizer)
    scored = []
    for u in utterances:
        one = score_utterance(name, u, hypotheses[u.id], u.id in truncated, listed, cfg.score)
        # Without speech, whatever a normalizer removes (um, brackets, signs) is made up, too.
        written = output_on_silence(hypotheses[u.id], cfg.score.count_annotations)
        written = " ".join(written.split())
        scored.append(replace(one, hyp=one.hyp if speech else written, judged=judged.get(u.id)))
    _check_references(dump / name / "text", scored, speech)
    inputs = [audiorl.__version__, SCORED_FORMAT, asdict(cfg.score), speech, decoding, hypotheses]
    inputs += [asdict(u) for u in utterances] + [asdict(one) for one in judged.values()]
    fingerprint = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    lengths = [one.seconds for one in judged.values()] or [u.duration or 0.0 for u in utterances]
    audio_seconds = sum(lengths)
    seconds = decoding.get("seconds")
    summary = summarize(name, scored, speech, seconds, audio_seconds, cfg.score)
    summary["inputs"] = fingerprint
    sound = _sound(scored, cfg.score)
    return SetScore(name, speech, scored, seconds, audio_seconds, summary | _json(sound), sound)


def pool(sets: list[SetScore], cfg: ScoreConfig) -> SetScore:
    """Join sets into one: counts are summed, so each utterance weighs by its length."""
    utterances = [u for score in sets for u in score.utterances]
    known = all(score.seconds is not None for score in sets)
    seconds = sum(score.seconds for score in sets) if known else None
    audio_seconds = sum(score.audio_seconds for score in sets)
    summary = summarize(POOLED, utterances, True, seconds, audio_seconds, cfg)
    sound = _sound(utterances, cfg)
    return SetScore(POOLED, True, utterances, seconds, audio_seconds, summary | _json(sound), sound)


def summarize(
    name: str,
    utterances: list[ScoredUtterance],
    speech: bool,
    seconds: float | None,
    audio_seconds: float,
    cfg: ScoreConfig,
) -> dict:
    """Return the numbers of a set, ready for JSON."""
    summary = {
        "set": name,
        "speech": speech,
        "utterances": len(utterances),
        "audio_seconds": audio_seconds,
        "rtf": seconds / audio_seconds if seconds is not None and audio_seconds else None,
    }
    if not speech:
        words = sum(u.output_words for u in utterances)
        found = [u.on_silence for u in utterances]
        counts = {name: sum(one[name] for one in found) for name in found[0]}
        return (
            summary
            | counts
            | {f"{name}_rate": count / len(found) for name, count in counts.items()}
            | {"words": words}
            | {"words_per_minute": 60 * words / audio_seconds if audio_seconds else None}
        )
    summary["metric"] = ERROR_RATES[cfg.unit]
    for unit in units_of(cfg.unit):
        rate = _error_rate(utterances, lambda u, unit=unit: u.counts[unit], cfg)
        summary[ERROR_RATES[unit].lower()] = rate
    flags = [flag for u in utterances for flag in u.flags]
    summary["failures"] = {failure: flags.count(failure) for failure in failures.NAMES}
    if any(u.formatting.counts.units for u in utterances):
        rate = _error_rate(utterances, lambda u: u.formatting.counts, cfg)
        cased, punctuated = (
            sum(getattr(u.formatting, sign) for u in utterances) / len(utterances)
            for sign in ("cased", "punctuated")
        )
        summary["formatting"] = {"wer": rate, "cased": cased, "punctuated": punctuated}
    if any(u.utterance.keywords for u in utterances):
        summary["keywords"] = _keyword_summary(utterances, cfg)
    return summary


def _sound(utterances: list[ScoredUtterance], cfg: ScoreConfig) -> dict[str, Ratio]:
    if not all(u.judged for u in utterances):
        return {}
    rows = [u.sound_columns for u in utterances]
    return ratio.ratios(tts.METRICS, rows, cfg.bootstrap_samples, cfg.seed)


def _json(sound: dict[str, Ratio]) -> dict:
    """Return the metrics with a known value, as result.json has them."""
    known = {name: one for name, one in sound.items() if one.known}
    shown = {name: {"value": one.value, "interval": one.interval} for name, one in known.items()}
    return {"sound": shown} if shown else {}


def _keyword_summary(utterances: list[ScoredUtterance], cfg: ScoreConfig) -> dict:
    summary = keywords.keyword_scores(sum((u.keywords for u in utterances), Counts()))
    for side, name in enumerate(BIASED):
        summary[name] = _error_rate(utterances, lambda u, side=side: u.biased[side], cfg)
    return summary


def errors_and_units(
    utterances: Sequence[ScoredUtterance], counts: Callable[[ScoredUtterance], Counts]
) -> tuple[np.ndarray, np.ndarray]:
    """Return errors and reference length of each recording, in all its conditions: int [N] each."""
    found = [counts(u) for u in utterances]
    columns = np.array([[c.errors, c.units] for c in found]).reshape(-1, 2)
    return tuple(by_source(columns, [u.source for u in utterances]).T)


def _error_rate(
    utterances: list[ScoredUtterance], counts: Callable[[ScoredUtterance], Counts], cfg: ScoreConfig
) -> dict:
    found = [counts(u) for u in utterances]
    total = sum(found, Counts())
    errors, units = errors_and_units(utterances, counts)
    return asdict(total) | {
        "units": total.units,
        "errors": total.errors,
        "rate": total.rate,
        "interval": rate_interval(errors, units, cfg.bootstrap_samples, cfg.seed),
        "sentence_error_rate": sum(c.errors > 0 for c in found) / len(found),
    }


def _check_references(path: Path, scored: list[ScoredUtterance], speech: bool) -> None:
    if not scored:
        raise UserError(f"{path} has no utterances; there is nothing to score.")
    written = [u.utterance for u in scored if u.utterance.has_speech]
    if speech and not any(u.ref for u in scored):
        fix = (
            "set score.normalizer: none, which removes none"
            if written
            else ("if its audio has no speech, name the set in data.no_speech")
        )
        raise UserError(f"{path} has no reference words; {fix}.")
    worded = [u.id for u in written if not is_annotation(u.text)]
    if not speech and worded:
        raise UserError(
            f"{path} has a transcript for {some(worded)}, yet data.no_speech names the set; "
            "empty the transcripts or remove the set there."
        )
