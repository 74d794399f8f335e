"""Utterances that two sets share, so that a test measures nothing, and speakers that one lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from audiorl.data.tables import read_table
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.text.normalise import split_units

LONG_TEXT = 4  # words; a speaker says shorter ones again and again


def shared(dump: Path, train: Iterable[str], dev: Iterable[str], test: Iterable[str]) -> list[str]:
    """Return a sentence for each pair of sets in `dump` that share utterances.

    The same: equal audio, or equal text and speaker (and length, of a short text). Sets of
    training are compared with the others, and those of `dev` with those of `test`.
    """
    known = {n: _marks(dump / n) for n in dict.fromkeys([*train, *dev, *test])}
    pairs = [(held, other) for held in dev for other in (*train, *test)]
    pairs += [(held, other) for held in test for other in train]
    found = []
    for one, other in dict.fromkeys(pairs):
        marks = set().union(*known[other].values())
        both = [name for name, own in known[one].items() if own & marks]
        if both and one != other:
            found.append(
                f"warning: {len(both):,} of the {len(known[one]):,} utterances of {one} are in "
                f"{other} too, {both[0]} for one (same audio, or same speaker and text); scores "
                f"of {one} are not those of unseen data."
            )
    return found


def unknown_speakers(dump: Path, train: str, others: Iterable[str], prompted: bool) -> list[str]:
    """Return a part of a sentence for each set in `dump` with speakers that `train` lacks.

    prompted: an utterance with a prompt needs no speaker that is known.
    """
    known = set(read_table(dump / train / "utt2spk").values())
    found = []
    for name in dict.fromkeys(others):
        utterances = read_utterances(dump / name, texts_alone=True)
        speakers = {u.speaker for u in utterances if not (prompted and u.prompt)}
        if unknown := sorted(speakers - known):
            found.append(f"{len(unknown):,} of the {len(speakers):,} of {name} ({unknown[0]} …)")
    return found


def _marks(folder: Path) -> dict[str, set[tuple]]:
    return {u.id: set(_of(u)) for u in read_utterances(folder, texts_alone=True)}


def _of(u: Utterance) -> Iterator[tuple]:
    if u.audio_hash:
        yield u.audio_hash, u.start, u.end
    if u.text and u.duration:
        words = len(split_units(u.text, "mixed"))
        yield u.speaker, u.text, None if words >= LONG_TEXT else round(u.duration, 2)
