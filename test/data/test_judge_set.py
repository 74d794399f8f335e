"""The judge's own recordings: whole voices or chapters, nothing lost, nothing twice."""

from __future__ import annotations

import random

import pytest

from audiorl.data.judge_set import set_aside
from audiorl.data.utterance import Utterance


def corpus(speakers: int, each: int) -> list[Utterance]:
    """Utterances of speakers in no order."""
    made = [
        Utterance(f"{speaker:03}-{number:03}", "", "ba do", f"{speaker:03}")
        for speaker in range(speakers)
        for number in range(each + speaker)  # some say more
    ]
    random.Random(1).shuffle(made)
    return made


def part(train: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
    return set_aside(train, lambda utterance: utterance.speaker, "speakers")


@pytest.mark.parametrize("speakers", [8, 9, 40])
def test_whole_voices(speakers: int, capsys: pytest.CaptureFixture) -> None:
    train = corpus(speakers, 30)
    judge, rest = part(train)
    assert sorted([*judge, *rest], key=lambda u: u.id) == sorted(train, key=lambda u: u.id)
    theirs, others = {u.speaker for u in judge}, {u.speaker for u in rest}
    assert len(theirs) == speakers // 4 and theirs.isdisjoint(others)
    assert (judge, rest) == part(train[::-1])
    assert capsys.readouterr().out.splitlines()[0] == (
        f"for the judge alone: {len(judge):,} of {len(train):,} utterances for training, "
        f"{speakers // 4} of {speakers} speakers"
    )


def test_few_voices_are_parted_by_utterance(capsys: pytest.CaptureFixture) -> None:
    train = corpus(7, 40)
    judge, rest = part(train)
    assert len(judge) == len(train) // 4 and len(judge) + len(rest) == len(train)
    assert {u.id for u in judge}.isdisjoint(u.id for u in rest)
    assert {u.speaker for u in judge} == {u.speaker for u in rest}
    told = capsys.readouterr().out
    assert told.endswith("utterances (7 speakers are too few to part)\n")


def test_of_a_small_corpus_nothing_is_taken(capsys: pytest.CaptureFixture) -> None:
    train = corpus(9, 15)
    assert len(train) < 200
    judge, rest = part(train)
    assert judge == [] and rest == sorted(train, key=lambda u: u.id)
    assert capsys.readouterr().out.startswith("NO DATA OF ITS OWN for the judge: 171 utterances, ")
