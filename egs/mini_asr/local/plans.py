"""What each utterance of a set says, who says it, and where: all of it before any sound.

Everything about an utterance follows from (seed, set, index), so that sets can be made in any
order, by any number of processes, and go on where they were interrupted.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import sentences_en
import sentences_zh
from sentences import Sentence, bucket, choose
from sets import SETS, SetSpec
from speakers import Speaker, speakers

GRAMMARS = {"en": sentences_en.GRAMMAR, "zh": sentences_zh.GRAMMAR}
# Under speech babble is as likely as two of the others; where nobody speaks each comes in turn.
NOISES = ["white", "pink", "brown", "hum", "babble", "babble"]
NOT_SPEECH = ["white", "pink", "brown", "babble", "music", "music", "silence"]
BABBLE_TALKERS, CROWD_TALKERS = 4, 12


@dataclass(frozen=True)
class Plan:
    """One utterance before it is heard. `speaker` is None where nobody speaks."""

    id: str
    set: str
    speaker: Speaker | None
    sentences: tuple[Sentence, ...]
    noise: str  # a kind, or none
    talkers: tuple[tuple[Speaker, Sentence], ...]  # the voices in babble
    snr: float  # dB; inf: clean; -inf: noise alone
    t60: float  # seconds; 0: no room
    seed: tuple[int, ...]  # of the draws that make the sound

    @property
    def speaker_id(self) -> str:
        return self.speaker.id if self.speaker else "noise"

    @property
    def keywords(self) -> list[str]:
        """Each once, in the order they are said."""
        found = [keyword for sentence in self.sentences for keyword in sentence.keywords]
        return list(dict.fromkeys(found))


class Planner:
    """Plans the utterances of one set."""

    def __init__(self, spec: SetSpec, seed: int, language: str) -> None:
        self.spec = spec
        self.seed = seed
        self.grammar = GRAMMARS[language]
        self.people = speakers(spec.group, language)

    def plan(self, index: int) -> Plan:
        """What utterance `index` is to be, the same at every call."""
        origin = (self.seed, zlib.crc32(self.spec.name.encode()), index)
        rng = np.random.default_rng([*origin, 0])
        return (self._speech if self.spec.speech else self._noise)(index, (*origin, 1), rng)

    def _speech(self, index: int, seed: tuple[int, ...], rng: np.random.Generator) -> Plan:
        spec = self.spec
        speaker = self.people[index % len(self.people)]
        count = 1 + int(rng.choice(len(spec.joined), p=spec.joined))
        clean = rng.random() < spec.clean
        noise = "none" if clean else choose(rng, NOISES)
        return Plan(
            id=f"{speaker.id}-{spec.name}-{index:05d}",
            set=spec.name,
            speaker=speaker,
            sentences=tuple(self._sentence(rng) for _ in range(count)),
            noise=noise,
            talkers=self._talkers(rng, BABBLE_TALKERS if noise == "babble" else 0, speaker),
            snr=math.inf if clean else round(float(rng.uniform(*spec.snr)), 1),
            t60=float(rng.uniform(*spec.t60)) if rng.random() < spec.reverberant else 0.0,
            seed=seed,
        )

    def _noise(self, index: int, seed: tuple[int, ...], rng: np.random.Generator) -> Plan:
        noise = NOT_SPEECH[index % len(NOT_SPEECH)]
        return Plan(
            id=f"noise-{self.spec.name}-{index:05d}",
            set=self.spec.name,
            speaker=None,
            sentences=(),
            noise=noise,
            talkers=self._talkers(rng, CROWD_TALKERS if noise == "babble" else 0, None),
            snr=-math.inf,
            t60=0.0,
            seed=seed,
        )

    def _sentence(self, rng: np.random.Generator) -> Sentence:
        """A sentence that is the set's own, and neither a single word nor too long."""
        first, last = self.spec.buckets
        tiers = self.spec.tiers if rng.random() < self.spec.keyword_share else ()
        while True:
            sentence = self.grammar.sentence(rng, tiers)
            words = len(self.grammar.tokens(sentence.text)) / self.grammar.tokens_per_word
            if (
                first <= bucket(sentence.text, self.seed) <= last
                and 2 <= words <= self.spec.longest
            ):
                return sentence

    def _talkers(
        self, rng: np.random.Generator, count: int, speaker: Speaker | None
    ) -> tuple[tuple[Speaker, Sentence], ...]:
        """`count` people of the set's group other than `speaker`, each with a sentence."""
        others = [person for person in self.people if person is not speaker]
        chosen = rng.integers(len(others), size=count)
        return tuple((others[number], self._sentence(rng)) for number in chosen)


@cache
def planner(name: str, seed: int, language: str) -> Planner:
    """The planner of a set, made once per process."""
    return Planner(next(spec for spec in SETS if spec.name == name), seed, language)


def audio_path(root: str | Path, utterance: Plan) -> Path:
    """Where an utterance's audio lies."""
    return Path(root) / "wav" / utterance.set / utterance.speaker_id / f"{utterance.id}.wav"
