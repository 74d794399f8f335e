"""The characters of transcripts as labels of CTC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from audiorl.text.normalise import spoken


class Characters:
    """Label n is the n-th of its symbols, from 1 on: 0 is left to CTC's blank."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self._labels = {symbol: label for label, symbol in enumerate(symbols, start=1)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Characters:
        """Those of `texts`, as they are spoken."""
        return cls(sorted(set().union(*map(spoken, texts))))

    def labels(self, text: str) -> list[int]:
        """Of a text; a character that is not known cannot be heard."""
        return [self._labels[c] for c in spoken(text) if c in self._labels]

    def text(self, labels: Iterable[int]) -> str:
        """Of labels, with single spaces."""
        return " ".join("".join(self.symbols[label - 1] for label in labels).split())
