"""Sentences from a grammar: templates with slots, and rare names as keywords.

`{slot}` in a template is replaced by one of the slot's entries (which may hold slots again), by
what the slot's function returns, or, for a keyword slot, by a rare name that the set may use.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SLOT = re.compile(r"\{(\w+)\}")
Slot = Sequence[str] | Callable[[np.random.Generator], str]


@dataclass(frozen=True)
class Sentence:
    """What is said, the keywords in it, and the topic that it is of."""

    text: str
    keywords: tuple[str, ...] = ()
    topic: str = ""


@dataclass(frozen=True)
class Grammar:
    """A language's sentences.

    `topics` hold templates of everyday sentences, `keyword_templates` those with a rare name.
    `keywords[slot][tier]` lists rare names; a set draws from the tiers it may use. `separator`
    stands between words and sentences; where it is empty a token is a character, of which a word
    has `tokens_per_word`. `polish` mends what filling slots cannot know.
    """

    slots: dict[str, Slot]
    topics: dict[str, list[str]]
    keyword_templates: list[str]
    keywords: dict[str, dict[str, list[str]]]
    separator: str = " "
    tokens_per_word: int = 1
    polish: Callable[[str], str] = str

    def sentence(self, rng: np.random.Generator, tiers: Sequence[str] = ()) -> Sentence:
        """An everyday sentence, or, where `tiers` are given, one with a keyword of theirs."""
        topic = "" if tiers else choose(rng, list(self.topics))
        template = choose(rng, self.topics[topic] if topic else self.keyword_templates)
        found: list[str] = []
        text = self.polish(self._fill(template, rng, tiers, found))
        return Sentence(text, tuple(found), topic)

    def tokens(self, text: str) -> list[str]:
        """The words, or the characters where nothing separates words."""
        return text.split() if self.separator else list(text)

    def _fill(
        self, template: str, rng: np.random.Generator, tiers: Sequence[str], found: list[str]
    ) -> str:
        def replace(match: re.Match) -> str:
            name = match.group(1)
            if name in self.keywords:
                # The tier first, so that a short list is heard as often as a long one.
                found.append(choose(rng, self.keywords[name][choose(rng, tiers)]))
                return found[-1]
            slot = self.slots[name]
            text = slot(rng) if callable(slot) else choose(rng, slot)
            return self._fill(text, rng, tiers, found)

        return SLOT.sub(replace, template)


def choose(rng: np.random.Generator, entries: Sequence[str]) -> str:
    """One of `entries`, all equally likely."""
    return entries[int(rng.integers(len(entries)))]


def bucket(text: str, seed: int) -> int:
    """A number from 0 to 99 that belongs to a sentence: each set draws from its own numbers.

    So no sentence of the test sets is ever in training, in whatever order the sets are made.
    """
    return zlib.crc32(f"{seed} {text}".encode()) % 100
