"""Utterances to look at and listen to: those that changed most, and the worst."""

from __future__ import annotations

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.report.markup import Html, element, join, section, table
from audiorl.report.media import player
from audiorl.report.tables import Table
from audiorl.score.asr import ScoredUtterance, SystemScore
from audiorl.text.align import Alignment

CHANGED = 5  # utterances shown in each direction
WORST = 10
OUTPUTS = 20  # shown of recordings without speech

LEGEND = Html(
    "In the alignments: <mark>substituted</mark>, <del>left out</del>, <ins>inserted</ins>."
)

Pair = tuple[ScoredUtterance, ScoredUtterance]  # before, after


def example_sections(first: SystemScore, focus: SystemScore, sample_rate: int) -> list[Html]:
    """Better, worse, worst, and what was output without speech; at most 20 players in all."""
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
    systems = (first, focus) if focus is not first else (focus,)
    heard: set[tuple[str, str]] = set()
    sections = []
    for anchor, (title, members) in chosen.items():
        cards = []
        for pair in members:
            key = (pair[0].set, pair[0].utterance.id)
            audio = None if key in heard else recording(pair[0].utterance, sample_rate)
            heard.add(key)
            cards.append(_card(pair[-len(systems) :], [s.label for s in systems], audio))
        note = element("p", LEGEND if cards else "None.", class_="note")
        sections.append(section(anchor, title, note, *cards))
    return sections + _no_speech(systems)


def _card(scored: tuple[ScoredUtterance, ...], labels: list[str], audio: Html | None) -> Html:
    """One utterance: what it is, its audio, and the reference above each system's alignment."""
    u, first = scored[0].utterance, scored[0]
    facts = [first.set, f"speaker {u.speaker}"]
    if u.duration is not None:
        facts.append(f"{u.duration:.1f} s")
    facts += [f"{name} {value}" for name, value in u.tags.items()]
    lines = [element("dt", "reference"), element("dd", first.ref or "(empty)")]
    for label, one in zip(labels, scored, strict=True):
        flags = "".join(f", {flag.replace('_', ' ')}" for flag in one.flags)
        number = f"{one.errors} error{'s' * (one.errors != 1)} in {one.alignment.counts.units}"
        lines.append(element("dt", label, element("small", number + flags)))
        lines.append(element("dd", marked(one.alignment)))
    return element(
        "article",
        element("h3", u.id),
        element("p", " · ".join(facts), class_="note"),
        audio if audio is not None else element("p", "Audio: see above.", class_="note"),
        element("dl", *lines),
    )


def marked(alignment: Alignment) -> Html:
    """The hypothesis with its errors marked, by more than their colour."""
    marks = {
        "=": lambda op: op.hyp,
        "S": lambda op: element("mark", op.hyp, title=f"instead of: {op.ref}"),
        "D": lambda op: element("del", op.ref, title="left out"),
        "I": lambda op: element("ins", op.hyp, title="inserted"),
    }
    if not alignment.ops:
        return join("(empty)")
    shown = [join(marks[op.kind](op), " ") for op in alignment.ops]
    return join(*shown)


def recording(utterance: Utterance, sample_rate: int) -> Html:
    """A player with the utterance's audio, or why there is none."""
    rate = 16000 if sample_rate >= 16000 else 8000  # rates that MP3 has
    try:
        samples = read_audio(utterance, rate)
    except UserError as error:
        return element("p", f"No audio: {error}", class_="note")
    return player(samples, rate, utterance.id)


def _no_speech(systems: tuple[SystemScore, ...]) -> list[Html]:
    """What each system output where nobody speaks."""
    tables = []
    for name in systems[0].no_speech:
        outputs = list(zip(*(s.no_speech[name].utterances for s in systems), strict=True))
        spoken = [row for row in outputs if any(u.hyp for u in row)]
        rows = [[row[0].utterance.id, *(u.hyp or "–" for u in row)] for row in spoken[:OUTPUTS]]
        title = f"{name}: {len(rows)} of {len(spoken)} recordings with an output, of {len(outputs)}"
        header = ["recording", *(s.label for s in systems)]
        tables.append(table(Table(title, header, rows), text=True))
    return [section("no-speech", "Output where nobody speaks", *tables)] if tables else []
