"""Checkpoints that a killed run continues from, and the best weights so far."""

from __future__ import annotations

import copy
import functools
import json
import logging
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from audiorl.errors import UserError, reason
from audiorl.models import (
    WEIGHTS,
    fill_weights,
    learning_tensors,
    open_weights,
    put_tensors,
    read_weights,
    save_tensors,
)
from audiorl.runs.optimizer import Optimizers
from audiorl.runtime import ranks, sharding
from audiorl.runtime.files import atomic_write, disk_errors
from audiorl.runtime.stamps import Stamp

log = logging.getLogger(__name__)

KEPT = 2  # if the newest cannot be read, the one before can
TRAINER = "trainer.pt"
SHARDS = "shards"  # what several processes share, in the format of torch.distributed.checkpoint
SUMS = "sums.json"  # of TRAINER and SHARDS; weights have their own


class Checkpoints:
    """exp/<tag>/checkpoints/: step_<n>/ for resuming, best_<n>.safetensors for the model.

    A step folder is written under another name and renamed when whole. What is random in a step is
    a function of the seed and the step, so the tensors that learn, optimizer, step and the loop's
    own numbers are the whole state. Frozen tensors are those that the run began with. Any number of
    processes can continue from it, however they share the weights.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._being_written: Callable[[], None] | None = None
        if ranks.is_main():
            folder.mkdir(parents=True, exist_ok=True)
            for unfinished in folder.glob(".step_*"):
                shutil.rmtree(unfinished)
        ranks.wait_for_all()

    def save(self, step: int, model: nn.Module, optimizer: Optimizers, state: dict) -> None:
        """Write the checkpoint of `step` updates; `state` holds the loop's own numbers.

        What processes share is written while they go on, until `finish` or the next checkpoint.
        """
        self.finish()
        trainer = {"optimizer": optimizer.state_dict(), "state": copy.deepcopy(state), "step": step}
        unfinished = self.folder / f".step_{step:08d}"
        with disk_errors(self.folder / f"step_{step:08d}"):
            if ranks.is_main():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
            ranks.wait_for_all()
            if sharding.sharing(model):
                writing = _write_shared(unfinished / SHARDS, model, optimizer)
                for part in trainer["optimizer"]:
                    part["state"] = {}
                self._being_written = lambda: (writing(), self._complete(step, trainer))
                return
            save_tensors(learning_tensors(model, optimizer.masters), unfinished / WEIGHTS)
            self._complete(step, trainer)

    def finish(self) -> None:
        """Return when the newest checkpoint is written."""
        if self._being_written:
            with disk_errors(self.folder):
                self._being_written()
            self._being_written = None

    def _complete(self, step: int, trainer: dict) -> None:
        if not ranks.is_main():
            return
        unfinished, final = self.folder / f".step_{step:08d}", self.folder / f"step_{step:08d}"
        with atomic_write(unfinished / TRAINER, "wb") as stream:
            torch.save(trainer, stream)
        _sums(unfinished).write()
        shutil.rmtree(final, ignore_errors=True)
        unfinished.rename(final)
        for old in self._steps()[:-KEPT]:
            shutil.rmtree(old)

    def resume(
        self, model: nn.Module, optimizer: Optimizers, best: BestWeights
    ) -> tuple[int, dict | None]:
        """Load the newest whole checkpoint; return its step and state, or (0, None).

        The best weights that it needs are part of it: where they are damaged, an older checkpoint
        makes them anew.
        """
        steps = ranks.from_main(self._steps())
        for folder in reversed(steps):
            why = ""
            try:
                if changed := _sums(folder).changes():
                    raise ValueError(f"{changed[0]} was changed or damaged")
                saved = torch.load(folder / TRAINER, map_location="cpu", weights_only=True)
                best.restore(saved["state"]["best"])
                tensors = _read(folder, model, optimizer, saved["optimizer"])
                fill_weights(model, tensors, learning_tensors(model))
                named = dict(model.named_parameters())
                optimizer.load_masters({named[n]: t for n, t in tensors.items() if n in named})
                optimizer.load_state_dict(saved["optimizer"])
            except (
                UserError,
                OSError,
                EOFError,
                RuntimeError,
                KeyError,
                ValueError,
                pickle.UnpicklingError,
            ) as error:
                why = reason(error)
            if whys := [w for w in ranks.gather(why) if w]:
                log.warning("%s cannot be used (%s); trying the one before", folder, whys[0])
                continue
            log.info("continuing from %s", folder)
            return saved["step"], saved["state"]
        if steps:
            raise UserError(
                f"{self.folder}: none of its checkpoints can be used (the log says why); restore "
                "them from a backup, or remove the experiment's folder to train again."
            )
        return 0, None

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step_*"))


def _sums(folder: Path) -> Stamp:
    shared = sorted((folder / SHARDS).glob("*")) + sorted((folder / SHARDS).glob(".metadata"))
    return Stamp(folder / SUMS, {}, {}, [folder / TRAINER, *shared])


def _write_shared(folder: Path, model: nn.Module, optimizer: Optimizers) -> Callable[[], Any]:
    """Begin to write what processes share; the function returned waits until it is written."""
    import torch.distributed.checkpoint as dcp

    weights = learning_tensors(model, optimizer.masters)
    tensors = {f"weights/{name}": tensor for name, tensor in weights.items()}
    for number, part in enumerate(optimizer.state_dict()):
        for row, values in part["state"].items():
            tensors |= {f"optimizer/{number}/{row}/{name}": t for name, t in values.items()}
    # Its thread meets those of the others, while this one meets theirs: in a group of its own.
    return dcp.async_save(tensors, checkpoint_id=folder, process_group=ranks.aside()).result


def _read(
    folder: Path, model: nn.Module, optimizer: Optimizers, states: list[dict]
) -> dict[str, Tensor]:
    """Return the weights of a checkpoint; those of the optimizer go into `states`."""
    if not (folder / SHARDS).exists():
        return read_weights(folder / WEIGHTS)
    import torch.distributed.checkpoint as dcp

    known = dcp.FileSystemReader(folder / SHARDS).read_metadata().state_dict_metadata
    weights, rows = learning_tensors(model, optimizer.masters), optimizer.rows()
    found = {}
    for key, saved in known.items():
        kind, _, name = key.partition("/")
        dtype = saved.properties.dtype
        if kind == "weights":
            own = weights[name]
        else:
            number, row, _ = name.split("/")
            own = rows[int(number)][int(row)]
        same = own.shape == saved.size
        found[key] = torch.empty_like(own, dtype=dtype) if same else torch.empty(saved.size)
    dcp.load(found, checkpoint_id=folder / SHARDS, no_dist=ranks.size() == 1)
    for key, value in found.items():
        if key.startswith("optimizer/"):
            _, number, row, name = key.split("/")
            states[int(number)]["state"].setdefault(int(row), {})[name] = value
    return {k.partition("/")[2]: v for k, v in found.items() if k.startswith("weights/")}


def kept_steps(experiment: Path) -> list[int]:
    """Return the steps whose mean is the model of an experiment; 0 is the start."""
    found = (experiment / "checkpoints").glob("best_*.safetensors")
    return sorted(int(path.stem.rpartition("_")[2]) for path in found)


class BestWeights:
    """Keeps the weights of the `keep` evaluations with the lowest dev error rate.

    The latest `unsettled` evaluations are kept beside them: what they bring to light may be a
    reason to choose none of them (`choose`).
    """

    def __init__(
        self,
        folder: Path,
        keep: int,
        unsettled: int = 0,
        masters: Mapping[nn.Parameter, Tensor] | None = None,
    ) -> None:
        """`masters`: see `Optimizers`; what is averaged is not rounded before."""
        self.folder = folder
        self.masters = masters or {}
        self.keep = keep
        self.unsettled = unsettled
        self.scores: dict[str, float] = {}  # step -> error rate; plain types, saved in checkpoints
        self.saved: dict[str, float] = {}  # those of the newest checkpoint

    def restore(self, scores: dict[str, float]) -> None:
        """Take the scores of a checkpoint; UserError if a file of theirs is missing or damaged."""
        for step in scores:
            open_weights(self._path(step))
        self.scores, self.saved = scores, dict(scores)

    def offer(self, step: int, score: float, model: nn.Module) -> bool:
        """Keep `model` if it is among the best; return whether it is the best of all."""
        best = not self.scores or score < min(self.scores.values())
        settled, latest = self._parted({**self.scores, str(step): score})
        kept = self._lowest(settled) | latest
        if str(step) in kept:
            save_tensors(learning_tensors(model, self.masters), self._path(str(step)))
        self.scores = kept
        return best

    def choose(self, distrusted: bool = False) -> None:
        """Keep the best; if the unsettled are distrusted, of those before them.

        Where there are none before, of the unsettled the first, with which the distrust began.
        """
        settled, latest = self._parted(self.scores)
        if distrusted:
            self.scores = settled or dict(list(latest.items())[:1])
        self.scores = self._lowest(self.scores)

    def _parted(self, scores: dict[str, float]) -> tuple[dict[str, float], dict[str, float]]:
        """Return settled and unsettled evaluations, by step."""
        by_step = sorted(scores.items(), key=lambda item: int(item[0]))
        place = max(0, len(by_step) - self.unsettled)
        return dict(by_step[:place]), dict(by_step[place:])

    def _lowest(self, scores: dict[str, float]) -> dict[str, float]:
        """The `keep` lowest, in order; of equals the first."""
        return dict(sorted(scores.items(), key=lambda item: (item[1], int(item[0])))[: self.keep])

    def clean(self) -> None:
        """Remove files that no checkpoint needs, called when one holds `scores`.

        Those of the checkpoint before stay, for it is what a damaged one is replaced with.
        """
        wanted = {self._path(step).name for step in self.scores | self.saved}
        for path in self.folder.glob("best_*.safetensors") if ranks.is_main() else ():
            if path.name not in wanted:
                path.unlink()
        self.saved = dict(self.scores)

    def load_average(self, model: nn.Module) -> None:
        """Put the mean of the kept weights into `model`, one tensor in memory at a time.

        No other files stay.
        """
        self.clean()
        ranks.wait_for_all()
        files = [open_weights(self._path(step)) for step in self.scores]
        own = learning_tensors(model)
        for path, file in zip(map(self._path, self.scores), files, strict=True):
            if names := sorted(own.keys() ^ file.keys()):
                raise UserError(
                    f"{path}: {len(names)} tensors differ from the model's, {names[0]} first; "
                    "restore the file or train again."
                )
        for name, tensor in own.items():
            shares = (file.get_tensor(name).double() / len(files) for file in files)
            mean = functools.reduce(torch.add, shares).to(tensor.dtype)
            put_tensors(model, {name: mean})

    def _path(self, step: str) -> Path:
        return self.folder / f"best_{int(step):08d}.safetensors"


def truncate_jsonl(path: Path, last_step: int) -> None:
    """Drop the lines of steps that a resumed run does again."""
    if not path.exists():
        return
    with open(path, "rb") as stream, atomic_write(path, "wb") as kept:
        for number, line in enumerate(stream, start=1):
            try:
                if json.loads(line)["step"] <= last_step:
                    kept.write(line.rstrip(b"\n") + b"\n")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if stream.peek(1):
                    raise UserError(
                        f"{path}:{number} is not a JSON object with a step; remove the line."
                    ) from error
                # It was being written when the run was killed.
