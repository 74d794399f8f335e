"""RL sets on disk, and what else may serve as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiorl.data.rl_set import Item, read_rl_set
from audiorl.data.utterance import Utterance, read_utterances, write_utterances_jsonl
from audiorl.errors import UserError

ANNA = Utterance("anna", "/a.wav", "one two", "a", duration=1.0)
BOB = Utterance("bob", "/b.wav", "three", "b", duration=2.0)


def test_subsets_and_difficulty(tmp_path: Path) -> None:
    extras = {
        "bob": {
            "subsets": {
                "hard": {"weight": 2.0, "reason": "why"},
                "long": {"weight": 1, "reason": "why"},
            },
            "difficulty": {"reward_mean": 0.5, "reward_std": 0.1, "flat": False},
        },
        "anna": {"subsets": {"long": {"weight": 1.0, "reason": "why"}}},
    }
    write_utterances_jsonl(tmp_path / "rl.jsonl", [BOB, ANNA], extras)
    assert read_rl_set(tmp_path / "rl.jsonl") == [
        Item(ANNA, {"long": 1.0}),
        Item(BOB, {"hard": 2.0, "long": 1.0}, 0.5, 0.1),
    ]


def test_any_set_is_one(data_dir: Path, tmp_path: Path) -> None:
    whole = [Item(u, {"all": 1.0}) for u in read_utterances(data_dir)]
    assert read_rl_set(data_dir) == whole
    write_utterances_jsonl(tmp_path / "rl.jsonl", [item.utterance for item in whole])
    assert read_rl_set(tmp_path / "rl.jsonl") == whole


def test_prompts_of_synthesis_are_texts(data_dir: Path) -> None:
    (data_dir / "wav.scp").unlink()
    assert [item.utterance.audio for item in read_rl_set(data_dir, texts_alone=True)] == [""] * 5
    with pytest.raises(UserError, match="has no audio"):
        read_rl_set(data_dir)


@pytest.mark.parametrize(
    "extra",
    [
        {"subsets": ["hard"]},
        {"subsets": {"hard": 1.0}},
        {"subsets": {"hard": {"reason": "why"}}},
        {"subsets": {"hard": {"weight": "much"}}},
        {"subsets": {"hard": {"weight": 0}}},
        {"difficulty": 0.5},
        {"difficulty": {"reward_mean": "high"}},
        {"difficulty": {"reward_std": True}},
    ],
    ids=json.dumps,
)
def test_what_cannot_be_read_is_named(extra: dict, tmp_path: Path) -> None:
    write_utterances_jsonl(tmp_path / "rl.jsonl", [ANNA, BOB], {"bob": extra})
    with pytest.raises(UserError, match=r"rl\.jsonl: bob has no readable subsets or difficulty"):
        read_rl_set(tmp_path / "rl.jsonl")
