"""Detectors of hallucination: units of a hypothesis that cannot have been said.

Each is a function that returns spans of the hypothesis (an empty list: nothing found). Rewards and
scoring share them. Units are words, or characters of a text without spaces; texts are normalised.
A reference, where there is one, excuses repetitions by the speaker.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from audiorl.text.align import Alignment
from audiorl.text.language import languages, script
from audiorl.text.normalise import CJK

REPETITIONS = 4  # an n-gram that follows itself this often is a loop
LONGEST_NGRAM = 20  # units
COMPRESSION_RATIO = 2.4  # Whisper's threshold for a degenerate hypothesis
LOOP_TOKENS = 25  # speech tokens that a repeating n-gram fills where it is no pause but a loop
BURST = 5  # inserted units in a row
FOREIGN = 3  # units of another script in a row, or function words of another language

LOOP = re.compile(rf"(.{{1,{LONGEST_NGRAM}}}?)\1{{{REPETITIONS - 1},}}", re.DOTALL)
# Letters that loop inside one unit: tokens without spaces, "sososososososo".
STUTTER = re.compile(r"([^\W\d_]{1,8}?)\1{5,}")
# Signs that loop where a normaliser takes them away: "!!!!!!!!!!!!".
SCRIBBLE = re.compile(r"([^\s\d]{1,8}?)\1{11,}")
LETTERS = 5  # of a word, as typists count
CJK_UNIT = re.compile(f"[{CJK}]")


class Span(NamedTuple):
    """Units [start, end) of a hypothesis."""

    start: int
    end: int


def covered(spans: Sequence[Span]) -> int:
    """Return how many units lie in any of the spans."""
    return len(set().union(*(range(*span) for span in spans)))


def loops(hyp: Sequence[str], ref: Sequence[str] = ()) -> list[Span]:
    """Return loops: an n-gram `REPETITIONS` times, and `REPETITIONS` - 1 times more than in `ref`.

    The first occurrence of the n-gram is not in the span. A unit in which letters repeat is a span,
    too, unless `ref` has such a unit.
    """
    spans = [
        Span(i, i + 1)
        for i, unit in enumerate(hyp)
        if len(unit) > 5 and STUTTER.search(unit) and not any(map(STUTTER.search, ref))
    ]
    for span, n in _loops(hyp):
        said = _repetitions(ref, n)
        if (span.end - span.start) // n - said >= REPETITIONS - 1:
            spans.append(Span(span.start + said * n, span.end))
    return spans


def token_loops(tokens: Sequence[int]) -> list[Span]:
    """Return spans of at least `LOOP_TOKENS` speech tokens in which an n-gram repeats.

    Shorter spans are pauses or long sounds, whose tokens are alike.
    """
    return [span for span, _ in _loops(tokens) if span.end - span.start >= LOOP_TOKENS]


def compressible(hyp: Sequence[str], text: str, ref_text: str = "") -> list[Span]:
    """Return the whole hypothesis if its text, unlike `ref_text`, compresses as loops do.

    The threshold is Whisper's (`COMPRESSION_RATIO`).
    """
    degenerate = compression_ratio(text) > COMPRESSION_RATIO >= compression_ratio(ref_text)
    return [Span(0, len(hyp))] if degenerate else []


def concealed(hyp: Sequence[str], text: str, ref_text: str = "") -> list[Span]:
    """Return the whole hypothesis if its text before normalisation loops and `ref_text` does not.

    A normaliser may remove the repetitions (um, brackets, signs) or make one number of them.
    """
    if compressible(hyp, text, ref_text):
        return [Span(0, len(hyp))]
    scribbled, excused = (SCRIBBLE.search("".join(t.split())) for t in (text, ref_text))
    return [Span(0, len(hyp))] if scribbled and not excused else []


def compression_ratio(text: str) -> float:
    """Return bytes of the text over its bytes after zlib, as in Whisper; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def bursts(alignment: Alignment) -> list[Span]:
    """Return runs of `BURST` or more insertions."""
    spans, start, at = [], 0, 0
    for op in alignment.ops:
        if op.kind != "I":
            if at - start >= BURST:
                spans.append(Span(start, at))
            start = at + (op.kind != "D")
        at += op.kind != "D"
    return spans + [Span(start, at)] * (at - start >= BURST)


