"""What rewards must fulfil: where it is said, the reason and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audiorl.config import load_config
from audiorl.config.check import check_recipe
from audiorl.config.rewards import REWARDS, SYNTHESIS, reward_options
from audiorl.errors import UserError


def of_speech(name: str) -> bool:
    return bool(SYNTHESIS.intersection(reward_options(name).needs))


@pytest.mark.parametrize(
    ("rewards", "reason"),
    [
        ("[]", "no reward has a weight"),
        ("[{weight: 0}]", "no reward has a weight"),
        ("[{name: wer}, {name: wer}]", "names wer twice; keep one and add up the weights"),
        ("[{name: wer, label: a}, {name: language, label: a}]", "names a twice"),
        ("[{label: a/b}]", 'label "a/b" names numbers in logs; use letters'),
        ("[{name: wer, k: 2}]", "wer has no use for k (it knows unit); remove it"),
        ("[{name: language, unit: char}]", "language has no use for unit (it has no options)"),
        ("[{name: keywords, max_rate: 5}]", "has no use for max_rate (it knows measure, boundary)"),
        ("[{name: wer, kind: gate}]", "wer cannot be of kind gate; set kind: sample"),
        ("[{name: language, kind: group}]", "cannot be of kind group; set kind: gate or sample"),
        ("[{name: group_length, kind: sample}]", "cannot be of kind sample; set kind: group"),
        ("[{name: language, weight: -1}]", "is a gate of weight -1 and would reward; set more"),
        ("[{name: file}]", "file needs reward_file, your Python file"),
        (
            "[{name: file, reward_file: /x/mine.py}]",
            "reward_file is /x/mine.py, outside the",
        ),
        (
            "[{name: file, reward_file: ../mine.py}]",
            "reward_file is ../mine.py, outside the",
        ),
        (
            "[{name: file, reward_file: m.txt}]",
            "reward_file is m.txt, which is no Python file",
        ),
        ("[{name: http}]", "http needs url, which begins with http://"),
        ("[{name: http, url: 'http://[::1/'}]", "url is no address"),
        ("[{name: http, url: 'file:///etc/passwd'}]", "http needs url, which begins with http://"),
        ("[{name: format, pattern: '[a'}]", "pattern is no regular expression (unterminated"),
    ],
)
def test_broken_rule(problems: Callable, rewards: str, reason: str) -> None:
    (problem,) = problems("seed: 1", f"rl.rewards={rewards}")
    assert problem.startswith("--set rl.rewards") and reason in problem


@pytest.mark.parametrize(
    ("combination", "rewards", "reason"),
    [
        ("harmonic", "[{name: edit_distance}]", "edit_distance has no lowest value"),
        (
            "harmonic",
            "[{name: wer}, {name: length, weight: 0}]",
            "weights above 0, and length has",
        ),
        ("gdpo", "[{name: wer}, {name: language}]", "the gate language would not count; set its"),
        ("gdpo", "[{name: hallucination, kind: gate}]", "the gate hallucination would not count"),
    ],
)
def test_broken_rule_of_a_combination(
    problems: Callable, combination: str, rewards: str, reason: str
) -> None:
    options = [f"rl.rewards={rewards}", f"rl.reward_combination={combination}"]
    (problem,) = problems("seed: 1", *options)
    assert "rl.reward_combination" in problem and reason in problem


@pytest.mark.parametrize(
    "options",
    [
        [
            f"rl.rewards=[{{name: {name}, weight: 0.5}}]",
            *["task=tts"] * bool(SYNTHESIS.intersection(reward_options(name).needs)),
        ]
        for name in REWARDS
        if name not in ("file", "http")
    ]
    + [
        ["rl.rewards=[{name: wer}, {name: wer, unit: char, label: cer}]"],
        ["rl.rewards=[{name: wer_exp, k: 12, unit: char}]"],
        ["rl.rewards=[{name: wer}, {name: hallucination, kind: gate, max_rate: 5.5}]"],
        ["rl.rewards=[{name: file, reward_file: local/mine.py, kind: gate}]"],
        ["rl.rewards=[{name: http, url: 'http://localhost:8000/score', kind: group, timeout: 5}]"],
        ["rl.rewards=[{name: wer}, {name: language, kind: sample}]", "rl.reward_combination=gdpo"],
        ["rl.rewards=[{name: wer}, {name: language}]", "rl.reward_combination=harmonic"],
        ["rl.rewards=[{name: file, reward_file: local/mine.py, waves: true}]", "task=asr"],
        ["rl.rewards=[{name: http, url: 'http://localhost/', waves: true}]", "task=asr"],
    ],
)
def test_kept_rule(write: Callable, options: list[str]) -> None:
    load_config(write("seed: 1"), options)


def test_a_missing_reward_file_is_found_before_anything_runs(write: Callable) -> None:
    path = write(
        "rl:\n  rewards: [{name: file, reward_file: local/mine.py}]\nscore:\n  normalizer: none\n"
    )
    with pytest.raises(UserError, match=r"c.yaml:2: rl.rewards: .*local/mine.py: there is no such"):
        check_recipe(path)
    Path("local").mkdir()
    Path("local/mine.py").touch()
    check_recipe(path)


def test_the_usual_kinds() -> None:
    groups = {"group_length", "duration", "diversity"}
    usual = {name: reward_options(name).actual_kind for name in REWARDS}
    assert {name for name, kind in usual.items() if kind == "gate"} == {"language"}
    assert {name for name, kind in usual.items() if kind == "group"} == groups
    assert reward_options("language", kind="sample").actual_kind == "sample"
