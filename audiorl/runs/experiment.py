"""The folder of a run: what it was started with, how to resume it, and its log."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn

from audiorl.config import config_differences, dump_config, load_config
from audiorl.config.keys import schema_keys
from audiorl.config.schema import Config
from audiorl.data.rl_set import Item
from audiorl.data.utterance import Utterance, facts
from audiorl.errors import UserError
from audiorl.models import WEIGHTS, weights_of
from audiorl.runs.environment import environment
from audiorl.runtime import ranks
from audiorl.runtime.device import setup_torch
from audiorl.runtime.files import atomic_path, atomic_write, disk_errors, write_json
from audiorl.runtime.sharding import full
from audiorl.runtime.stamps import Stamp

log = logging.getLogger(__name__)

# Every run depends on these; those that are not named here or by a run may change in a restart.
# What data.* and the warm start brought in is compared by content (`check_inputs`).
RELEVANT = (
    *("task", "seed", "device", "num_threads", "score.normalizer", "score.unit"),
    *("score.count_annotations", "decode.max_completion_length", "parallelism.mixed_"),
)


class Experiment:
    """exp/<tag>/, opened for training, by several processes of which one writes.

    Writes config.yaml, env.json and run.sh. A restart with another config or other data is refused,
    naming what differs: half a run with one setting and half with another has no result. Of keys
    that may change, config.yaml has the present values and the log all of them.
    """

    def __init__(self, folder: str | Path, config: Config, relevant: Iterable[str]) -> None:
        """`relevant`: beginnings of the keys that the run depends on, beside RELEVANT."""
        self.folder = Path(folder)
        self.config = config
        self._former_steps = config.rl.max_steps
        if ranks.is_main():
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / "config.yaml").exists():
                self._write_config()
        ranks.wait_for_all()
        self.changes = self._check_config((*RELEVANT, *relevant))
        self._start_log()
        if not ranks.is_main():
            return
        if not (self.folder / "env.json").exists():
            write_json(self.folder / "env.json", environment())
        with atomic_write(self.folder / "run.sh") as stream:
            stream.write(resume_command())
        (self.folder / "run.sh").chmod(0o755)

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"

    @property
    def is_complete(self) -> bool:
        """Whether the run has ended: its model is written last."""
        return ranks.from_main((self.model_folder / WEIGHTS).exists())

    def check_inputs(self, **inputs: list[Utterance] | list[Item] | Path) -> None:
        """Remember which data and files the run began with; refuse to continue with others.

        Where nothing is refused, note the keys that changed. A finished run whose `rl.max_steps`
        was raised is unfinished from here on.
        """
        found = {n: i if isinstance(i, Path) else content_hash(i) for n, i in inputs.items()}
        stamp = Stamp(self.folder / "inputs.json", {}, found)
        if ranks.from_main(not stamp.path.exists()):
            stamp.write()
        elif changed := stamp.changes():
            raise UserError(
                f"{self.folder} was begun with other inputs than it is given now "
                f"({', '.join(changed)} changed); remove the folder to train again, or name "
                "another with --exp."
            )
        longer = self._former_steps < self.config.rl.max_steps
        if self.changes and (longer or not self.is_complete):
            if ranks.is_main():
                (self.model_folder / WEIGHTS).unlink(missing_ok=True)
            self._write_config()
            log.info("the run continues with another config: %s", "; ".join(self.changes))
            if any(line.startswith(("device", "num_threads")) for line in self.changes):
                log.warning(
                    "another device or number of threads adds in another order: from here on the "
                    "run agrees with an undisturbed one but for rounding, not to the bit"
                )

    def begin(self, seed: int, **inputs: list[Utterance] | list[Item] | Path) -> bool:
        """Return whether there is something left to train, with threads and random state set.

        UserErrors of `check_inputs`.
        """
        self.check_inputs(**inputs)
        if self.is_complete:
            log.info("%s is complete: nothing to do", self.folder)
            return False
        setup_torch(self.config.num_threads)
        torch.manual_seed(seed)
        return True

    def finish(self, model: nn.Module) -> None:
        """Save the model, which completes the run."""
        self.save(model, lambda: model.eval().save(self.model_folder))

    def save(self, model: nn.Module, write: Callable[[], None]) -> None:
        """Write a model, as `write` does, in one process; all give their share of the weights."""
        if ranks.is_main():
            write()
        else:
            for tensor in weights_of(model).values():
                full(tensor)
        log.info("wrote %s", self.model_folder)

    def keep(self, name: str, path: Path) -> None:
        """Copy the user's code into the folder, under the relative path `name`."""
        with atomic_path(self.folder / name) as copy:
            shutil.copyfile(path, copy)

    def _check_config(self, relevant: tuple[str, ...]) -> list[str]:
        """Return what changed and may; UserError names what may not."""
        path = self.folder / "config.yaml"
        former = load_config(path)
        self._former_steps = former.rl.max_steps
        allowed, refused = [], []
        for line in config_differences(former, self.config):
            if not line.startswith(relevant):
                continue
            resume = schema_keys()[line.partition(":")[0]][1].metadata["resume"]
            reason = resume(self.config) if callable(resume) else ""
            if resume and not reason:
                allowed.append(line)
            else:
                refused.append(f"{line}, but {reason}" if reason else line)
        if refused:
            raise UserError(
                f"{path}: the run was started with another config ({'; '.join(refused)}); "
                "remove the folder to train again, or name another with --exp."
            )
        return allowed

    def _write_config(self) -> None:
        with atomic_write(self.folder / "config.yaml") as stream:
            stream.write(dump_config(self.config))

    def _start_log(self) -> None:
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        for handler in list(root.handlers):
            root.removeHandler(handler)
            handler.close()
        main, rank = ranks.is_main(), ranks.rank()
        name = "train.log" if main else f"train.rank_{rank}.log"
        to_file = logging.FileHandler(self.folder / name, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        to_screen = logging.StreamHandler(sys.stdout if main else sys.stderr)
        to_screen.setFormatter(logging.Formatter(f"{'' if main else f'rank {rank}: '}%(message)s"))
        if not main:
            to_screen.setLevel(logging.WARNING)
        root.addHandler(to_file)
        root.addHandler(to_screen)


def content_hash(given: Sequence[Utterance | Item]) -> str:
    """Return a hash of all that is known of utterances, but for where their audio lies.

    Of the items of an RL set, also of what the order of prompts looks at.
    """
    digest = hashlib.sha256()
    for entry in given:
        order = []
        u = entry
        if isinstance(entry, Item):
            u, order = entry.utterance, [entry.subsets, entry.reward_mean, entry.reward_std]
        content = {**facts(u), "audio": ""}
        if u.prompt:
            content["prompt"] = {**facts(u.prompt), "audio": ""}
        digest.update(json.dumps([content, order], sort_keys=True).encode())
    return digest.hexdigest()


def resume_command() -> str:
    """Return a script that continues this run: the command as it was given, in its folder."""
    program, note = ["-m", *_module_and_arguments()], ""
    if ranks.size() > 1:
        nodes = ranks.size() // ranks.local_size()
        counts = ["--num_processes", str(ranks.local_size()), "--num_nodes", str(nodes)]
        program = ["-m", "audiorl.bin.launch", *counts, *program]
    if ranks.size() > ranks.local_size():
        note = "# On each machine, with MAIN_ADDRESS=host:port of the first.\n"
    command = shlex.join([sys.executable, *program])
    folder = shlex.quote(os.getcwd())
    root = shlex.quote(str(Path(__file__).parents[2]))
    return (
        f"#!/bin/sh\n# Continues where the run stopped.\n{note}cd {folder} || exit 1\n"
        f"PYTHONPATH={root} exec {command}\n"
    )


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return [spec.name if spec else sys.argv[0], *sys.argv[1:]]
