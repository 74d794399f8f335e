"""Audio of batches, read while the previous batch is computed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance

Loaded = tuple[list[Utterance], list[Tensor]]  # a batch and its waves [S_i]


def prefetch(batches: Iterator[list[Utterance]], sample_rate: int) -> Iterator[Loaded]:
    """Yield batches with their waves at `sample_rate`; a thread reads the next one meanwhile."""

    def load(batch: list[Utterance]) -> Loaded:
        return batch, [torch.from_numpy(read_audio(u, sample_rate)) for u in batch]

    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(load, next(batches))
        for batch in batches:
            ready, coming = coming, reader.submit(load, batch)
            yield ready.result()
