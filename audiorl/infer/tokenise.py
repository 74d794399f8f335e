"""Recordings to the tokens of a codec."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.models.codec import Codec
from audiorl.runtime import ranks
from audiorl.runtime.batching import shown_batches


def read_waves(codec: Codec, utterances: Sequence[Utterance]) -> list[Tensor]:
    """Return recordings [S_i] at the codec's own sample rate."""
    return [torch.from_numpy(read_audio(u, codec.sample_rate)) for u in utterances]


def tokenise(codec: Codec, utterances: Sequence[Utterance], seconds: float) -> dict[str, Tensor]:
    """Return tokens [T] by utterance id; `seconds` with padding are encoded at once.

    Of several processes each takes some of the batches, and returns the tokens of all.
    """
    tokens = {}
    for batch in ranks.dealt(shown_batches("tokens", utterances, seconds)):
        encoded = codec.encode(read_waves(codec, batch))
        tokens |= {u.id: row for u, row in zip(batch, encoded, strict=True)}
    return ranks.merged(tokens)
