"""Candidates and probes that say what a test wants them to."""

from __future__ import annotations

from audiorl.data.utterance import Utterance
from audiorl.rl_data.difficulty import Difficulty
from audiorl.rl_data.probe import Probe
from audiorl.rl_data.subsets import Candidate

EASY = {
    "reward_mean": 0.9,
    "reward_std": 0.1,
    "reward_best": 1.0,
    "flat": False,
    "pass_rate": 0.5,
    "error": 0.2,
    "disagreement": 0.3,
    "repeats": False,
    "hallucinated": 0.0,
}


def utterance(name: str, text: str = "ba do", seconds: float = 2.0, keywords=()) -> Utterance:
    return Utterance(name, f"/{name}.wav", text, "s", duration=seconds, keywords=tuple(keywords))


def candidate(
    name: str, seconds: float = 2.0, keywords=(), text: str = "ba do", **difficulty
) -> Candidate:
    return Candidate(utterance(name, text, seconds, keywords), Difficulty(**{**EASY, **difficulty}))


def said(greedy: str, *samples: str, rewards: list[float] | None = None) -> Probe:
    count = len(samples)
    return Probe(greedy, list(samples), [True] * count, rewards or [0.0] * count, [""] * count)
