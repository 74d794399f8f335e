"""Synthesised speech to listen to: the same sentence by every system, and the worst of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from audiorl.data.audio import read_audio
from audiorl.data.tables import read_table
from audiorl.data.utterance import absolute_audio
from audiorl.errors import UserError
from audiorl.score.asr import ScoredUtterance, SystemScore
from audiorl.score.examples import LEGEND
from audiorl.score.examples import marked as aligned
from audiorl.score.markup import Html, details, element, join, section
from audiorl.score.media import LONGEST, player, spectrogram

IMPROVED, WORSENED = 2, 1  # sentences that are shown because they changed most
WORST = 10  # of each system
RATE = 16000  # Hz in the page: MP3 has it, and speech needs no more

NOTE = join(
    "Under each spectrogram stands what the judge hears, not what was to be said. ",
    LEGEND,
    " Pictures of a row have one scale of time.",
)


def voice_sections(systems: list[SystemScore], focus: SystemScore) -> list[Html]:
    """The same sentences by all systems, references included, and the worst ten of each system."""
    waves = _Waves()
    shown = [waves.row(systems, place) for place in _sentences(systems[0], focus)]
    worst = [
        details(f"{system.label}: {WORST} worst", *_worst(waves, system))
        for system in systems
        if not system.is_reference
    ]
    note = element("p", NOTE, class_="note")
    return [
        section("voices", "The same sentence", note, *shown),
        section("worst-voices", "The worst of each system", note, *worst),
    ]


def _sentences(first: SystemScore, focus: SystemScore) -> list[int]:
    """Places of utterances: changed most for the better, for the worse, and an ordinary one."""
    pairs = list(zip(first.pooled.utterances, focus.pooled.utterances, strict=True))
    change = sorted(range(len(pairs)), key=lambda i: pairs[i][1].errors - pairs[i][0].errors)
    chosen = [i for i in change[:IMPROVED] if pairs[i][1].errors < pairs[i][0].errors]
    chosen += [i for i in change[::-1][:WORSENED] if pairs[i][1].errors > pairs[i][0].errors]
    by_rate = sorted(range(len(pairs)), key=lambda i: pairs[i][1].alignment.counts.rate)
    return list(dict.fromkeys([*chosen, by_rate[len(by_rate) // 2]]))


def _worst(waves: _Waves, system: SystemScore) -> list[Html]:
    said = system.pooled.utterances

    def badness(place: int) -> tuple:
        u = said[place]
        return -u.errors, -u.alignment.counts.rate, u.utterance.id

    return [waves.row([system], place) for place in sorted(range(len(said)), key=badness)[:WORST]]


class _Waves:
    """Reads what systems have synthesised; the tables of their waves once."""

    def __init__(self) -> None:
        self._tables: dict[Path, dict[str, str]] = {}

    def row(self, systems: list[SystemScore], place: int) -> Html:
        """One sentence by each of the systems, side by side."""
        said = [(system.label, system.pooled.utterances[place]) for system in systems]
        heard = [self._read(s, u) for s, (_, u) in zip(systems, said, strict=True)]
        longest = max((len(w) for w in heard if not isinstance(w, str)), default=1)
        longest = min(longest, LONGEST * RATE)
        clips = (_clip(label, u, w, longest) for (label, u), w in zip(said, heard, strict=True))
        u = said[0][1]
        facts = f"{u.set} · {u.utterance.id} · speaker {u.utterance.speaker}"
        return element(
            "article",
            element("h3", u.utterance.text),
            element("p", facts, class_="note"),
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
