"""The door of supervised trainings: what a model learns from, as `train.supervised` asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor

from audiorl.data.loading import IsOwn
from audiorl.data.utterance import Utterance
from audiorl.runs.reporter import Reporter

Loaded = tuple[list[Utterance], Any]  # a batch, and what the model is given of it


class Supervised(Protocol):
    """Training of one model by gradient descent on batches."""

    model: Any
    first_evaluation: int  # updates before which the model cannot be evaluated

    def batches(self, first: int, is_own: IsOwn) -> Iterator[Loaded]:
        """Yield batches without end, from number `first` on; only own ones need to be loaded.

        `is_own` is asked for the places of batches behind the first.
        """

    def loss(self, batch: Loaded, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of update `step` on a batch, and its parts for the log."""

    def evaluate(self, step: int, reporter: Reporter) -> float:
        """Evaluate and log the model after `step` updates; lower is better."""
