"""Which utterances each kind of subset takes, which first, and what it says about the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pools import candidate

from audiorl.config.rl_data import SubsetConfig
from audiorl.errors import UserError
from audiorl.rl_data.subsets import KINDS, Candidate, Choice, choose


def chosen(subset: SubsetConfig, pool: Sequence[Candidate], seed: int = 1, **options) -> Choice:
    return choose(subset, pool, seed, options.pop("drop_flat", False), **options)


def names(kind: str, pool: Sequence[Candidate], **keys) -> set[str]:
    return set(chosen(SubsetConfig(kind=kind, **keys), pool).reasons)


MANY = [candidate(f"u{i:02d}", seconds=1 + i / 10) for i in range(40)]


def test_random_is_any_and_by_chance() -> None:
    assert names("random", MANY) == {c.utterance.id for c in MANY}
    some = names("random", MANY, size=10)
    assert len(some) == 10
    assert some == names("random", MANY, size=10)
    assert some != set(chosen(SubsetConfig(size=10), MANY, seed=2).reasons)
    assert some != names("random", MANY, size=10, name="another")
    picked = {
        name for seed in range(20) for name in chosen(SubsetConfig(size=10), MANY, seed).reasons
    }
    assert len(picked) == 40  # everyone has a chance


def test_a_smaller_subset_is_a_part_of_a_larger_one() -> None:
    assert names("random", MANY, size=5) < names("random", MANY, size=10)


def test_hard_are_those_on_which_systems_disagree_most() -> None:
    pool = [candidate(f"u{i}", disagreement=i / 10) for i in range(8)]
    assert names("hard", pool, size=3) == {"u5", "u6", "u7"}
    assert names("hard", pool) == {f"u{i}" for i in range(1, 8)}  # u0: all say the same
    reasons = chosen(SubsetConfig(kind="hard"), pool).reasons
    assert reasons["u4"] == "hypotheses differ by 0.40"


def test_hard_within_a_band_of_errors() -> None:
    pool = [candidate(f"u{i}", error=i / 10) for i in range(16)]
    assert names("hard", pool, min_error=0.2, max_error=0.5) == {"u2", "u3", "u4", "u5"}


def test_repetition_is_hard_whatever_its_errors() -> None:
    loop = candidate("loop", repeats=True, error=4.0, disagreement=0.0)
    pool = [loop, *(candidate(f"u{i}", disagreement=0.9) for i in range(5))]
    assert "loop" in names("hard", pool, size=1, max_error=1.0)
    reason = chosen(SubsetConfig(kind="hard", size=1), pool).reasons["loop"]
    assert reason == "the same is said over and over"
    assert "loop" not in names("long", pool, max_error=1.0)


def test_by_length() -> None:
    assert names("long", MANY, size=3) == {"u37", "u38", "u39"}
    assert names("short", MANY, size=3) == {"u00", "u01", "u02"}
    assert names("long", MANY, size=2, max_duration=2.0) == {"u09", "u10"}
    assert names("short", MANY, min_duration=4.85) == {"u39"}
    assert chosen(SubsetConfig(kind="long", size=1), MANY).reasons == {"u39": "4.90 s"}


def test_keyword_are_those_with_most_keywords() -> None:
    pool = [
        candidate("one", keywords=["zephyra"]),
        candidate("two", keywords=["zephyra", "quill"]),
        candidate("three", keywords=["zephyra", "quill", "oslo"]),
        candidate("none"),
    ]
    assert names("keyword", pool, size=2) == {"two", "three"}
    assert names("keyword", pool) == {"one", "two", "three"}
    assert chosen(SubsetConfig(kind="keyword"), pool).reasons["two"] == "keywords: zephyra; quill"


SAID = ["um", "Mm-hmm.", "[laughter]", "(coughs)", "<noise>", "..."]  # or made audible


def test_hallucination_are_those_that_hallucinate_and_audio_without_speech() -> None:
    pool = [
        candidate("rarely", hallucinated=0.1),
        candidate("often", hallucinated=0.5),
        candidate("never"),
        candidate("noise", hallucinated=0.4, error=None, text=""),
        candidate("quiet", error=None, text=""),
        *(candidate(f"said{i}", error=None, text=text) for i, text in enumerate(SAID)),
        candidate("um", hallucinated=0.05, error=None, text="um"),
    ]
    assert names("hallucination", pool) == {"rarely", "often", "noise", "quiet", "um"}
    assert names("hallucination", pool, size=2) == {"often", "noise"}
    reasons = chosen(SubsetConfig(kind="hallucination"), pool).reasons
    assert reasons["often"] == "50% of the hypotheses hallucinate"
    assert reasons["noise"] == "40% of the hypotheses hallucinate where nobody speaks"
    assert reasons["um"] == "5% of the hypotheses hallucinate"


def test_ordinary_is_what_the_policy_can_do() -> None:
    pool = [candidate(f"u{i}", error=i / 20) for i in range(6)]
    pool.append(candidate("noise", error=None))
    assert names("ordinary", pool) == {"u0", "u1", "u2"}
    assert names("ordinary", pool, max_error=0.05) == {"u0", "u1"}
    draws = {
        frozenset(chosen(SubsetConfig(kind="ordinary", size=1), pool, s).reasons) for s in range(9)
    }
    assert len(draws) == 3  # at random, not the easiest


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_ties_are_broken_by_chance(kind: str) -> None:
    """Equal utterances have equal chances, wherever they stand."""
    alike = {"keywords": ["oslo"], "hallucinated": 0.5, "error": 0.05}
    pool = [candidate(f"u{i}", **alike) for i in range(10)]
    first = [
        next(iter(chosen(SubsetConfig(kind=kind, size=1), pool, s).reasons)) for s in range(60)
    ]
    assert len(set(first)) >= 8


def test_equal_rewards_are_dropped_on_request_but_not_from_ordinary() -> None:
    pool = [candidate("flat", flat=True, error=0.0), candidate("other", error=0.0)]
    for kind, kept in (("random", {"other"}), ("long", {"other"}), ("ordinary", {"flat", "other"})):
        assert set(chosen(SubsetConfig(kind=kind), pool, drop_flat=True).reasons) == kept
    assert names("random", pool) == {"flat", "other"}


def test_what_is_taken_is_not_taken_again() -> None:
    taken = frozenset(names("long", MANY, size=3))
    later = chosen(SubsetConfig(kind="long", size=3), MANY, taken=taken)
    assert set(later.reasons) == {"u34", "u35", "u36"}


def test_what_is_left_out_is_counted(capsys) -> None:
    pool = [
        *(candidate(f"a{i}") for i in range(4)),
        candidate("b", seconds=0.5),
        candidate("c", seconds=99),
        candidate("d", error=1.5),
        candidate("e", error=0.0),
        candidate("f", disagreement=0.0),
        candidate("g", error=None),
        candidate("h", flat=True),
    ]
    band = {"min_duration": 1, "max_duration": 9, "min_error": 0.1, "max_error": 1}
    chosen(SubsetConfig(kind="hard", size=3, **band), pool, drop_flat=True)
    printed = capsys.readouterr().out
    assert printed.startswith("hard: kept 3 of 11 (")
    assert sorted(printed.partition("(")[2].rstrip(")\n").split(", ")) == sorted(
        "1 too short, 1 too long, 1 above max_error, 1 below min_error, 1 with equal hypotheses, "
        "1 without an error rate, 1 with equal rewards, 1 beyond its size".split(", ")
    )


def test_too_few(capsys) -> None:
    pool = [candidate("a", keywords=["oslo"]), candidate("b"), candidate("c")]
    with pytest.raises(UserError) as refused:
        names("keyword", pool, size=2)
    assert str(refused.value) == (
        "rl_data.subsets: keyword wants 2 utterances, but 1 of 3 qualify (2 without keywords); "
        "lower its size or widen what it takes."
    )
    with pytest.raises(
        UserError, match=r"names wants an utterance, but 0 of 2 qualify \(2 without"
    ):
        names("keyword", pool[1:], name="names")
    assert capsys.readouterr().out == ""
