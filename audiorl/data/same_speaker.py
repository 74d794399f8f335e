"""Another utterance of the same speaker, to learn a voice from while another one is spoken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from audiorl.data.utterance import Utterance


class References:
    """Another utterance of the same speaker for each, which gives the voice; itself if alone."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.by_speaker: dict[str, list[Utterance]] = defaultdict(list)
        for u in utterances:
            self.by_speaker[u.speaker].append(u)

    def draw(self, utterances: Sequence[Utterance], *seed: int) -> list[Utterance]:
        """Return one for each of `utterances`, as `seed` decides."""
        import numpy as np

        rng = np.random.default_rng(seed)
        drawn = []
        for u in utterances:
            others = [other for other in self.by_speaker[u.speaker] if other.id != u.id] or [u]
            drawn.append(others[rng.integers(len(others))])
        return drawn
