"""Keywords: counted exactly and loosely; B-WER and U-WER against hand counts and a golden case."""

from __future__ import annotations

import random

import pytest

from audiorl.text.align import Counts, align
from audiorl.text.keywords import (
    Reading,
    biased_errors,
    compare_keywords,
    count_loosely,
    find_keywords,
    keyword_scores,
    read,
)


def readings(*texts: str, normalizer: str = "none") -> frozenset[Reading]:
    return frozenset(read(text, normalizer) for text in texts)


def count(ref: str, hyp: str, *keywords: str, normalizer: str = "none") -> Counts:
    listed = readings(*keywords, normalizer=normalizer)
    said, heard = (find_keywords(read(text, normalizer), listed) for text in (ref, hyp))
    return compare_keywords(said, heard)


def loosely(ref: str, hyp: str, *keywords: str, boundary: int, normalizer: str = "none") -> Counts:
    listed = readings(*keywords, normalizer=normalizer)
    return count_loosely(read(ref, normalizer), read(hyp, normalizer), listed, boundary)


def phrases(*keywords: str) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(keyword.split()) for keyword in keywords)


@pytest.mark.parametrize(
    ("ref", "hyp", "counts"),
    [
        ("go to new york", "go to new york", Counts(hits=1)),
        ("go to new york", "go to york new", Counts(deletions=1)),
        ("go home", "go oslo", Counts(insertions=1)),  # said nowhere: precision
        ("go home", "go home", Counts()),
        ("oslo oslo", "oslo", Counts(hits=1, deletions=1)),
        ("oslo in new york", "oslo oslo york", Counts(1, 0, 1, 1)),
    ],
)
def test_counts_of_keywords(ref: str, hyp: str, counts: Counts) -> None:
    assert count(ref, hyp, "new york", "oslo") == counts


@pytest.mark.parametrize(
    ("ref", "hyp", "keywords", "counts"),
    [
        # english makes these 711, 500, 7 11, 22 and $5.
        ("call seven eleven at nine", "call seven eleven at nine", ["eleven"], Counts(hits=1)),
        ("call seven eleven at nine", "call Severn at nine", ["eleven"], Counts(deletions=1)),
        ("I said five hundred times", "I said five hundred times", ["five"], Counts(hits=1)),
        ("call seven eleven", "call 7 11", ["eleven"], Counts(hits=1)),
        ("twenty two came", "22 came", ["twenty two"], Counts(hits=1)),
        ("twenty two and 22", "22 and twenty two", ["twenty two", "22"], Counts(hits=2)),
        ("five dollars", "$5", ["five dollars", "oslo"], Counts(hits=1)),
        ("the grey one", "the gray one", ["grey one"], Counts(hits=1)),
    ],
)
def test_keywords_in_numbers_are_found(ref: str, hyp: str, keywords, counts: Counts) -> None:
    assert count(ref, hyp, *keywords, normalizer="english") == counts
    assert loosely(ref, hyp, *keywords, boundary=1, normalizer="english") == counts


def test_keyword_scores() -> None:
    scores = keyword_scores(Counts(hits=6, deletions=2, insertions=4))
    assert (scores["reference"], scores["hypothesis"]) == (8, 10)
    assert scores["precision"] == pytest.approx(0.6)
    assert scores["recall"] == pytest.approx(0.75)
    assert scores["f1"] == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    scores = keyword_scores(Counts(insertions=2))
    assert (scores["precision"], scores["recall"], scores["f1"]) == (0, 0, 0)


