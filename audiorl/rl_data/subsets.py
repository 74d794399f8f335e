"""The kinds of subsets: which utterances qualify, which of them come first, and why.

random         D0 of the paper (section 4.2): the control
hard           D1: systems disagree, or the speaker or a system repeats the same
long, short    D2: by duration
keyword        D3: names, brands, terms
hallucination  hypotheses with what is not in the audio; audio without speech
ordinary       what the policy can do, against forgetting
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from audiorl.config.rl_data import SubsetConfig
from audiorl.data.utterance import Utterance
from audiorl.errors import UserError
from audiorl.rl_data.difficulty import Difficulty


@dataclass(frozen=True)
class Candidate:
    """An utterance, and how the policy fares with it."""

    utterance: Utterance
    difficulty: Difficulty


# How much of its kind a candidate has (None: it does not qualify), and in words.
Measure = Callable[[Candidate], tuple[float, str] | None]


def _random(candidate: Candidate) -> tuple[float, str]:
    return 0.0, "any utterance qualifies"


def _hard(candidate: Candidate) -> tuple[float, str] | None:
    found = candidate.difficulty
    if found.repeats:
        return 1.0, "the same is said over and over"
    reason = f"hypotheses differ by {found.disagreement:.2f}"
    return (found.disagreement, reason) if found.disagreement else None


def _long(candidate: Candidate) -> tuple[float, str]:
    seconds = candidate.utterance.duration
    return seconds, f"{seconds:.2f} s"


def _short(candidate: Candidate) -> tuple[float, str]:
    seconds, reason = _long(candidate)
    return -seconds, reason


def _keyword(candidate: Candidate) -> tuple[float, str] | None:
    keywords = candidate.utterance.keywords
    return (len(keywords), f"keywords: {'; '.join(keywords)}") if keywords else None


def _hallucination(candidate: Candidate) -> tuple[float, str] | None:
    share, silent = candidate.difficulty.hallucinated, not candidate.utterance.has_speech
    reason = f"{share:.0%} of the hypotheses hallucinate" + (" where nobody speaks" * silent)
    return (share, reason) if share or silent else None


def _ordinary(candidate: Candidate) -> tuple[float, str] | None:
    error = candidate.difficulty.error
    return None if error is None else (0.0, f"greedy error rate {error:.2f}")


KINDS: dict[str, tuple[Measure, str]] = {  # and what those have that do not qualify
    "random": (_random, ""),
    "hard": (_hard, "with equal hypotheses"),
    "long": (_long, ""),
    "short": (_short, ""),
    "keyword": (_keyword, "without keywords"),
    "hallucination": (_hallucination, "without hallucination"),
    "ordinary": (_ordinary, "without an error rate"),
}


@dataclass(frozen=True)
class Choice:
    """The utterances of a subset."""

    subset: SubsetConfig
    reasons: dict[str, str]  # utterance id -> why it is in


def choose(
    subset: SubsetConfig,
    candidates: Sequence[Candidate],
    seed: int,
    drop_flat: bool,
    taken: frozenset[str] = frozenset(),
) -> Choice:
    """The `size` candidates with the most of the kind, ties at random, that are not `taken`.

    Prints how many were kept and why the others were not. Raises UserError if fewer qualify.
    """
    rng = np.random.default_rng([seed, zlib.crc32(subset.label.encode())])
    measure, lacking = KINDS[subset.kind]
    why: Counter[str] = Counter()
    qualified: list[tuple[float, str, str]] = []
    for i in rng.permutation(len(candidates)):
        candidate = candidates[i]
        name = candidate.utterance.id
        obstacle = "in an earlier subset" if name in taken else ""
        obstacle = obstacle or _obstacle(subset, candidate, drop_flat)
        measured = None if obstacle else measure(candidate)
        if measured is None:
            why[obstacle or lacking] += 1
        else:
            qualified.append((*measured, name))
    if len(qualified) < max(subset.size, 1):
        raise UserError(_too_few(subset, len(qualified), len(candidates), why))
    qualified.sort(key=lambda found: -found[0])  # stable: ties stay at random
    kept = qualified[: subset.size or None]
    why["beyond its size"] = len(qualified) - len(kept)
    print(f"{subset.label}: kept {len(kept)} of {len(candidates)}{_told(why)}")
    return Choice(subset, {name: reason for _, reason, name in kept})


def _obstacle(subset: SubsetConfig, candidate: Candidate, drop_flat: bool) -> str:
    """Why a candidate cannot be in a subset, whatever its kind; empty if it can."""
    difficulty, seconds = candidate.difficulty, candidate.utterance.duration
    if drop_flat and difficulty.flat and subset.kind != "ordinary":
        return "with equal rewards"
    if seconds < subset.min_duration:
        return "too short"
    if seconds > subset.longest:
        return "too long"
    if subset.kind == "hard" and difficulty.repeats:
        return ""  # a loop has more errors than words
    if difficulty.error is None:
        limited = subset.min_error or subset.max_error
        return "without an error rate" if limited else ""
    if difficulty.error < subset.min_error:
        return "below min_error"
    if difficulty.error > subset.highest_error:
        return "above max_error"
    return ""


def _told(why: Counter[str]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in why.most_common() if count)
    return f" ({counts})" if counts else ""


def _too_few(subset: SubsetConfig, found: int, total: int, why: Counter[str]) -> str:
    wanted = f"{subset.size} utterances" if subset.size else "an utterance"
    smaller = "lower its size or " if subset.size and found else ""
    return (
        f"rl_data.subsets: {subset.label} wants {wanted}, but {found} of {total} "
        f"qualify{_told(why)}; {smaller}widen what it takes."
    )
