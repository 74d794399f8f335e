"""Characters of transcripts as labels for CTC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from audiorl.text.normalise import spoken


class Characters:
    """Symbols numbered from 1; label 0 is the blank of CTC."""

    def __init__(self, symbols: Sequence[str]) -> None:
        self.symbols = list(symbols)
        self._labels = {symbol: label for label, symbol in enumerate(symbols, start=1)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Characters:
        """Return the characters of `texts` in their spoken form."""
        return cls(sorted(set().union(*map(spoken, texts))))

    def labels(self, text: str) -> list[int]:
        """Return the labels of a text, without characters that are not among the symbols."""
        return [self._labels[c] for c in spoken(text) if c in self._labels]

    def text(self, labels: Iterable[int]) -> str:
        """Return the text of labels, with single spaces."""
        return " ".join("".join(self.symbols[label - 1] for label in labels).split())
