"""What each utterance of a set says, who says it, and where: all of it before any sound.

Everything about an utterance follows from (seed, set, index), so that sets can be made in any
order, by any number of processes, and go on where they were interrupted.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from sentences import Grammar, Sentence, bucket, choose
from sets import SetSpec
from speakers import Speaker

# Under speech babble is as likely as two of the others; where nobody speaks each comes in turn.
NOISES = ["white", "pink", "brown", "hum", "babble", "babble"]
NOT_SPEECH = ["white", "pink", "brown", "babble", "music", "music", "silence"]
BABBLE_TALKERS, CROWD_TALKERS = 4, 12


@dataclass(frozen=True)
class Corpus:
    """What a recipe generates: its sets, who speaks in them, and what is said, by language.

    `hard` are the sentences of the sets' hard share, by kind. Another `version` is another corpus.
    """

    version: int | str
    sets: Sequence[SetSpec]
    people: Callable[[str, str], list[Speaker]]  # of a group, in a language
    grammars: Mapping[str, Grammar]
    hard: Mapping[str, Grammar] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """One utterance before it is heard. `speaker` is None where nobody speaks."""

    id: str
    spec: SetSpec
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

    def __init__(self, corpus: Corpus, spec: SetSpec, seed: int, language: str) -> None:
        self.spec = spec
        self.seed = seed
        self.grammar = corpus.grammars[language]
        self.hard = corpus.hard.get(spec.hard_kind)
        self.people = corpus.people(spec.group, language)

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
            spec=spec,
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
            spec=self.spec,
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
        if self.spec.hard and rng.random() < self.spec.hard:
            return self._own(lambda: self.hard.sentence(rng))
        tiers = self.spec.tiers if rng.random() < self.spec.keyword_share else ()
        while True:
            sentence = self._own(lambda: self.grammar.sentence(rng, tiers))
            words = len(self.grammar.tokens(sentence.text)) / self.grammar.tokens_per_word
            if 2 <= words <= self.spec.longest:
                return sentence

    def _own(self, draw: Callable[[], Sentence]) -> Sentence:
        """The first sentence drawn that is in the set's buckets."""
        first, last = self.spec.buckets
        while True:
            sentence = draw()
            if first <= bucket(sentence.text, self.seed) <= last:
                return sentence

    def _talkers(
        self, rng: np.random.Generator, count: int, speaker: Speaker | None
    ) -> tuple[tuple[Speaker, Sentence], ...]:
        """`count` people of the set's group other than `speaker`, each with a sentence."""
        others = [person for person in self.people if person is not speaker]
        chosen = rng.integers(len(others), size=count)
        return tuple((others[number], self._sentence(rng)) for number in chosen)


def audio_path(root: str | Path, utterance: Plan) -> Path:
    """Where an utterance's audio lies."""
    return Path(root) / "wav" / utterance.spec.name / utterance.speaker_id / f"{utterance.id}.wav"
