"""The sets of the corpus: their sizes, speakers and conditions."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SetSpec:
    """A set: its size, speakers and conditions.

    `buckets` (first, last) are the sentences it may use: disjoint between sets that must not
    share any. `joined` are the shares of utterances of 1, 2 ... sentences, `longest` the most
    words of a sentence; the `hard` share of them is from the corpus's grammar `hard_kind`, as long
    as that makes them. `snr` is in dB, drawn uniformly but for the `clean` share; `t60`, and the
    silence before (`lead`) and after (`tail`), in seconds; `level` in dB. A set without `audio` is
    text alone; of one with `prompts`, utt2prompt names another utterance of each speaker.
    """

    name: str
    size: int
    group: str
    buckets: tuple[int, int]
    joined: tuple[float, ...] = (0.9, 0.1)
    longest: int = 8
    snr: tuple[float, float] = (15.0, 30.0)
    clean: float = 0.25
    reverberant: float = 0.2
    t60: tuple[float, float] = (0.15, 0.3)
    keyword_share: float = 0.05
    tiers: tuple[str, ...] = ("train",)
    speech: bool = True
    hard: float = 0.0
    hard_kind: str = "hard"
    lead: tuple[float, float] = (0.1, 0.4)
    tail: tuple[float, float] = (0.15, 0.4)
    level: tuple[float, float] = (-30.0, -20.0)
    audio: bool = True
    prompts: bool = False


HARD = {"snr": (3.0, 15.0), "clean": 0.0, "reverberant": 0.4, "t60": (0.2, 0.5)}
MIDDLE = {"snr": (8.0, 20.0), "clean": 0.1, "reverberant": 0.3, "t60": (0.2, 0.4)}
TRAIN, DEV, RL, RL_DEV, TEST = (0, 49), (50, 56), (57, 71), (72, 78), (79, 99)
SETS = [
    SetSpec("train", 6000, "train", TRAIN),
    SetSpec("dev", 200, "dev", DEV),
    SetSpec(
        "rl", 1200, "rl", RL, (0.4, 0.3, 0.3), 10, keyword_share=0.35, tiers=("train", "rl"),
        **HARD,
    ),
    SetSpec(
        "rl_keyword", 400, "rl", RL, longest=10, keyword_share=1.0, tiers=("train", "rl"),
        **MIDDLE,
    ),
    SetSpec("rl_nospeech", 120, "rl", RL, speech=False),
    SetSpec(
        "rl_dev", 200, "rl_dev", RL_DEV, (0.4, 0.3, 0.3), 10, keyword_share=0.35,
        tiers=("train", "rl"), **HARD,
    ),
    SetSpec("test_clean", 250, "test", TEST),
    SetSpec("test_noisy", 250, "test", TEST, longest=10, **HARD),
    SetSpec("test_long", 150, "test", TEST, (0, 0, 0.5, 0.5), 10, **MIDDLE),
    SetSpec(
        "test_keyword", 250, "test", TEST, longest=10, keyword_share=1.0,
        tiers=("train", "train", "rl", "test"), **MIDDLE,
    ),
    SetSpec("test_nospeech", 120, "test", TEST, speech=False),
]  # fmt: skip
