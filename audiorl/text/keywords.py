"""Keywords: precision and recall, and the error rates of keywords and of all other units.

A phrase is a keyword split into units (Latin by word, CJK by character). Keywords are searched
twice, with numbers normalised and with number words as they are, and the higher count is taken:
`english` makes 711 of "seven eleven", as of 7 11, which hides "eleven" and 11, but finds "twenty
two" in 22. B-WER and U-WER split the units of the error rate, in which numbers are normalised.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from audiorl.text.align import Alignment, Counts
from audiorl.text.normalise import normal_units

KEYWORD_UNIT = "mixed"
LITERAL = {"english": "english_words"}  # normaliser -> the one that leaves number words

Phrase = tuple[str, ...]


class Reading(NamedTuple):
    """Units of a text or keyword in the two forms in which keywords are searched."""

    normal: Phrase
    literal: Phrase  # number words as they are


def read(text: str, normalizer_name: str) -> Reading:
    """Return the units of a text or keyword."""
    literal = LITERAL.get(normalizer_name, normalizer_name)
    return Reading(*(normal_units(text, name, KEYWORD_UNIT) for name in (normalizer_name, literal)))


def read_all(keywords: Iterable[str], normalizer_name: str) -> frozenset[Reading]:
    """Return the keywords of which the normaliser leaves something."""
    readings = (read(keyword, normalizer_name) for keyword in set(keywords))
    return frozenset(reading for reading in readings if all(reading))


@functools.lru_cache(maxsize=1024)
def read_phrases(keywords: tuple[str, ...], normalizer_name: str) -> frozenset[Phrase]:
    """Return the normal phrases of keywords; recent lists are cached, for sets that share one."""
    return frozenset(keyword.normal for keyword in read_all(keywords, normalizer_name))


def compare_keywords(ref: Counter[Phrase], hyp: Counter[Phrase]) -> Counts:
    """Return hits, deletions and insertions of keywords.

    A keyword that stands twice in the reference must be recognised twice; one that is inserted
    lowers precision. Listed keywords that stand in neither text do not count.
    """
    return Counts(
        hits=(ref & hyp).total(),
        deletions=(ref - hyp).total(),
        insertions=(hyp - ref).total(),
    )


def count_loosely(
    ref: Reading, hyp: Reading, keywords: Collection[Reading], boundary: int
) -> Counts:
    """Return hits, deletions and insertions of keywords with fuzzy word boundaries.

    A phrase may be written as one word or several ("new york", "newyork"), and a word may begin
    before it or end after it by `boundary` letters ("zephyras"), but by no more than a quarter of
    the phrase. Its own letters must be right.
    """
    forms: dict[str, set[str]] = {}
    for keyword in keywords:
        normal, literal = map("".join, keyword)
        forms.setdefault(normal, set()).update((normal, literal))

    def find(text: Reading) -> Counter[str]:
        found = [Counter[str](), Counter[str]()]
        for normal, spelled in forms.items():
            found[0][normal] = _count(text.normal, normal, boundary)
            found[1][normal] = sum(_count(text.literal, form, boundary) for form in spelled)
        return found[0] | found[1]

    return compare_keywords(find(ref), find(hyp))


def keyword_scores(counts: Counts) -> dict[str, float | int]:
    """Return precision, recall and F1 with their counts.

    All are 1 if no keyword stands in either text, so that a biasing list of names that were not
    spoken costs nothing; with another zero denominator they are 0.
    """
    reference, hypothesis = counts.hits + counts.deletions, counts.hits + counts.insertions
    nothing = not reference and not hypothesis
    return {
        "reference": reference,
        "hypothesis": hypothesis,
        "hits": counts.hits,
        "precision": 1.0 if nothing else counts.hits / max(hypothesis, 1),
        "recall": 1.0 if nothing else counts.hits / max(reference, 1),
        "f1": 1.0 if nothing else 2 * counts.hits / (reference + hypothesis),
    }


def biased_errors(alignment: Alignment, phrases: frozenset[Phrase]) -> tuple[Counts, Counts]:
    """Return the errors behind B-WER (units in biasing phrases) and U-WER (all other units).

    As defined with the LibriSpeech biasing lists (Le et al., arXiv 2104.02194): an error belongs to
    its reference unit, an insertion to the inserted unit, and the biasing phrases are those of the
    utterance's own list. There a phrase is one word; a unit of a longer one counts only inside it.
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


def find_keywords(text: Reading, keywords: frozenset[Reading]) -> Counter[Phrase]:
    """Count the occurrences of each keyword in a text, by its normal phrase."""
    known, normals, literals = _forms(keywords)
    normal = Counter(phrase for _, phrase in _places(text.normal, normals))
    literal = Counter(known[phrase] for _, phrase in _places(text.literal, literals))
    return normal | literal  # the more of both


@functools.lru_cache(maxsize=16)
def _forms(keywords: frozenset[Reading]) -> tuple[dict[Phrase, Phrase], frozenset, frozenset]:
    """Return normal phrases by each form of them, all normal phrases, and all forms."""
    known = {form: keyword.normal for keyword in keywords for form in keyword}
    return known, frozenset(known.values()), frozenset(known)


def _inside(units: Sequence[str], phrases: frozenset[Phrase]) -> set[int]:
    """Return the positions of units that lie in a phrase."""
    places = _places(units, phrases)
    return {at for start, phrase in places for at in range(start, start + len(phrase))}


@functools.lru_cache(maxsize=64)
def _lengths(phrases: frozenset[Phrase]) -> set[int]:
    return set(map(len, phrases))


def _places(units: Sequence[str], phrases: frozenset[Phrase]) -> list[tuple[int, Phrase]]:
    """Return (position of the first unit, phrase) of every occurrence."""
    return [
        (start, phrase)
        for n in _lengths(phrases)
        for start in range(len(units) - n + 1)
        if (phrase := tuple(units[start : start + n])) in phrases
    ]


def _count(units: Sequence[str], letters: str, boundary: int) -> int:
    """Count occurrences of a phrase's letters near word boundaries, without overlaps."""
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
