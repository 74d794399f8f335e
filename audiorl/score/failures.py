"""Failures that an error rate hides: nothing said, the same said again and again, things made up.

An LLM decoder fails in ways a CTC or transducer model does not (Whisper's authors list them). All
are counted per utterance, so that a mean does not hide ten bad ones.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence

from audiorl.score.align import Alignment, Counts

COMPRESSION_RATIO = 2.4  # Whisper's threshold for a degenerate hypothesis
REPETITIONS = 4  # an n-gram that follows itself this often is a loop
LONGEST_NGRAM = 8  # units
BURST = 5  # inserted units in a row

Phrase = tuple[str, ...]  # a keyword, split into units

NAMES = ("empty", "looping", "insertion_burst", "truncated")


def find_failures(
    ref: Sequence[str], hyp: Sequence[str], ref_text: str, hyp_text: str, alignment: Alignment
) -> list[str]:
    """Names the failures of one hypothesis on speech.

    empty: nothing was output. looping: an n-gram repeated `REPETITIONS` times or text that
    compresses better than Whisper allows, where the reference does not do so itself.
    insertion_burst: `BURST` insertions in a row, or more than twice as long as the reference.
    """
    if not ref:
        return []
    found = []
    if not hyp:
        found.append("empty")
    if is_looping(hyp, hyp_text) and not is_looping(ref, ref_text):
        found.append("looping")
    if longest_burst(alignment) >= BURST or len(hyp) > 2 * len(ref):
        found.append("insertion_burst")
    return found


def is_looping(units: Sequence[str], text: str) -> bool:
    return repetitions(units) >= REPETITIONS or compression_ratio(text) > COMPRESSION_RATIO


def repetitions(units: Sequence[str]) -> int:
    """How often the most repeated n-gram stands in a row (1: no repetition, 0: no units)."""
    most = min(len(units), 1)
    for n in range(1, LONGEST_NGRAM + 1):
        # A run of k equalities at distance n is an n-gram that occurs k // n + 1 times.
        run = 0
        for unit, later in zip(units, units[n:], strict=False):
            run = run + 1 if unit == later else 0
            most = max(most, run // n + 1)
    return most


def compression_ratio(text: str) -> float:
    """Bytes of the text over its bytes after zlib, as in Whisper; 0 for an empty text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 0.0


def longest_burst(alignment: Alignment) -> int:
    """The most insertions in a row."""
    longest = run = 0
    for op in alignment.ops:
        run = run + 1 if op.kind == "I" else 0
        longest = max(longest, run)
    return longest


def count_keywords(ref: Sequence[str], hyp: Sequence[str], phrases: set[Phrase]) -> Counts:
    """How many keyword phrases of one reference the hypothesis has: hits, deletions, insertions.

    Every phrase of the whole set is looked for, so that a name put where it was not said counts
    against precision. A phrase said twice must be recognised twice.
    """
    spoken, heard = find_keywords(ref, phrases), find_keywords(hyp, phrases)
    return Counts(
        hits=(spoken & heard).total(),
        deletions=(spoken - heard).total(),
        insertions=(heard - spoken).total(),
    )


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


def find_keywords(units: Sequence[str], phrases: set[Phrase]) -> Counter[Phrase]:
    """How often each of the phrases stands there."""
    return Counter(
        phrase
        for n in {len(phrase) for phrase in phrases}
        for start in range(len(units) - n + 1)
        if (phrase := tuple(units[start : start + n])) in phrases
    )
