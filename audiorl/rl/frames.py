"""Frames of utterances, their conditions, kept on the host and on disk between the phases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import kaldiio
import torch
from torch import Tensor

from audiorl.data.audio import read_audio
from audiorl.data.utterance import Utterance
from audiorl.models.recogniser import Recogniser
from audiorl.runtime import ranks


class FrameStore:
    """Frames of utterances on the host, each encoded once while all that reads audio is frozen.

    The same frames serve the rollout and the update of a step, and every later step that meets the
    utterance, until `limit_bytes` are in use; further utterances are then encoded when they come,
    or, with a `disk`, read from there. A resumed run finds what lies on its disk.

    On a CPU a frozen encoder reads them one by one: the last bits of a frame depend on its batch,
    and a resumed run, which begins with nothing stored, meets the utterances in other batches. On
    a GPU, where runs are not bit for bit alike, all that are missing are one batch.
    """

    def __init__(
        self,
        model: Recogniser,
        frozen: bool,
        limit_bytes: int = 4 << 30,
        disk: FrameArchive | None = None,
    ) -> None:
        self.model = model
        self.frozen = frozen
        self.disk = disk if frozen else None
        self.free_bytes = limit_bytes
        self._frames: dict[str, Tensor] = {}

    def get(self, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Frames [T_i, D] of each utterance, without gradient."""
        wanted = {u.id: u for u in utterances if u.id not in self._frames}
        stored = self.disk.read(wanted) if self.disk else {}
        missing = [u for name, u in wanted.items() if name not in stored]
        one_by_one = self.frozen and self.model.device.type == "cpu"
        size = 1 if one_by_one else max(1, len(missing))
        fresh: dict[str, Tensor] = {}
        for i in range(0, len(missing), size):
            batch = missing[i : i + size]
            with torch.no_grad():
                encoded = self.encode(self.model, batch)
            # Copies, since a row is a view that would keep its whole batch in memory.
            fresh |= {u.id: f.cpu().clone() for u, f in zip(batch, encoded, strict=True)}
        if self.disk:
            self.disk.write(fresh)
        fresh |= stored
        found = [fresh[u.id] if u.id in fresh else self._frames[u.id] for u in utterances]
        if self.frozen:
            self._keep(fresh)
        return found

    @staticmethod
    def encode(model: Recogniser, utterances: Sequence[Utterance]) -> list[Tensor]:
        """Frames of each utterance from its audio, with gradient where gradients are on."""
        waves = [torch.from_numpy(read_audio(u, model.sample_rate)) for u in utterances]
        return model.encode(waves)

    def _keep(self, fresh: dict[str, Tensor]) -> None:
        for name, frames in fresh.items():
            size = frames.numel() * frames.element_size()
            if size <= self.free_bytes:
                self.free_bytes -= size
                self._frames[name] = frames


class FrameArchive:
    """Frames on disk, Kaldi archives that only grow: `frames.ark`, and `frames.scp` to find them.

    Of several processes, those behind the first write to `frames_<rank>`; each reads all at first.

    It belongs to one run, whose encoder does not change. A line of the scp is written after its
    frames: what a killed run left half written is not found, and is encoded again.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"frames_{ranks.rank()}" if ranks.rank() else "frames"
        self.ark, self.scp, self.dtype = folder / f"{name}.ark", folder / f"{name}.scp", dtype
        self._places: dict[str, str] = {}
        for scp in sorted({self.scp, *folder.glob("frames*.scp")}):
            whole = scp.read_text().rpartition("\n")[0] if scp.exists() else ""
            if scp == self.scp:
                scp.write_text(whole + "\n" if whole else "")
            # By name and offset alone: the folder may have been moved.
            for line in whole.splitlines():
                name, place = line.split(" ", 1)
                self._places[name] = f"{scp.with_suffix('.ark')}:{place.rpartition(':')[2]}"

    def read(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The frames [T_i, D] of those that it has."""
        known = [name for name in names if name in self._places]
        return {n: torch.tensor(kaldiio.load_mat(self._places[n])).to(self.dtype) for n in known}

    def write(self, frames: dict[str, Tensor]) -> None:
        """Adds frames [T_i, D]; they come back bit for bit (fp32, and what is narrower)."""
        if not frames:
            return
        arrays = {name: value.float().numpy() for name, value in frames.items()}
        end = self.scp.stat().st_size
        kaldiio.save_ark(str(self.ark), arrays, scp=str(self.scp), append=True)
        with self.scp.open() as stream:
            stream.seek(end)
            for line in stream:
                name, place = line.rstrip("\n").split(" ", 1)
                self._places[name] = f"{self.ark}:{place.rpartition(':')[2]}"
