"""Ways to kill a process where it hurts, and recipes at random moments."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

# A variable of the environment, by which all processes are found that a program starts.
MARK = "AUDIORL_STARTED_BY"


def a_dead_process() -> int:
    """Return the number of a process that is no more."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(run: Callable[[], None], prepare: Callable[[], None]) -> None:
    """Runs in a process of its own that must die by SIGKILL; `prepare` sees to that, inside."""
    child = os.fork()
    if child == 0:
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            prepare()
            run()
        finally:
            os._exit(99)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it ended by itself, with status {status}"
    assert os.WTERMSIG(status) == signal.SIGKILL


def after(owner: Any, name: str, condition: Callable[..., bool]) -> Callable[[], None]:
    """Kills the process when a call of owner.name has returned and its arguments are such."""
    original = getattr(owner, name)

    def patched(*arguments, **named):
        result = original(*arguments, **named)
        if condition(*arguments, **named):
            kill()
        return result

    return lambda: setattr(owner, name, patched)


def before(owner: Any, name: str, condition: Callable[..., bool]) -> Callable[[], None]:
    """Kills the process when owner.name is about to be called with such arguments."""
    original = getattr(owner, name)

    def patched(*arguments, **named):
        if condition(*arguments, **named):
            kill()
        return original(*arguments, **named)

    return lambda: setattr(owner, name, patched)


def left_of(folder: Path, seconds: float = 5.0) -> list[str]:
    """Return the commands of processes with MARK=folder that go on after so many seconds."""
    until = time.monotonic() + seconds
    while (found := list(_marked(folder))) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _marked(folder: Path) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                yield (process / "cmdline").read_text().replace("\0", " ")


# --- recipes that are killed at random moments: python test/deaths.py --help

RECIPES = {
    "mini_asr": ("QUICK", {
        "num_threads": 1, "sft.schedule.max_steps": 30, "sft.ctc_steps": 10,
        "sft.schedule.eval_steps": 10, "sft.schedule.save_steps": 10, "rl.max_steps": 4,
        "rl.save_steps": 1,
    }),
    "mini_tts": ("MOMENTS", {
        "data.rl": "train", "rl.max_completion_length": 130, "rl.save_steps": 1,
        "rl.rewards": "[{name: wer, unit: char}, {name: likelihood}]",
    }),
}  # fmt: skip
TIMES = ("timing_s/", "perf/", "seconds", "rtf", "wave_seconds", "created", "inputs")
DIFFERENT = ("env.json", "RESULTS.md", "report.html", "report.json", "sums.json", ".png", ".zip")
LOGS = ("tensorboard", "log")  # folders to which each start adds


class Trial:
    """A recipe in a folder: undisturbed, and killed again and again, with the same result."""

    def __init__(
        self, recipe: str, work: Path, last: int = 9, smaller: Mapping[str, object] | None = None
    ) -> None:
        """`last`: stage; `smaller`: keys of the config beside RECIPES."""
        sys.path.insert(0, str(Path(__file__).parent / "egs"))
        import recipe_runs

        self.recipe, self.work, self.last = recipe, work, last
        small, more = RECIPES[recipe]
        self.options = recipe_runs.settings(
            {**getattr(recipe_runs, small), **more, **(smaller or {})}
        )
        self.options += ["--corpus", str(work / "data"), "--scale", "0.04", "--nj", "2"]
        self.options += ["--dump", str(work / "dump"), "--exp", str(work / "exp")]
        self.program = recipe_runs.EGS / recipe / "run.sh"
        self.environment = {**recipe_runs.environment(), MARK: str(work)}

    def undisturbed(self) -> tuple[dict[str, str], list[float]]:
        """Return the digests of what the recipe leaves, and the seconds of each stage."""
        seconds = []
        for stage in range(1, self.last + 1):
            start = time.monotonic()
            self._finish(stage)
            seconds.append(time.monotonic() - start)
        found = self.digests()
        shutil.rmtree(self.work)
        return found, seconds

    def killed(self, seconds: Sequence[float], kills: int, seed: int) -> dict[str, str]:
        """Return the digests after as many kills, at moments that `seed` draws."""
        draw = random.Random(seed)
        plan = sorted((draw.randint(1, self.last), draw.random()) for _ in range(kills))
        for stage in range(1, self.last + 1):
            for moment in (moment for of, moment in plan if of == stage):
                program = self._start(stage)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.wait(moment * seconds[stage - 1])
                hit = program.poll() is None
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
                program.wait()
                left = left_of(self.work)
                print(f"{self.recipe} stage {stage} at {moment:.0%}: {'killed' if hit else 'over'}")
                assert not left, f"processes are left: {left}"
            self._finish(stage)
        return self.digests()

    def _start(self, stage: int) -> subprocess.Popen:
        which = ["--stage", str(stage), "--stop_stage", str(stage)]
        return subprocess.Popen(
            [self.program, *which, *self.options], env=self.environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def _finish(self, stage: int) -> None:
        program = self._start(stage)
        try:
            said, _ = program.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
        assert program.returncode == 0, said[-5000:]

    def digests(self) -> dict[str, str]:
        """Return every file that is left, with a digest of what has to be the same."""
        found = {}
        for path in sorted(p for p in self.work.rglob("*") if p.is_file()):
            name = path.relative_to(self.work)
            if not set(LOGS).intersection(name.parts) and not path.name.endswith((".lock", ".log")):
                content = b"" if path.name.endswith(DIFFERENT) else path.read_bytes()
                if path.name == "trainer.pt":  # the same values may be pickled in other ways
                    content = repr(_plain(torch.load(path, weights_only=True))).encode()
                elif path.suffix == ".json" and content:
                    content = repr(_plain(json.loads(content))).encode()
                elif path.suffix == ".jsonl":
                    content = repr(
                        [_plain(json.loads(line)) for line in content.splitlines()]
                    ).encode()
                found[str(name)] = hashlib.sha256(content).hexdigest()
        return found


def _plain(value: Any) -> Any:
    """Return what was saved in one order, tensors by their bytes, without times."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, hashlib.sha256(value.numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if not str(k).startswith(TIMES)}
        return {key: _plain(kept[key]) for key in sorted(kept, key=str)}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def main() -> None:
    parser = argparse.ArgumentParser(description="Kills recipes, and compares what they leave.")
    parser.add_argument("recipes", nargs="*", default=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--kills", type=int, default=20, help="of each recipe")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    args = parser.parse_args()
    for recipe in args.recipes:
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(recipe, Path(folder, "work"))
            expected, seconds = trial.undisturbed()
            print(f"{recipe}: stages take", ", ".join(f"{second:.1f}" for second in seconds), "s")
            found = trial.killed(seconds, args.kills, args.seed)
        wrong = sorted(n for n in expected.keys() | found if expected.get(n) != found.get(n))
        print(f"{recipe}: {len(expected)} files, {len(wrong)} differ {wrong}")


if __name__ == "__main__":
    main()
