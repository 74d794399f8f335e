"""The speakers: espeak's voices (accent + variant) at a pitch and a rate of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Variants of espeak-ng that sound like people; the odd ones (whisper, croak, robots) and the
# Klatt synthesiser are left out. No variant speaks in two groups, so that the voices of the test
# sets have never been heard in training.
VARIANTS = {
    "train": "f1 m1 f2 m2 f4 m3 grandma m5 Annie Andy Michael robert travis Diogo",
    "dev": "Andrea m8 quincy Marco",
    "rl": "belinda rob shelby gustave anika antonio miguel paul ian pedro Jacky Storm",
    "rl_dev": "aunty victor norbert Nguyen",
    "test": "f3 m4 f5 m6 steph m7 Alicia Henrique ed Denis",
}
FEMALE = set("f1 f2 f3 f4 f5 grandma Annie Andrea belinda shelby anika aunty steph Alicia".split())
COUNTS = {"train": 24, "dev": 4, "rl": 12, "rl_dev": 4, "test": 10}
PREFIXES = {"train": "tr", "dev": "dv", "rl": "rl", "rl_dev": "rd", "test": "te"}
ACCENTS = {
    "en": ["gmw/en-US", "gmw/en", "gmw/en-GB-scotland", "gmw/en-GB-x-rp", "gmw/en-029"],
    "zh": ["sit/cmn"],
}


@dataclass(frozen=True)
class Speaker:
    """A voice of espeak, its usual rate (words a minute) and pitch (0-99).

    `formants`: factor of all frequencies of the voice; above 1 the person is smaller.
    """

    id: str
    voice: str
    rate: int
    pitch: int
    gender: str
    formants: float = 1.0


def speakers(group: str, language: str) -> list[Speaker]:
    """The speakers of a group (train, dev, rl, rl_dev, test); ids have all the same length."""
    variants = VARIANTS[group].split()
    accents = ACCENTS[language]
    # A fixed draw, so that a speaker is the same person whatever the seed of the sentences.
    rng = np.random.default_rng(list(group.encode()))
    made = []
    for number in range(COUNTS[group]):
        variant = variants[number % len(variants)]
        accent = accents[(number + number // len(variants)) % len(accents)]
        made.append(
            Speaker(
                id=f"{PREFIXES[group]}{number + 1:02d}",
                voice=f"{accent}+{variant}",
                rate=int(rng.integers(145, 196)),
                pitch=int(rng.integers(35, 71)),
                gender="f" if variant in FEMALE else "m",
            )
        )
    return made