def count_words(units: Sequence[str]) -> float:
    """Return the amount of text in words: `LETTERS` letters or one CJK character count as 1.

    Words by spaces are a poor measure of invented text: a policy learns to leave out the spaces.
    """
    return sum(1.0 if CJK_UNIT.match(unit) else len(unit) / LETTERS for unit in units)


def overlong(hyp: Sequence[str], ref: Sequence[str]) -> list[Span]:
    """Return the units beyond twice the length of the reference."""
    return [Span(2 * len(ref), len(hyp))] if len(hyp) > 2 * len(ref) else []


def beyond_audio(
    hyp: Sequence[str], seconds: float | None, rate: float, said: int = 0
) -> list[Span]:
    """Return the units for which the audio has no time at `rate` units a second.

    seconds: duration of the audio, None if unknown (no span). said: length of the reference, which
    fits at any rate.
    """
    if seconds is None:
        return []
    allowed = max(math.ceil(seconds * rate), said)
    return [Span(allowed, len(hyp))] if len(hyp) > allowed else []


def foreign(hyp: Sequence[str], ref: Sequence[str]) -> list[Span]:
    """Return units in another script or language than the reference, such as a translation.

    Units of a script that the reference does not use count if `FOREIGN` stand in a row, or if they
    are half of the hypothesis. In Latin script the span is the whole hypothesis if at least
    `FOREIGN` words are function words of another language, and more than twice as many as of the
    reference's language; a reference with fewer than two function words has no known language.
    """
    known = {script(unit) for unit in ref} - {""}
    if not known:
        return []
    scripts = [script(unit) for unit in hyp]
    strange = [bool(name) and name not in known for name in scripts]
    least = 1 if 2 * sum(strange) >= sum(map(bool, scripts)) else FOREIGN
    spans, start = [], 0
    for at, is_strange in enumerate([*strange, False]):
        if not is_strange:
            if at - start >= least:
                spans.append(Span(start, at))
            start = at + 1
    if "LATIN" in known and _in_another_language(hyp, ref):
        return [Span(0, len(hyp))]
    return spans


def _in_another_language(hyp: Sequence[str], ref: Sequence[str]) -> bool:
    hyp_counts, ref_counts = languages(hyp), languages(ref)
    home = max(ref_counts, key=ref_counts.get, default="")
    return ref_counts[home] >= 2 and any(
        name != home and count - ref_counts[name] >= FOREIGN and count > 2 * hyp_counts[home]
        for name, count in hyp_counts.items()
    )


def _loops(units: Sequence[Hashable]) -> Iterator[tuple[Span, int]]:
    """Yield (span, n) of each n-gram that follows itself `REPETITIONS` times or more."""
    if len(units) - len(set(units)) < REPETITIONS - 1:
        return  # too few repeated units for any
    for match in LOOP.finditer(_as_characters(units)):
        yield Span(*match.span()), len(match[1])


def _as_characters(units: Sequence[Hashable]) -> str:
    """Return one character for each distinct unit, so that regular expressions apply."""
    ids: dict[Hashable, int] = {}
    return "".join(chr(0x10000 + ids.setdefault(unit, len(ids))) for unit in units)


def _repetitions(units: Sequence[str], n: int) -> int:
    """Return the most repetitions in a row of any n-gram; 1 if there is none."""
    text = _as_characters(units)
    found = re.finditer(rf"(.{{{n}}})\1+", text, re.DOTALL)
    return max((len(match[0]) // n for match in found), default=1)
