"""The phases of a step: who has the device, and for how long."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator

import torch

from audiorl.runtime import ranks


class Phases:
    """Measures the phases of one step: `with phases("rollout"): …`."""

    def __init__(self, device: torch.device, enter: Callable[[str], None] | None = None) -> None:
        """`enter` is called at the beginning of each phase; its seconds are those of switching."""
        self.device, self.enter = device, enter
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self.enter:
            start = time.perf_counter()
            self.enter(name)
            self._add("switching", start)
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else the next phase is charged for this one
        self._add(name, start)

    def _add(self, name: str, start: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def metrics(self, audio_seconds: float) -> dict[str, float]:
        """Seconds of each phase, seconds of audio per second of the step, peak memory in GB.

        Of several processes, the most that one of them needs.
        Texts that are to be spoken have no seconds: then there is no such number.
        """
        step = time.perf_counter() - self.start
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) / 1e9
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        own = {
            **{f"timing_s/{name}": value for name, value in self.seconds.items()},
            "timing_s/step": step,
            "perf/max_memory_gb": peak,
        }
        found = ranks.gather(own)
        most = {name: max(part.get(name, 0.0) for part in found) for name in own}
        if audio_seconds:
            most["perf/audio_seconds_per_second"] = audio_seconds / most["timing_s/step"]
        return most
