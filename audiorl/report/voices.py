"""Synthesised speech to listen to: the same sentence by every system, and the worst of each.

What is shown is chosen by error rate, of each set on its own: by errors, or of all sets together,
it would be what is long and hard, which no system says so that one understands it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from audiorl.data.audio import read_audio
from audiorl.data.tables import read_table
from audiorl.data.utterance import absolute_audio
from audiorl.errors import UserError
from audiorl.report.examples import LEGEND
from audiorl.report.examples import marked as aligned
from audiorl.report.markup import Html, details, element, join, section
from audiorl.report.media import LONGEST, player, spectrogram
from audiorl.score.asr import ScoredUtterance, SystemScore

WORST = 10  # of each system, shared by the sets
RATE = 16000  # Hz in the page: MP3 has it, and speech needs no more

NOTE = join(
    "Under each spectrogram stands what the judge hears, not what was to be said. ",
    LEGEND,
    " Pictures of a row have one scale of time.",
)


def voice_sections(systems: list[SystemScore], focus: SystemScore) -> list[Html]:
    """The same sentences by all systems, references included, and the worst of each system."""
    waves = _Waves()
    chosen = _sentences(systems[0], focus)
    shown = [waves.row(systems, place, why) for place, why in chosen.items()]
    count = max(1, WORST // len(_by_set(focus)))
    worst = [
        details(f"{system.label}: {count} worst of each set", *_worst(waves, system, count))
        for system in systems
        if not system.is_reference
    ]
    note = element("p", NOTE, class_="note")
    return [
        section("voices", "The same sentence", note, *shown),
        section("worst-voices", "The worst of each system", note, *worst),
    ]


def _by_set(system: SystemScore) -> dict[str, list[int]]:
    """Places of the pooled utterances, by set."""
    places = defaultdict(list)
    for place, u in enumerate(system.pooled.utterances):
        places[u.set].append(place)
    return dict(places)


def _rate(system: SystemScore, place: int) -> float:
    return system.pooled.utterances[place].alignment.counts.rate


def _sentences(first: SystemScore, focus: SystemScore) -> dict[int, str]:
    """Places of utterances, and why: of each set an ordinary one, then what changed most."""
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


def _worst(waves: _Waves, system: SystemScore, count: int) -> list[Html]:
    """Of each set, by error rate."""
    said = system.pooled.utterances

    def badness(place: int) -> tuple:
        return -_rate(system, place), -said[place].errors, said[place].utterance.id

    worst = (sorted(places, key=badness)[:count] for places in _by_set(system).values())
    return [waves.row([system], place) for places in worst for place in places]


class _Waves:
    """Reads what systems have synthesised; the tables of their waves once."""

    def __init__(self) -> None:
        self._tables: dict[Path, dict[str, str]] = {}

    def row(self, systems: list[SystemScore], place: int, why: str = "") -> Html:
        """One sentence by each of the systems, side by side; `why` it is shown."""
        said = [(system.label, system.pooled.utterances[place]) for system in systems]
        heard = [self._read(s, u) for s, (_, u) in zip(systems, said, strict=True)]
        longest = max((len(w) for w in heard if not isinstance(w, str)), default=1)
        longest = min(longest, LONGEST * RATE)
        clips = (_clip(label, u, w, longest) for (label, u), w in zip(said, heard, strict=True))
        u = said[0][1]
        facts = [u.set, u.utterance.id, f"speaker {u.utterance.speaker}", *([why] if why else [])]
        return element(
            "article",
            element("h3", u.utterance.text),
            element("p", " · ".join(facts), class_="note"),
            element("div", *clips, class_="voices"),
        )

    def _read(self, system: SystemScore, u: ScoredUtterance) -> np.ndarray | str:
        """Samples [S], or why there are none."""
        path = system.folder / u.set / "wav.scp"
        try:
            if path not in self._tables:
                self._tables[path] = absolute_audio(path, read_table(path))
            audio = self._tables[path][u.utterance.id]
            own = audio == u.utterance.audio  # a natural recording, which may be a segment
            utterance = u.utterance if own else replace(u.utterance, audio=audio, start=0, end=None)
            return read_audio(utterance, RATE)
        except (UserError, KeyError) as error:
            return f"No audio: {error}"


def _clip(label: str, u: ScoredUtterance, wave: np.ndarray | str, longest: int) -> Html:
    """One system's wave: spectrogram, player, and what was heard in it."""
    count = f"{u.errors} error{'s' * (u.errors != 1)}"
    facts = [count, *(flag.replace("_", " ") for flag in u.flags)]
    if u.judged.similarity is not None:
        facts.append(f"similarity {100 * u.judged.similarity:.0f} %")
    name = f"{u.utterance.id} by {label}"
    if isinstance(wave, str):
        shown = [element("p", wave, class_="note")]
    else:
        width = f"width: {100 * min(1.0, len(wave) / longest):.1f}%"
        picture = element("div", spectrogram(wave, RATE, name), style=width)
        shown = [picture, player(wave, RATE, name)]
    return element(
        "figure",
        element("figcaption", label, element("small", " · ".join(facts))),
        *shown,
        element("p", aligned(u.alignment)),
    )
