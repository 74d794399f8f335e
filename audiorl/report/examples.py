"""Utterances to read and listen to: those that changed most, and those with most errors."""

from __future__ import annotations

from dataclasses import dataclass

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.report.media import AudioClip, clip
from audiorl.report.tables import Table
from audiorl.score.asr import SystemScore
from audiorl.score.scored import ScoredUtterance

CHANGED = 5  # utterances shown in each direction
WORST = 10
OUTPUTS = 20  # shown of recordings without speech

Pair = tuple[ScoredUtterance, ScoredUtterance]  # before, after


@dataclass(frozen=True)
class Card:
    """One utterance with the hypotheses of one or two systems."""

    utterance: Utterance
    facts: list[str]
    reference: str
    hypotheses: list[tuple[str, ScoredUtterance]]  # label of the system, hypothesis
    clip: AudioClip | None  # None: an earlier card has it


@dataclass(frozen=True)
class CardGroup:
    """A section of the page."""

    anchor: str
    title: str
    cards: list[Card]


def example_groups(first: SystemScore, focus: SystemScore, sample_rate: int) -> list[CardGroup]:
    """Return the most improved, the most worsened and the worst utterances, at most 20 in all."""
    pairs = list(zip(first.pooled.utterances, focus.pooled.utterances, strict=True))
    chosen: dict[str, tuple[str, list[Pair]]] = {}
    if focus is not first:
        ranked = sorted(pairs, key=lambda p: (p[1].errors - p[0].errors, p[0].utterance.id))
        better = [p for p in ranked[:CHANGED] if p[1].errors < p[0].errors]
        worse = [p for p in ranked[::-1][:CHANGED] if p[1].errors > p[0].errors]
        chosen["better"] = ("Changed most for the better", better)
        chosen["worse"] = ("Changed most for the worse", worse)
    worst = sorted(pairs, key=lambda p: (-p[1].errors, p[0].utterance.id))[:WORST]
    chosen["worst"] = (f"Most errors of {focus.label}", [p for p in worst if p[1].errors])
    shown: set[tuple[str, str]] = set()
    groups = []
    for anchor, (title, members) in chosen.items():
        cards = []
        for before, after in members:
            u, key = after.utterance, (after.set, after.utterance.id)
            hypotheses = [(focus.label, after)]
            if focus is not first:
                hypotheses.insert(0, (first.label, before))
            audio = None if key in shown else recording(u, sample_rate)
            shown.add(key)
            cards.append(Card(u, _facts(after), after.ref, hypotheses, audio))
        groups.append(CardGroup(anchor, title, cards))
    return groups


def _facts(scored: ScoredUtterance) -> list[str]:
    u = scored.utterance
    seconds = [] if u.duration is None else [f"{u.duration:.1f} s"]
    tags = (f"{name} {value}" for name, value in u.tags.items())
    return [scored.set, f"speaker {u.speaker}", *seconds, *tags]


def recording(utterance: Utterance, sample_rate: int) -> AudioClip:
    """Return the utterance's audio, or why there is none."""
    rate = 16000 if sample_rate >= 16000 else 8000  # rates that MP3 has
    try:
        return clip(read_audio(utterance, rate), rate, utterance.id)
    except UserError as error:
        return AudioClip(utterance.id, error=str(error))


def no_speech_outputs(first: SystemScore, focus: SystemScore) -> list[Table]:
    """Return the output of each system on each set without speech."""
    systems = (first, focus) if focus is not first else (focus,)
    tables = []
    for name in first.no_speech:
        outputs = list(zip(*(s.no_speech[name].utterances for s in systems), strict=True))
        spoken = [row for row in outputs if any(u.hyp for u in row)]
        rows = [[row[0].utterance.id, *(u.hyp or "–" for u in row)] for row in spoken[:OUTPUTS]]
        title = f"{name}: {len(rows)} of {len(spoken)} recordings with an output, of {len(outputs)}"
        tables.append(Table(title, ["recording", *(s.label for s in systems)], rows))
    return tables
