"""Detectors of hallucination: which units of a hypothesis cannot have been said.

Each is a plain function that returns spans of the hypothesis (empty: nothing found). Rewards and
scoring use the same ones. Units are words, or characters of a text without spaces; texts are
normalised. A reference, where there is one, excuses what the speaker did himself.
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
    """How many units lie in any of the spans."""
    return len(set().union(*(range(*span) for span in spans)))


def loops(hyp: Sequence[str], ref: Sequence[str] = ()) -> list[Span]:
    """What repeats an n-gram over and over: `REPETITIONS` times, `REPETITIONS` - 1 more than `ref`.

    The first time the n-gram stands there is not in the span. A unit in which letters loop is one
    as well, unless `ref` has one too.
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


def token_loops(tokens: Sequence[int], least: int) -> list[Span]:
    """Where an n-gram of speech tokens repeats itself over `least` of them or more.

    Less than that is a pause or a long sound, whose tokens are alike.
    """
    return [span for span, _ in _loops(tokens) if span.end - span.start >= least]


def compressible(hyp: Sequence[str], text: str, ref_text: str = "") -> list[Span]:
    """The whole hypothesis, if its text compresses better than Whisper allows and the other not."""
    degenerate = compression_ratio(text) > COMPRESSION_RATIO >= compression_ratio(ref_text)
    return [Span(0, len(hyp))] if degenerate else []


def concealed(hyp: Sequence[str], text: str, ref_text: str = "") -> list[Span]:
    """The whole hypothesis, if its text as it was output repeats itself and the reference's not.

    A normaliser may take away what is repeated (um, brackets, signs), or make one number of it.
    """
    if compressible(hyp, text, ref_text):
        return [Span(0, len(hyp))]
    scribbled, excused = (SCRIBBLE.search("".join(t.split())) for t in (text, ref_text))
    return [Span(0, len(hyp))] if scribbled and not excused else []


def compression_ratio(text: str) -> float:
    """Bytes of the text over its bytes after zlib, as in Whisper; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def bursts(alignment: Alignment) -> list[Span]:
    """Runs of `BURST` or more insertions."""
    spans, start, at = [], 0, 0
    for op in alignment.ops:
        if op.kind != "I":
            if at - start >= BURST:
                spans.append(Span(start, at))
            start = at + (op.kind != "D")
        at += op.kind != "D"
    return spans + [Span(start, at)] * (at - start >= BURST)


def count_words(units: Sequence[str]) -> float:
    """How much is said, whether with spaces or without: `LETTERS` letters or a CJK character: 1.

    Words alone are a poor measure of what a policy makes up: it learns to leave out the spaces.
    """
    return sum(1.0 if CJK_UNIT.match(unit) else len(unit) / LETTERS for unit in units)


def on_silence(hyp: Sequence[str]) -> list[Span]:
    """Whatever is output where nobody speaks, but for lone punctuation."""
    return [Span(0, len(hyp))] if any(map(str.isalnum, "".join(hyp))) else []


def overlong(hyp: Sequence[str], ref: Sequence[str]) -> list[Span]:
    """What goes beyond twice the length of the reference."""
    return [Span(2 * len(ref), len(hyp))] if len(hyp) > 2 * len(ref) else []


def beyond_audio(
    hyp: Sequence[str], seconds: float | None, rate: float, said: int = 0
) -> list[Span]:
    """The units for which the audio has no time at `rate` units a second; None: not known.

    `said`: the length of the reference, which had its time whatever the rate.
    """
    if seconds is None:
        return []
    allowed = max(math.ceil(seconds * rate), said)
    return [Span(allowed, len(hyp))] if len(hyp) > allowed else []


def foreign(hyp: Sequence[str], ref: Sequence[str]) -> list[Span]:
    """What is in another script or language than the reference: translated, say, not transcribed.

    Units of a script that the reference does not use, `FOREIGN` in a row, or any if they are half
    of the hypothesis. In Latin script the whole hypothesis, when `FOREIGN` words or more are
    function words of another language, and more than twice as many as of the reference's; a
    reference with fewer than two function words is of no known language.
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
    heard, said = languages(hyp), languages(ref)
    home = max(said, key=said.get, default="")
    return said[home] >= 2 and any(
        name != home and count - said[name] >= FOREIGN and count > 2 * heard[home]
        for name, count in heard.items()
    )


def _loops(units: Sequence[Hashable]) -> Iterator[tuple[Span, int]]:
    """Where an n-gram follows itself `REPETITIONS` times or more, and n."""
    if len(units) - len(set(units)) < REPETITIONS - 1:
        return  # too few repeated units for any
    for match in LOOP.finditer(_as_characters(units)):
        yield Span(*match.span()), len(match[1])


def _as_characters(units: Sequence[Hashable]) -> str:
    """One character for each unit, the same for the same, so that regular expressions apply."""
    ids: dict[Hashable, int] = {}
    return "".join(chr(0x10000 + ids.setdefault(unit, len(ids))) for unit in units)


def _repetitions(units: Sequence[str], n: int) -> int:
    """How often an n-gram follows itself at most; 1 if none does, or if there are no units."""
    text = _as_characters(units)
    found = re.finditer(rf"(.{{{n}}})\1+", text, re.DOTALL)
    return max((len(match[0]) // n for match in found), default=1)
