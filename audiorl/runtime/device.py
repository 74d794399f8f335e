"""The device and the threads that a run computes with."""

from __future__ import annotations

import contextlib
import math
import resource
from pathlib import Path

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


def free_memory(device: torch.device) -> float:
    """Return the bytes of memory that a device has left; infinite where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return math.inf
    found = [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    with contextlib.suppress(OSError, ValueError):  # "max": a container without a limit
        found.append(float(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min([*found, *([limit] if limit != resource.RLIM_INFINITY else [])], default=math.inf)
