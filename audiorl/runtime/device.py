"""The device and the threads that a run computes with."""

from __future__ import annotations

import torch

from audiorl.errors import UserError


def setup_torch(num_threads: int) -> None:
    """Limits the CPU threads of torch; 0 leaves one per core."""
    if num_threads:
        torch.set_num_threads(num_threads)


def pick_device(wanted: str) -> torch.device:
    """Return the device of the config's `device`: auto, cpu or cuda.

    Raises UserError if a GPU is asked for and torch sees none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: cuda was asked for but torch sees no GPU; set device: auto or cpu."
        )
    there = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(there if wanted == "auto" else wanted)
