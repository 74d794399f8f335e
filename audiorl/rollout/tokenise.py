"""Recordings as a codec takes and writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.files import progress
from audiorl.models.codec import Codec
from audiorl.rollout.transcribe import batches_by_seconds


def read_waves(codec: Codec, utterances: Sequence[Utterance]) -> list[Tensor]:
    """Recordings [S_i] at the codec's own sample rate."""
    return [torch.from_numpy(read_audio(u, codec.sample_rate)) for u in utterances]


def shown_batches(
    desc: str, utterances: Sequence[Utterance], seconds: float
) -> Iterator[list[Utterance]]:
    """`batches_by_seconds`, with a progress bar."""
    with progress(desc=desc, total=len(utterances), unit="utt") as bar:
        for batch in batches_by_seconds(utterances, seconds):
            yield batch
            bar.update(len(batch))


def tokenise(codec: Codec, utterances: Sequence[Utterance], seconds: float) -> dict[str, Tensor]:
    """Tokens [T] by utterance id; `seconds` of audio, padding included, are encoded at once."""
    tokens = {}
    for batch in shown_batches("tokens", utterances, seconds):
        encoded = codec.encode(read_waves(codec, batch))
        tokens |= {u.id: row for u, row in zip(batch, encoded, strict=True)}
    return tokens
