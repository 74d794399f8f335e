"""Hallucination: the detectors on labelled cases and on real transcripts, and the reward."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import soundfile
from hallucinated import NORMALIZER, Case, make_cases

from audiorl.config.schema import RewardConfig, ScoreConfig
from audiorl.data.text import normal_units, normalizer
from audiorl.data.utterance import Utterance
from audiorl.rewards.base import Sample
from audiorl.rewards.hallucination import hallucination
from audiorl.score import detectors
from audiorl.score.align import align
from audiorl.score.failures import find_failures

CASES = make_cases()
KINDS = ("loop", "compression", "burst", "overlong", "beyond_audio", "foreign", "silence")
MAX_RATE = 8.0


def score_config(language: str) -> ScoreConfig:
    return ScoreConfig(normalizer=NORMALIZER[language], unit="mixed")


def found(case: Case) -> set[str]:
    """The kinds that the detectors see in a case."""
    name = NORMALIZER[case.language]
    ref, hyp = (normal_units(text, name, "mixed") for text in (case.ref, case.hyp))
    if not ref:
        return {"silence"} if detectors.on_silence(hyp) else set()
    texts = (normalizer(name)(text) for text in (case.hyp, case.ref))
    spans = {
        "loop": detectors.loops(hyp, ref),
        "compression": detectors.compressible(hyp, *texts),
        "burst": detectors.bursts(align(ref, hyp)),
        "overlong": detectors.overlong(hyp, ref),
        "beyond_audio": detectors.beyond_audio(hyp, case.seconds, MAX_RATE, len(ref)),
        "foreign": detectors.foreign(hyp, ref),
    }
    assert all(0 <= s.start < s.end <= len(hyp) for kind in spans.values() for s in kind)
    return {kind for kind, where in spans.items() if where}


def reward_of(case: Case, kind: str = "auto") -> float:
    reward = hallucination(score_config(case.language), RewardConfig("hallucination", kind=kind))
    utterance = Utterance("u", "", case.ref, "s", duration=case.seconds)
    return reward.score([Sample(utterance, case.hyp, True)])[0]


def rates(outcomes: Counter[tuple[bool, bool]]) -> tuple[float, float]:
    """Precision and recall of counted (expected, found)."""
    hits = outcomes[True, True]
    return hits / (hits + outcomes[False, True]), hits / (hits + outcomes[True, False])


def test_there_are_enough_cases_of_each_kind() -> None:
    assert len(CASES) >= 300
    for language in NORMALIZER:
        own = [case for case in CASES if case.language == language]
        assert sum(not case.kinds for case in own) >= 90
        for kind in KINDS:
            assert sum(kind in case.kinds for case in own) >= 14, (language, kind)


@pytest.mark.parametrize("language", NORMALIZER)
@pytest.mark.parametrize("kind", KINDS)
def test_precision_and_recall_of_each_detector(kind: str, language: str) -> None:
    outcomes = Counter(
        (kind in case.kinds, kind in found(case))
        for case in CASES
        if case.language == language and kind not in case.maybe
    )
    precision, recall = rates(outcomes)
    assert precision >= 0.95 and recall >= 0.9, (precision, recall)


@pytest.mark.parametrize("language", NORMALIZER)
def test_precision_and_recall_of_the_gate(language: str) -> None:
    outcomes = Counter(
        (bool(case.kinds), reward_of(case, "gate") < 0)
        for case in CASES
        if case.language == language
    )
    precision, recall = rates(outcomes)
    assert precision >= 0.95 and recall >= 0.9, (precision, recall)


def test_another_seed_is_no_worse() -> None:
    """The rates do not hang on the cases that the detectors were looked at with."""
    outcomes = Counter(
        (bool(case.kinds), reward_of(case, "gate") < 0)
        for seed in (2, 3, 4)
        for case in make_cases(4, seed)
    )
    precision, recall = rates(outcomes)
    assert precision >= 0.95 and recall >= 0.9, (precision, recall)
