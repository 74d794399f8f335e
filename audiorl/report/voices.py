"""Synthesized speech to listen to: the same sentence by every system, and the worst of each.

Utterances are chosen by error rate within each set. A choice by the number of errors, or over all
sets, would show only long and hard sentences, on which all systems fail.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from audiorl.data.audio import read_audio
from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance, absolute_audio
from audiorl.errors import UserError
from audiorl.report.media import PLAYED, AudioClip, clip
from audiorl.score.asr import SystemScore
from audiorl.score.scored import ScoredUtterance

WORST_SENTENCES = 10  # of each system, shared by the sets
RATE = 16000  # Hz in the page: MP3 has it, and speech needs no more


@dataclass(frozen=True)
class Take:
    """One system's speech of a sentence."""

    label: str
    scored: ScoredUtterance
    clip: AudioClip
    width: float  # of the picture, as a share of the longest one in the row


@dataclass(frozen=True)
class SentenceRow:
    """One sentence by one or all systems, side by side."""

    text: str
    facts: list[str]
    takes: list[Take]
    prompt: AudioClip | None = None  # of the voice, where the utterance has one


def same_sentences(systems: list[SystemScore], focus: SystemScore) -> list[SentenceRow]:
    """Return some sentences by all systems, references included."""
    waves = _Waves()
    chosen = _sentences(systems[0], focus)
    return [waves.row(systems, place, why) for place, why in chosen.items()]


def worst_sentences(systems: list[SystemScore], focus: SystemScore) -> dict[str, list[SentenceRow]]:
    """Return, by title, the sentences of each set on which a system has the highest error rate."""
    waves, count = _Waves(), max(1, WORST_SENTENCES // len(_by_set(focus)))
    return {
        f"{system.label}: {count} worst of each set": _worst(waves, system, count)
        for system in systems
        if not system.is_reference
    }


def _by_set(system: SystemScore) -> dict[str, list[int]]:
    places = defaultdict(list)
    for place, u in enumerate(system.pooled.utterances):
        places[u.set].append(place)
    return dict(places)


def _rate(system: SystemScore, place: int) -> float:
    return system.pooled.utterances[place].alignment.counts.rate


def _sentences(first: SystemScore, focus: SystemScore) -> dict[int, str]:
    """Return places of utterances and reasons: a median one a set, then the largest changes."""
    sets = _by_set(focus).values()
    chosen = {}
    for places in sets:
        by_rate = sorted(places, key=lambda i: _rate(focus, i))
        chosen[by_rate[len(by_rate) // 2]] = "ordinary"
    for places in sets:
        change = {i: _rate(focus, i) - _rate(first, i) for i in places}
        better, worse = min(change, key=change.get), max(change, key=change.get)
        if change[better] < 0:
            chosen.setdefault(better, "improved most")
        if change[worse] > 0:
            chosen.setdefault(worse, "worsened most")
    return chosen


def _worst(waves: _Waves, system: SystemScore, count: int) -> list[SentenceRow]:
    scored = system.pooled.utterances

    def badness(place: int) -> tuple:
        return -_rate(system, place), -scored[place].errors, scored[place].utterance.id

    worst = (sorted(places, key=badness)[:count] for places in _by_set(system).values())
    return [waves.row([system], place) for places in worst for place in places]


class _Waves:
    """Synthesized waves; each table of them is read once."""

    def __init__(self) -> None:
        self._tables: dict[Path, dict[str, str]] = {}

    def row(self, systems: list[SystemScore], place: int, why: str = "") -> SentenceRow:
        """Return one sentence by each of the systems; `why` it is shown."""
        scored = [system.pooled.utterances[place] for system in systems]
        waves = [self._read(*pair) for pair in zip(systems, scored, strict=True)]
        longest = max((len(w) for w in waves if not isinstance(w, str)), default=1)
        longest = max(1, min(longest, PLAYED * RATE))
        takes = []
        for system, u, wave in zip(systems, scored, waves, strict=True):
            name = f"{u.utterance.id} by {system.label}"
            if isinstance(wave, str):
                takes.append(Take(system.label, u, AudioClip(name, error=wave), 0.0))
            else:
                made = clip(wave, RATE, name, picture=True)
                takes.append(Take(system.label, u, made, min(1.0, len(wave) / longest)))
        u = scored[0].utterance
        facts = [scored[0].set, u.id, f"speaker {u.speaker}", *([why] if why else [])]
        prompt = None
        if u.prompt is not None:
            name = f"the prompt of {u.id}"
            wave = self._samples(u.prompt)
            failed = isinstance(wave, str)
            prompt = AudioClip(name, error=wave) if failed else clip(wave, RATE, name)
        return SentenceRow(u.text, facts, takes, prompt)

    def _read(self, system: SystemScore, u: ScoredUtterance) -> np.ndarray | str:
        """Return samples [S], or why there are none."""
        path = system.folder / u.set / "wav.scp"
        try:
            if path not in self._tables:
                self._tables[path] = absolute_audio(path, read_table(path))
            audio = self._tables[path][u.utterance.id]
            own = audio == u.utterance.audio  # a natural recording, which may be a segment
            made = {"audio": audio, "start": 0, "end": None, "duration": None, "audio_hash": ""}
            return self._samples(u.utterance if own else replace(u.utterance, **made))
        except (UserError, KeyError) as error:
            return str(error)

    @staticmethod
    def _samples(u: Utterance) -> np.ndarray | str:
        try:
            return read_audio(u, RATE)
        except UserError as error:
            return str(error)
