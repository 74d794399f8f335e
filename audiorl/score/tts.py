"""Scoring of synthesis: what an independent judge and the instruments found in each utterance.

The judge's transcript is the hypothesis and the text the reference: error rates, intervals, paired
tests and failures are those of recognition (`audiorl.score.asr`). Here stand the numbers beside
them. `audiorl.infer.judging` writes decode_<name>/<set>/judged.json, which is read here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from audiorl.config.instruments import MEASURES, parse_instrument
from audiorl.config.schema import Config
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.errors import UserError
from audiorl.runtime.files import read_json
from audiorl.runtime.stamps import Stamp
from audiorl.score.ratio import UTTERANCES, Metric
from audiorl.text.align import Counts, count_errors
from audiorl.text.normalise import normalizer, split_units

JUDGED = "judged.json"
REFERENCE = "reference.json"  # in the experiment of what is no system: natural recordings, say


@dataclass(frozen=True)
class Judged:
    """One utterance. What could not be measured is None: the pitch of a whisper, say."""

    heard: str  # the judge's transcript
    seconds: float  # of the wave
    speech_seconds: float  # from the first speech in it to the last
    natural_seconds: float | None = None  # the same of the speaker's own recording
    similarity: float | None = None  # cosine to the prompt, or to the speaker's other recordings
    f0: float | None = None  # Hz
    f0_spread: float | None = None  # semitones
    hnr: float | None = None  # dB, harmonics to noise
    distance: float | None = None  # dB, of spectra, to the speaker's own recording
    others: float | None = None  # mean cosine to the prompts of other speakers, by the judge
    measured: Mapping[str, Sequence[float]] = field(default_factory=dict)  # by instruments

    @property
    def margin(self) -> float | None:
        """`similarity` less `others`; None where one of them is."""
        known = self.similarity is not None and self.others is not None
        return self.similarity - self.others if known else None


# What is summed in per_utt.tsv; of what may be None, `…_known` counts where it is not.
MEASURED = "similarity margin f0 f0_spread hnr distance".split()
SOUND_COLUMNS = "seconds speech_seconds spoken_chars natural_seconds compared_seconds".split()
SOUND_COLUMNS += [c for name in (*MEASURED, *MEASURES) for c in (name, f"{name}_known")]


def _mean(title: str, name: str, factor: float = 1.0) -> Metric:
    return Metric(title, (name,), (f"{name}_known",), factor)


METRICS = {
    "similarity": _mean("similarity %", "similarity", 100.0),
    "margin": _mean("own - other voices %", "margin", 100.0),
    "rate": Metric("chars/s", ("spoken_chars",), ("speech_seconds",), 1.0),
    "tempo": Metric("tempo %", ("natural_seconds",), ("compared_seconds",)),
    "f0": _mean("F0 Hz", "f0"),
    "f0_spread": _mean("F0 spread st", "f0_spread"),
    "hnr": _mean("HNR dB", "hnr"),
    "distance": _mean("distance dB", "distance"),
    "unterminated": Metric("unterminated %", ("truncated",), (UTTERANCES,)),
    "loops": Metric("looping %", ("looping",), (UTTERANCES,)),
    **{name: _mean(title, name, factor) for name, (title, factor) in MEASURES.items()},
}
NOTE = (
    "In brackets 95 % intervals; * when that of the paired difference excludes 0. Speaker "
    "similarity: cosine, in the judge's vectors, to the prompt or, without one, to other natural "
    "recordings of the speaker; own - other voices: less the mean cosine to others' prompts. "
    "Tempo: speech of the natural recording in seconds over that of this one; 100 is as fast. F0 "
    "spread: standard deviation in semitones inside an utterance. HNR: harmonics to noise of "
    "voiced frames, which buzz and hiss lower. Distance: mel-cepstral distortion to the natural "
    "recording, aligned in time. Unterminated: the stop token never came; looping: the transcript "
    "repeats itself over and over. None of these is an opinion of listeners."
)


def columns(judged: Judged, chars: int) -> dict[str, float]:
    """Return the columns of one utterance with a text of `chars` characters."""
    compared = judged.natural_seconds is not None
    values = {
        "seconds": judged.seconds,
        "speech_seconds": judged.speech_seconds,
        "spoken_chars": chars,
        "natural_seconds": judged.natural_seconds if compared else 0.0,
        "compared_seconds": judged.speech_seconds if compared else 0.0,
    }
    for name in MEASURED:
        value = getattr(judged, name)
        values |= {name: value or 0.0, f"{name}_known": int(value is not None)}
    for name in MEASURES:
        values[name], values[f"{name}_known"] = judged.measured.get(name, (0.0, 0.0))
    return values


def character_errors(texts: Sequence[str], heard: Sequence[str], normalize: str) -> Counts:
    """Return the errors of transcripts against texts, both normalized; `rate` is the CER."""
    clean = normalizer(normalize)
    pairs = zip(texts, heard, strict=True)
    counts = (count_errors(*(split_units(clean(t), "char") for t in pair)) for pair in pairs)
    return sum(counts, Counts())


def write_judged(stamp: Stamp, judged: dict[str, Judged], judge: str) -> None:
    """Write judged.json, which is its own stamp."""
    stamp.write(judge=judge, utterances={uid: asdict(one) for uid, one in judged.items()})


def instrument_file(folder: Path, name: str) -> Path:
    """Return the file of an instrument's measurements of decode_<name>/<set>."""
    return folder / f"instrument_{name}.json"


def read_judged(folder: Path, instruments: Sequence[str] = ()) -> dict[str, Judged]:
    """Return the measurements of the utterances of decode_<name>/<set>, by id.

    instruments: those of the recipe, whose measurements stand in files of their own.
    """
    path = folder / JUDGED
    again = "let the judge hear the set again (stage 7)"
    found = read_json(path, again)
    try:
        judged = {uid: Judged(**one) for uid, one in found["utterances"].items()}
        for text in instruments:
            path = instrument_file(folder, parse_instrument(text)[0])
            measured = read_json(path, again)["utterances"]
            judged = {
                uid: replace(one, measured={**one.measured, **measured[uid]})
                for uid, one in judged.items()
            }
        return judged
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not whole ({error!r}); {again}.") from error


def recorded_sets(dump: Path, config: Config) -> dict[str, list[Utterance]]:
    """Return the test sets that have recordings, by name."""
    sets = {name: read_utterances(dump / name, texts_alone=True) for name in config.data.test}
    return {name: found for name, found in sets.items() if all(u.audio for u in found)}


def texts_alone(dump: Path, config: Config) -> list[str]:
    """Return the names of the test sets that have no recordings."""
    recorded = recorded_sets(dump, config)
    return [name for name in config.data.test if name not in recorded]


def scored_together(exps: Sequence[Path], dump: Path, config: Config) -> list[Path]:
    """Return the experiments that have every test set; print the references that are left out.

    Tables pool the test sets, so all systems of a table are judged on equal utterances.
    """
    silent = texts_alone(dump, config)
    kept = [exp for exp in exps if not (silent and (exp / REFERENCE).exists())]
    if left_out := [str(exp) for exp in exps if exp not in kept]:
        print(f"{', '.join(left_out)}: left out, for {', '.join(silent)} has no recordings")
    return kept
