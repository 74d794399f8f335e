"""Keywords: how many are recognised, and the error rates of keywords and of all else.

A phrase is a keyword split into units (Latin by word, CJK by character).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from itertools import accumulate

from audiorl.score.align import Alignment, Counts

Phrase = tuple[str, ...]


def count_keywords(ref: Sequence[str], hyp: Sequence[str], phrases: Collection[Phrase]) -> Counts:
    """How many keyword phrases of one reference the hypothesis has: hits, deletions, insertions.

    Every phrase of the whole set is looked for, so that a name put where it was not said counts
    against precision. A phrase said twice must be recognised twice.
    """
    return _compare(find_keywords(ref, phrases), find_keywords(hyp, phrases))


def count_loosely(
    ref: Sequence[str], hyp: Sequence[str], phrases: Collection[Phrase], boundary: int
) -> Counts:
    """As `count_keywords`, with fuzzy boundaries of words.

    A phrase may be written as one word or several ("new york", "newyork"), and a word may begin
    before it or end after it by `boundary` letters ("zephyras"), but by no more than a quarter of
    the phrase. Its own letters must be right.
    """
    spelled = {"".join(phrase) for phrase in phrases}
    said, heard = (
        Counter({letters: _count(units, letters, boundary) for letters in spelled})
        for units in (ref, hyp)
    )
    return _compare(said, heard)


def keyword_scores(counts: Counts) -> dict[str, float | int]:
    """Precision, recall and F1 (0 where there is nothing to divide by) with their counts."""
    said, heard = counts.hits + counts.deletions, counts.hits + counts.insertions
    return {
        "reference": said,
        "hypothesis": heard,
        "hits": counts.hits,
        "precision": counts.hits / max(heard, 1),
        "recall": counts.hits / max(said, 1),
        "f1": 2 * counts.hits / max(said + heard, 1),
    }


def biased_errors(alignment: Alignment, phrases: Collection[Phrase]) -> tuple[Counts, Counts]:
    """The errors behind B-WER and U-WER: of the units in biasing phrases, and of all others.

    As defined with the LibriSpeech biasing lists (Le et al., arXiv 2104.02194): an error belongs to
    its reference unit, an insertion to the inserted one, and biasing is what the utterance's own
    list holds. There a phrase is one word; a unit of a longer one counts inside that phrase only.
    """
    ref_biased = _inside([op.ref for op in alignment.ops if op.ref], phrases)
    hyp_biased = _inside([op.hyp for op in alignment.ops if op.hyp], phrases)
    kinds: dict[bool, list[str]] = {True: [], False: []}
    r = h = 0
    for op in alignment.ops:
        kinds[h in hyp_biased if op.kind == "I" else r in ref_biased].append(op.kind)
        r, h = r + (op.kind != "I"), h + (op.kind != "D")
    biased, others = (Counts(*map(kinds[side].count, "=SDI")) for side in (True, False))
    return biased, others


def find_keywords(units: Sequence[str], phrases: Collection[Phrase]) -> Counter[Phrase]:
    """How often each of the phrases stands there."""
    return Counter(phrase for _, phrase in _places(units, phrases))


def _compare(said: Counter, heard: Counter) -> Counts:
    return Counts(
        hits=(said & heard).total(),
        deletions=(said - heard).total(),
        insertions=(heard - said).total(),
    )


def _inside(units: Sequence[str], phrases: Collection[Phrase]) -> set[int]:
    """The places of the units that lie in a phrase."""
    places = _places(units, phrases)
    return {at for start, phrase in places for at in range(start, start + len(phrase))}


def _places(units: Sequence[str], phrases: Collection[Phrase]) -> list[tuple[int, Phrase]]:
    """(first unit, phrase) of every occurrence."""
    return [
        (start, phrase)
        for n in {len(phrase) for phrase in phrases}
        for start in range(len(units) - n + 1)
        if (phrase := tuple(units[start : start + n])) in phrases
    ]


def _count(units: Sequence[str], letters: str, boundary: int) -> int:
    """How often a phrase's letters begin and end about where words do; no overlaps."""
    text = "".join(units)
    edges = {0, *accumulate(map(len, units))}
    reach = range(min(boundary, len(letters) // 4) + 1)
    count, at = 0, text.find(letters)
    while at >= 0:
        end = at + len(letters)
        fits = any(at - d in edges for d in reach) and any(end + d in edges for d in reach)
        count += fits
        at = text.find(letters, end if fits else at + 1)
    return count
