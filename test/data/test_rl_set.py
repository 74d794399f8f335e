"""RL sets on disk, and what else may serve as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audiorl.data.rl_set import Item, read_rl_set
from audiorl.data.utterance import Utterance, read_utterances, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.runtime.stamps import Stamp

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


LINE = {"id": "a", "audio": "/a.wav", "text": "one", "speaker": "s"}
HALF = chr(0xD800)  # of a character: JSON may hold it, no file can


@pytest.mark.parametrize(
    "change",
    [
        {"text": None}, {"text": 3}, {"text": HALF}, {"id": ""}, {"id": "a b"}, {"id": ["a"]},
        {"duration": "1.5"}, {"duration": float("nan")}, {"duration": -1}, {"duration": 10**400},
        {"start": True}, {"start": -0.5}, {"end": float("inf")}, {"keywords": "one"},
        {"keywords": [1]}, {"tags": ["a"]}, {"tags": {"snr": 5}}, {"audio": 7}, {"speaker": None},
        {"subsets": {"x": {"weight": float("nan")}}}, {"subsets": {"x": {"weight": "1"}}},
        {"subsets": {"x": {"weight": float("inf")}}}, {"subsets": {"x": {"weight": True}}},
        {"difficulty": {"reward_mean": float("nan")}}, {"difficulty": {"reward_std": 10**400}},
    ],
    ids=str,
)  # fmt: skip
def test_values_of_wrong_types_are_refused(tmp_path: Path, change: dict) -> None:
    (tmp_path / "rl.jsonl").write_text(json.dumps(LINE | change) + "\n")
    with pytest.raises(
        UserError, match=r"rl\.jsonl.*(write the file|build the RL set) again"
    ) as no:
        read_rl_set(tmp_path / "rl.jsonl")
    assert "\n" not in str(no.value) and len(str(no.value)) < 500


@pytest.mark.parametrize("line", [b"\xff\xfe", "ü".encode("latin-1"), b"{", b"[]", b"[" * 99999])
def test_lines_that_are_none_are_refused(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "rl.jsonl").write_bytes(json.dumps(LINE).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=r"rl\.jsonl:2 is not a JSON object .*; write the"):
        read_rl_set(tmp_path / "rl.jsonl")


def test_a_set_that_was_cut_or_changed_since_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rl.jsonl"
    write_utterances_jsonl(path, [ANNA, BOB])
    stamp = Stamp(tmp_path / "rl.meta.json", {}, {}, [path])
    stamp.write()
    assert len(read_rl_set(path)) == 2
    path.write_text(path.read_text().splitlines()[0] + "\n")  # at the end of a line
    with pytest.raises(UserError, match=r"rl\.jsonl is not what rl\.meta\.json says .*; build"):
        read_rl_set(path)
    stamp.path.unlink()
    assert len(read_rl_set(path)) == 1