def test_nothing_said_and_nothing_heard_is_right() -> None:
    """As of a list of names that might have been said."""
    scores = keyword_scores(Counts())
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1, 1, 1)
    assert (scores["reference"], scores["hypothesis"], scores["hits"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("hyp", "boundary", "hits", "insertions"),
    [
        ("call zephyra now", 0, 1, 0),
        ("call zephyras now", 0, 0, 0),
        ("call zephyras now", 1, 1, 0),  # a letter after it
        ("call azephyra now", 1, 1, 0),  # or before it
        ("call zephyraing now", 1, 0, 0),
        ("call zephyraing now", 3, 0, 0),  # never more than a quarter of its letters
        ("call zeph yra now", 0, 1, 0),  # in two words
        ("callzephyra now", 1, 0, 0),
        ("call zephira now", 1, 0, 0),  # misspelt
        ("zephyra zephyra zephyra", 0, 1, 2),
        ("", 1, 0, 0),
    ],
)
def test_fuzzy_boundaries(hyp: str, boundary: int, hits: int, insertions: int) -> None:
    counts = loosely("call zephyra now", hyp, "zephyra", boundary=boundary)
    assert (counts.hits, counts.insertions) == (hits, insertions)
    assert counts.hits + counts.deletions == 1


def test_fuzzy_boundaries_join_phrases_and_know_short_words_and_characters() -> None:
    def hits(ref: str, hyp: str, *keywords: str) -> int:
        return loosely(ref, hyp, *keywords, boundary=1).hits

    assert hits("in new york", "in newyork", "new york") == 1
    assert hits("the art", "the arts", "art") == 0  # too short to have a letter more
    assert hits("the art", "the start", "art") == 0
    assert hits("去 张 江 路", "在 张 江 路 口", "张 江 路") == 1
    assert hits("oslo and oslo", "oslo oslo", "oslo") == 2


def test_listed_but_not_said_is_an_insertion_if_heard() -> None:
    assert loosely("go home", "go oslo", "oslo", boundary=1) == Counts(insertions=1)
    assert loosely("go home", "go home", "oslo", boundary=1) == Counts()


@pytest.mark.parametrize(
    ("ref", "hyp", "keywords", "biased", "others"),
    [
        # hits, substitutions, deletions, insertions
        ("call zephyra now", "call zephyra now", ["zephyra"], (1, 0, 0, 0), (2, 0, 0, 0)),
        ("call zephyra now", "call severe now", ["zephyra"], (0, 1, 0, 0), (2, 0, 0, 0)),
        ("call zephyra now", "call now", ["zephyra"], (0, 0, 1, 0), (2, 0, 0, 0)),
        ("call now", "call zephyra now", ["zephyra"], (0, 0, 0, 1), (2, 0, 0, 0)),
        ("call now", "call me now", ["zephyra"], (0, 0, 0, 0), (2, 0, 0, 1)),
        # A keyword in the place of another word is that word's error.
        ("call him now", "call zephyra now", ["zephyra"], (0, 0, 0, 0), (2, 1, 0, 0)),
        ("a b c d", "a x c", ["b", "d"], (0, 1, 1, 0), (2, 0, 0, 0)),
        ("a b", "c d", [], (0, 0, 0, 0), (0, 2, 0, 0)),
        ("", "zephyra now", ["zephyra"], (0, 0, 0, 1), (0, 0, 0, 1)),
        # Units of a phrase of several count inside that phrase only.
        ("new york is new", "new york is now", ["new york"], (2, 0, 0, 0), (1, 1, 0, 0)),
        ("new york", "new cork", ["new york"], (1, 1, 0, 0), (0, 0, 0, 0)),
        ("我 去 张 江", "我 去 张 将", ["张 江"], (1, 1, 0, 0), (2, 0, 0, 0)),
    ],
)
def test_biased_errors(ref, hyp, keywords, biased, others) -> None:
    found = biased_errors(align(ref.split(), hyp.split()), phrases(*keywords))
    assert found == (Counts(*biased), Counts(*others))


def slow_split(ref: list[str], hyp: list[str], words: set[str]) -> tuple[int, int, int, int]:
    """(B errors, B units, U errors, U units) of a shortest path, by plain dynamic programming.

    Among the paths with the fewest errors it finds the fewest B errors, which is where alignments
    may differ; so the tests use words between which there is but one path.
    """
    best = {(0, 0): (0, 0)}
    for i in range(len(ref) + 1):
        for j in range(len(hyp) + 1):
            options = []
            if i and j:
                wrong = ref[i - 1] != hyp[j - 1]
                total, b = best[i - 1, j - 1]
                options.append((total + wrong, b + (wrong and ref[i - 1] in words)))
            if i:
                total, b = best[i - 1, j]
                options.append((total + 1, b + (ref[i - 1] in words)))
            if j:
                total, b = best[i, j - 1]
                options.append((total + 1, b + (hyp[j - 1] in words)))
            if options:
                best[i, j] = min(options)
    total, b = best[len(ref), len(hyp)]
    units = sum(word in words for word in ref)
    return b, units, total - b, len(ref) - units


def test_biased_errors_agree_with_an_independent_computation() -> None:
    draw = random.Random(3)
    for _ in range(300):
        ref = [f"w{draw.randrange(1000)}" for _ in range(draw.randint(1, 15))]
        words = {f"w{i}" for i in range(0, 1000, 3)}
        hyp = list(ref)
        at = draw.randrange(len(ref))  # one error: a single shortest path
        hyp[at : at + draw.randint(0, 1)] = [f"w{draw.randrange(1000)}"] * draw.randint(0, 1)
        biased, others = biased_errors(align(ref, hyp), phrases(*words))
        found = (biased.errors, biased.units, others.errors, others.units)
        assert found == slow_split(ref, hyp, words)
