"""The phases of a step: who has the device, for how long, and what is kept on the host between."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.models.audio_llm import AudioLLM


class Phases:
    """Measures the phases of one step: `with phases("rollout"): …`."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.start = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else the next phase is charged for this one
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def metrics(self, audio_seconds: float) -> dict[str, float]:
        """Seconds of each phase, seconds of audio per second of the step, peak memory in GB."""
        step = time.perf_counter() - self.start
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) / 1e9
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB on Linux
        return {
            **{f"timing_s/{name}": value for name, value in self.seconds.items()},
            "timing_s/step": step,
            "perf/audio_seconds_per_second": audio_seconds / step,
            "perf/max_memory_gb": peak,
        }


class FrameStore:
    """Encoder frames of utterances on the host, each encoded once while the encoder is frozen.

    The same frames serve the rollout and the update of a step, and every later step that meets the
    utterance, until `limit_bytes` are in use; further utterances are then encoded when they come.
    On a CPU a frozen encoder reads them one by one: the last bits of a frame depend on its batch,
    and a resumed run, which begins with nothing stored, meets the utterances in other batches. On
    a GPU, where runs are not bit for bit alike, all that are missing are one batch.
    """

    def __init__(self, model: AudioLLM, frozen: bool, limit_bytes: int = 4 << 30) -> None:
        self.model = model
        self.frozen = frozen
        self.free_bytes = limit_bytes
        self._frames: dict[str, Tensor] = {}

    def get(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Frames [T_i, D] of each utterance, without gradient."""
        missing = list({u.id: u for u in utterances if u.id not in self._frames}.values())
        one_by_one = self.frozen and self.model.device.type == "cpu"
        size = 1 if one_by_one else max(1, len(missing))
        fresh: dict[str, Tensor] = {}
        for i in range(0, len(missing), size):
            batch = missing[i : i + size]
            with torch.no_grad():
                encoded = self.encode(self.model, batch)
            # Copies, since a row is a view that would keep its whole batch in memory.
            fresh |= {u.id: f.cpu().clone() for u, f in zip(batch, encoded, strict=True)}
        found = [fresh[u.id] if u.id in fresh else self._frames[u.id] for u in utterances]
        if self.frozen:
            self._keep(fresh)
        return found

    @staticmethod
    def encode(model: AudioLLM, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Frames of each utterance from its audio, with gradient where gradients are on."""
        rate = model.config.data.sample_rate
        return model.encode([torch.from_numpy(read_audio(u, rate)) for u in utterances])

    def _keep(self, fresh: dict[str, Tensor]) -> None:
        for name, frames in fresh.items():
            size = frames.numel() * frames.element_size()
            if size <= self.free_bytes:
                self.free_bytes -= size
                self._frames[name] = frames
