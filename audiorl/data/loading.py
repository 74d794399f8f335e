"""Audio of batches, read while the previous batch is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance

Loaded = tuple[list[Utterance], list[Tensor]]  # a batch and its waves [S_i]


IsOwn = Callable[[int], bool]  # whether the batch at that place is this process's


def prefetch(
    batches: Iterator[list[Utterance]],
    sample_rate: int,
    is_own: IsOwn = lambda number: True,
    change: Callable[[int, list[Tensor]], list[Tensor]] = lambda number, waves: waves,
) -> Iterator[Loaded]:
    """Yield batches with their waves at `sample_rate`; a thread reads the next one meanwhile.

    Of batches that are not own, no waves are read. `change`: from the number of a batch, from 0 on,
    and its waves to those that are used.
    """

    def load(number: int, batch: list[Utterance]) -> Loaded:
        read = batch if is_own(number) else []
        waves = [torch.from_numpy(read_audio(u, sample_rate)) for u in read]
        return batch, change(number, waves)

    numbered = enumerate(batches)
    with ThreadPoolExecutor(max_workers=1) as reader:
        coming = reader.submit(load, *next(numbered))
        for number, batch in numbered:
            ready, coming = coming, reader.submit(load, number, batch)
            yield ready.result()
