"""The sets of the corpus, and what each utterance of them says, who says it, and where.

Everything about an utterance follows from (seed, set, index), so that sets can be made in any
order, by any number of processes, and go on where they were interrupted.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from sentences import Grammar, Sentence, bucket, choose
from speakers import Speaker, speakers

NOISES = ["white", "pink", "brown", "babble", "babble", "hum"]
NOT_SPEECH = ["white", "pink", "brown", "babble", "music", "music", "silence"]
BABBLE_TALKERS, CROWD_TALKERS = 4, 12


@dataclass(frozen=True)
class SetSpec:
    """A set: its size, speakers and conditions.

    `buckets` (first, last) are the sentences it may use: disjoint between sets that must not
    share any. `joined` is how many sentences an utterance has, `longest` the most words of one.
    `snr` is in dB, drawn uniformly but for the `clean` share; `t60` in seconds.
    """

    name: str
    size: int
    group: str
    buckets: tuple[int, int]
    joined: tuple[int, int] = (1, 1)
    longest: int = 8
    snr: tuple[float, float] = (15.0, 30.0)
    clean: float = 0.25
    reverberant: float = 0.2
    t60: tuple[float, float] = (0.15, 0.3)
    keyword_share: float = 0.05
    tiers: tuple[str, ...] = ("train",)
    speech: bool = True


HARD = {"snr": (0.0, 12.0), "clean": 0.0, "reverberant": 0.4, "t60": (0.2, 0.5)}
MIDDLE = {"snr": (5.0, 20.0), "clean": 0.1, "reverberant": 0.3, "t60": (0.2, 0.4)}
TRAIN, DEV, RL, RL_DEV, TEST = (0, 49), (50, 56), (57, 71), (72, 78), (79, 99)
SETS = [
    SetSpec("train", 6000, "train", TRAIN),
    SetSpec("dev", 200, "dev", DEV),
    SetSpec(
        "rl", 1200, "rl", RL, (1, 3), 10, keyword_share=0.35, tiers=("train", "rl"), **HARD
    ),
    SetSpec(
        "rl_dev", 200, "rl_dev", RL_DEV, (1, 3), 10, keyword_share=0.35, tiers=("train", "rl"),
        **HARD,
    ),
    SetSpec("test_clean", 250, "test", TEST),
    SetSpec("test_noisy", 250, "test", TEST, longest=10, **HARD),
    SetSpec("test_long", 150, "test", TEST, (5, 7), 10, **MIDDLE),
    SetSpec(
        "test_keyword", 250, "test", TEST, longest=10, keyword_share=1.0,
        tiers=("train", "train", "rl", "test"), **MIDDLE,
    ),
    SetSpec("test_nospeech", 120, "test", TEST, speech=False),
]  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """One utterance before it is heard. `speaker` is None where nobody speaks."""

    id: str
    set: str
    speaker: Speaker | None
    sentences: tuple[Sentence, ...]
    noise: str
    talkers: tuple[tuple[Speaker, Sentence], ...]
    snr: float  # dB; inf: clean; -inf: noise alone
    t60: float  # seconds; 0: no room
    seed: tuple[int, ...]  # of the draws that make the sound

    @property
    def speaker_id(self) -> str:
        return self.speaker.id if self.speaker else "noise"

    @property
    def keywords(self) -> list[str]:
        found = [keyword for sentence in self.sentences for keyword in sentence.keywords]
        return list(dict.fromkeys(found))


@cache
def grammar_of(language: str) -> Grammar:
    """The sentences of a language (en, zh)."""
    if language == "zh":
        from sentences_zh import GRAMMAR
    else:
        from sentences_en import GRAMMAR
    return GRAMMAR


cached_speakers = cache(speakers)


def plan(spec: SetSpec, index: int, seed: int, language: str) -> Plan:
    """What utterance `index` of a set is to be."""
    grammar = grammar_of(language)
    origin = (seed, zlib.crc32(spec.name.encode()), index)
    rng = np.random.default_rng([*origin, 0])
    people = cached_speakers(spec.group, language)
    if not spec.speech:
        noise = NOT_SPEECH[index % len(NOT_SPEECH)]
        crowd = others(None, people, CROWD_TALKERS if noise == "babble" else 0, spec, seed, rng,
                       grammar)  # fmt: skip
        name = f"noise-{spec.name}-{index:05d}"
        return Plan(name, spec.name, None, (), noise, crowd, -np.inf, 0.0, (*origin, 1))
    speaker = people[index % len(people)]
    count = int(rng.integers(spec.joined[0], spec.joined[1] + 1))
    sentences = tuple(draw_sentence(spec, seed, rng, grammar) for _ in range(count))
    snr = np.inf if rng.random() < spec.clean else float(np.round(rng.uniform(*spec.snr), 1))
    noise = choose(rng, NOISES) if np.isfinite(snr) else "none"
    talkers = others(speaker, people, BABBLE_TALKERS if noise == "babble" else 0, spec, seed, rng,
                     grammar)  # fmt: skip
    t60 = float(rng.uniform(*spec.t60)) if rng.random() < spec.reverberant else 0.0
    name = f"{speaker.id}-{spec.name}-{index:05d}"
    return Plan(name, spec.name, speaker, sentences, noise, talkers, snr, t60, (*origin, 1))


def draw_sentence(
    spec: SetSpec, seed: int, rng: np.random.Generator, grammar: Grammar
) -> Sentence:
    """A sentence that is the set's own and not too long."""
    first, last = spec.buckets
    tiers = spec.tiers if rng.random() < spec.keyword_share else ()
    while True:
        sentence = grammar.sentence(rng, tiers)
        if (
            first <= bucket(sentence.text, seed) <= last
            and 2 <= grammar.length(sentence.text) <= spec.longest
        ):
            return sentence


def others(
    speaker: Speaker | None, people: list[Speaker], count: int, spec: SetSpec, seed: int,
    rng: np.random.Generator, grammar: Grammar,
) -> tuple[tuple[Speaker, Sentence], ...]:  # fmt: skip
    """`count` people of the set's group, but not the speaker, with something to say each."""
    rest = [person for person in people if person is not speaker]
    chosen = [rest[int(i)] for i in rng.integers(len(rest), size=count)]
    return tuple((person, draw_sentence(spec, seed, rng, grammar)) for person in chosen)
