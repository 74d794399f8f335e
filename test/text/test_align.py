"""The counts behind error rates, against jiwer and a published result."""

from __future__ import annotations

import random
from pathlib import Path

import jiwer
import pytest

from audiorl.text.align import Counts, Op, align, count_errors

CASES = [
    ("a b c", "a b c"),
    ("a b c", ""),
    ("a b c", "c"),
    ("a b c", "x a b y c z"),
    ("a a a a", "a"),
    ("the cat sat on the mat", "a cat sat the mat mat"),
    ("一 二 三", "一 三 二"),
]


def random_pairs(count: int) -> list[tuple[str, str]]:
    generator = random.Random(5)
    return [
        (
            " ".join(generator.choices("abcde", k=generator.randint(1, 15))),
            " ".join(generator.choices("abcdef", k=generator.randint(0, 15))),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize(("ref", "hyp"), CASES + random_pairs(100))
def test_counts_are_jiwers(ref: str, hyp: str) -> None:
    expected = jiwer.process_words(ref, hyp)
    counts = count_errors(ref.split(), hyp.split())
    assert counts == Counts(
        expected.hits, expected.substitutions, expected.deletions, expected.insertions
    )
    assert counts.rate == pytest.approx(expected.wer)


@pytest.mark.parametrize(("ref", "hyp"), CASES + random_pairs(30))
def test_alignment_spells_both_sides(ref: str, hyp: str) -> None:
    alignment = align(ref.split(), hyp.split())
    assert [op.ref for op in alignment.ops if op.ref] == ref.split()
    assert [op.hyp for op in alignment.ops if op.hyp] == hyp.split()
    kinds = [op.kind for op in alignment.ops]
    assert alignment.counts == Counts(*(kinds.count(kind) for kind in "=SDI"))
    assert all((op.ref == op.hyp) == (op.kind == "=") for op in alignment.ops)


def test_sum_is_pooled_not_averaged() -> None:
    pairs = random_pairs(50)
    total = sum((count_errors(r.split(), h.split()) for r, h in pairs), Counts())
    pooled = jiwer.process_words([r for r, _ in pairs], [h for _, h in pairs])
    assert total.rate == pytest.approx(pooled.wer)
    mean = sum(jiwer.wer(r, h) for r, h in pairs) / len(pairs)
    assert total.rate != pytest.approx(mean, abs=1e-3)


def test_empty_hypothesis_is_all_deletions() -> None:
    assert align(["a", "b"], []).ops == [Op("D", "a", ""), Op("D", "b", "")]
    assert count_errors(["a", "b"], []) == Counts(deletions=2)


def test_empty_reference() -> None:
    """Its own rate is the number of insertions; in a sum they count and no unit is added."""
    inserted = count_errors([], ["x", "y"])
    assert inserted == Counts(insertions=2)
    assert (inserted.units, inserted.rate) == (0, 2.0)
    assert count_errors([], []).rate == 0.0
    assert (inserted + Counts(hits=8)).rate == pytest.approx(2 / 8)
    # The empty pair is no correct word.
    assert (count_errors([], []) + Counts(hits=1, deletions=1)).rate == pytest.approx(1 / 2)


def test_units_may_be_any_strings() -> None:
    # One-character strings and words with equal hashes in other engines stay apart.
    assert count_errors(["a", "", "ab"], ["a", " ", "ab"]).substitutions == 1


def test_published_result(shared_data) -> None:
    """A system's hypotheses on LibriSpeech test-clean and the WER published with them."""
    folder = shared_data("text") / "deep_bias"
    refs = read_tsv(folder / "librispeech_test-clean.biasing_100.tsv")
    hyps = read_tsv(folder / "test-clean.b1.rnnt_baseline.tsv")
    assert refs.keys() == hyps.keys()
    total = Counts()
    for name, ref in refs.items():
        total += count_errors(ref.lower().split(), hyps[name].lower().split())
    line = (folder / "test-clean.b1.rnnt_baseline.result").read_text().splitlines()[0]
    published = dict(item.split("=") for item in line.removeprefix("WER: ").split(", "))
    assert total.units == int(published["ref_words"])
    assert total.errors == sum(int(published[kind]) for kind in ("subs", "ins", "dels"))
    assert 100 * total.rate == pytest.approx(float(published["error_rate"]), abs=1e-12)


def read_tsv(path: Path) -> dict[str, str]:
    rows = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return {row[0]: row[1] if len(row) > 1 else "" for row in rows}
