"""The strings of digits of every set, before any sound: who says them, in which recordings, where.

Everything about an utterance follows from (seed, set, index) and the recordings that there are, so
that a corpus can be gone on with where it was interrupted. Sets of different purpose share no
recording: each has its own takes (`<digit>_<speaker>_<take>`), the tests the official ones, 0 to 4.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiorl.errors import UserError

WORDS = "zero one two three four five six seven eight nine".split()
# Only test_speakers has the new ones; their accents, German and American, train has by others.
KNOWN, NEW = ("george", "jackson", "nicolas", "yweweler"), ("lucas", "theo")
TAKES = 50  # of each digit by each speaker
DIGITS = (3, 7)  # in a string: fewest, most
NOISES = ("white", "pink", "brown", "babble")
TALKERS = 4  # voices in babble


@dataclass(frozen=True)
class SetSpec:
    """A set: its size, the takes and speakers it is made from, the range of its SNR in dB."""

    name: str
    size: int
    takes: range
    snr: tuple[float, float]
    speakers: tuple[str, ...] = KNOWN


MODERATE, NOISY, OFFICIAL_TEST = (12.0, 30.0), (-5.0, 10.0), range(5)
SETS = [
    SetSpec("train", 4000, range(5, 35), MODERATE),
    SetSpec("dev", 160, range(35, 38), MODERATE),
    SetSpec("rl", 1000, range(38, 47), NOISY),
    SetSpec("rl_dev", 200, range(47, TAKES), NOISY),
    SetSpec("test_clean", 300, OFFICIAL_TEST, MODERATE),
    SetSpec("test_noisy", 300, OFFICIAL_TEST, NOISY),
    SetSpec("test_speakers", 300, OFFICIAL_TEST, (-5.0, 30.0), NEW),
]


@dataclass(frozen=True)
class Recording:
    """One digit, spoken once."""

    digit: int
    speaker: str
    take: int
    path: Path


# (speaker, digit) -> its recordings.
Voices = Mapping[tuple[str, int], Sequence[Recording]]


@dataclass(frozen=True)
class DigitString:
    """An utterance before it is heard."""

    id: str
    speaker: str
    recordings: tuple[Recording, ...]
    noise: str  # one of NOISES
    talkers: tuple[tuple[Recording, ...], ...]  # the voices in babble
    snr: float  # dB
    seed: tuple[int, ...]  # of the draws that make the sound

    @property
    def text(self) -> str:
        return " ".join(WORDS[recording.digit] for recording in self.recordings)


def voices_of(spec: SetSpec, recordings: Sequence[Recording]) -> Voices:
    """What a set may be made from. Raises UserError when a speaker lacks a digit."""
    voices: dict[tuple[str, int], list[Recording]] = {
        (speaker, digit): [] for speaker in spec.speakers for digit in range(len(WORDS))
    }
    for recording in recordings:
        if recording.take in spec.takes and recording.speaker in spec.speakers:
            voices[recording.speaker, recording.digit].append(recording)
    for (speaker, digit), takes in voices.items():
        if not takes:
            raise UserError(
                f"{spec.name} needs a recording of {digit} by {speaker} with an index of "
                f"{spec.takes.start} to {spec.takes.stop - 1}, and the corpus has none; get the "
                "whole corpus."
            )
    return voices


def plan(spec: SetSpec, index: int, seed: int, voices: Voices) -> DigitString:
    """Utterance `index` of a set, the same at every call."""
    origin = (seed, zlib.crc32(spec.name.encode()), index)
    rng = np.random.default_rng([*origin, 0])
    speaker = spec.speakers[index % len(spec.speakers)]
    others = [person for person in spec.speakers if person != speaker]
    noise = NOISES[rng.integers(len(NOISES))]
    talkers = others * TALKERS if noise == "babble" else []
    return DigitString(
        id=f"{speaker}-{spec.name}-{index:05d}",
        speaker=speaker,
        recordings=_say(speaker, voices, rng),
        noise=noise,
        talkers=tuple(_say(person, voices, rng) for person in talkers[:TALKERS]),
        snr=round(float(rng.uniform(*spec.snr)), 1),
        seed=(*origin, 1),
    )


def _say(speaker: str, voices: Voices, rng: np.random.Generator) -> tuple[Recording, ...]:
    """A string of random digits, each in one of its recordings."""
    digits = rng.integers(len(WORDS), size=rng.integers(DIGITS[0], DIGITS[1] + 1))
    takes = [voices[speaker, int(digit)] for digit in digits]
    return tuple(found[rng.integers(len(found))] for found in takes)
