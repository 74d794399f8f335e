"""Similarity of the voice to its prompt, or to recordings of its speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from audiorl.config.field import key
from audiorl.config.instruments import INSTRUMENTS, parse_instrument
from audiorl.config.rewards import RewardOptions
from audiorl.rewards.core.counting import batches
from audiorl.rewards.core.reward import Context, Reward, Sample


@dataclass
class Options(RewardOptions):
    """The source of the vectors."""

    needs = ("wave", "speaker")

    by: str = key(
        "codec",
        "the codec's speaker encoder, or an instrument that knows voices (resemblyzer, "
        "xvector=FOLDER), which then does not score",
    )

    def problems(self) -> Iterator[str]:
        """Yield a sentence for an instrument that knows no voices."""
        known = INSTRUMENTS.get(parse_instrument(self.by)[0])
        if self.by != "codec" and (known is None or not known.knows_voices):
            yield f"speaker_similarity by {self.by}: name codec, resemblyzer or xvector=FOLDER"


def build(options: Options, context: Context) -> Reward:
    """Return (1 + c) / 2 of the cosine c between the speaker vectors of wave and recordings.

    It applies to prompts and to speakers with recordings; a sample without a wave is unscorable.
    """
    models = context.models

    def reward(samples: Sequence[Sample]) -> list[float | None]:
        found: list[float | None] = [None] * len(samples)
        spoken = [i for i, sample in enumerate(samples) if sample.wave is not None]
        for rows in batches([len(samples[i].wave) for i in spoken]):
            places = [spoken[row] for row in rows]
            vectors = models.speaker([samples[i].wave for i in places]).cpu()
            for i, vector in zip(places, vectors, strict=True):
                own = models.voices[samples[i].utterance].vector.cpu()
                cosine = vector @ (own / own.norm().clamp(min=1e-12))
                found[i] = (1 + float(cosine)) / 2
        return found

    return Reward(reward, applies=lambda utterance: utterance in models.voices)
