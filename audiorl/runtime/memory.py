"""Work in pieces that are made smaller when the memory of the device ends."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from audiorl.errors import UserError, is_of_memory, reason

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Pieces:
    """Size that pieces of a work may have, in a unit of its own; halved when memory ends."""

    def __init__(self, key: str, most: float, advice: str) -> None:
        """Take the key that sets `most`, and what to do when even one item does not fit."""
        self.key, self.most, self.advice = key, most, advice
        self._items = self._size = 0  # of the largest piece of the work at hand

    def note(self, items: int, size: float) -> None:
        """Be told of a piece that is about to be worked on."""
        self._items, self._size = max(self._items, items), max(self._size, size)

    def fit(self, work: Callable[[], Result]) -> Result:
        """Call `work`, again with smaller pieces as long as memory ends; its result is the same.

        Raises UserError when it ends with a single item in each piece.
        """
        while True:
            self._items = self._size = 0
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_of_memory(error):
                    raise
                why = reason(error)
            # Here, where no traceback holds the tensors of the pass that failed.
            gc.collect()
            torch.cuda.empty_cache()
            if self._items <= 1:
                raise UserError(f"memory has ended with one item at a time ({why}); {self.advice}.")
            self.most = self._size / 2
            log.warning(
                "memory has ended (%s): the same again, and what follows, with %s: %d",
                *(why, self.key, self.most),
            )
