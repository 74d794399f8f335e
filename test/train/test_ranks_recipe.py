"""A recipe of several processes that is ended, by TERM and by Ctrl-C, and goes on."""

from __future__ import annotations

import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deaths import MARK, left_of
from ranks_grid import SHARING
from runs import Corpus, lines
from safetensors.torch import load_file

from audiorl.config import dump_config

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"rl.learning_rate": 1e-4, "rl.eval_steps": 100_000, "rl.save_steps": 100_000}
RUN = """\
#!/usr/bin/env bash
# A recipe of one stage.
stage=1
stop_stage=1
config=config.yaml
exp=exp
nj=1
ngpu=0
num_processes=1
num_nodes=1

. {root}/utils/recipe.sh
if stage 1 "Reinforcement learning"; then
    run python -m audiorl.bin.train_rl "${{opts[@]}}" --init {init} --data {data} --dump {dump} \\
        --out "$exp/grpo"
fi
"""
SAVED = ", which is saved; run the same command to continue."


class Recipe:
    """A folder with run.sh and its config."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder, self.exp = folder, folder / "exp" / "grpo"
        self.script = folder / "run.sh"
        places = {"init": corpus.init, "data": corpus.data, "dump": corpus.dump, "root": ROOT}
        quoted = {name: shlex.quote(str(place)) for name, place in places.items()}
        self.script.write_text(RUN.format(**quoted))
        self.script.chmod(0o755)
        keys = {**KEYS, "rl.max_steps": 100_000}
        (folder / "config.yaml").write_text(dump_config(corpus.rl_config(keys)))
        self.environment = {**os.environ, "AUDIORL_PYTHON": sys.executable, MARK: str(folder)}

    @property
    def steps(self) -> int:
        """Those that the log has."""
        return max((line["step"] for line in lines(self.exp / "metrics.jsonl")), default=0)

    @property
    def saved(self) -> Path:
        """The newest checkpoint."""
        return max((self.exp / "checkpoints").glob("step_*"))


@pytest.fixture
def recipe(corpus: Corpus, tmp_path: Path) -> Recipe:
    return Recipe(tmp_path, corpus)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(24_000):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it has not come in 20 minutes")


def test_a_recipe_that_is_ended_goes_on(recipe: Recipe, corpus: Corpus, tmp_path: Path) -> None:
    shared = SHARING["never"].items()
    options = ["--num_processes", "2", *(f"--set={key}={value}" for key, value in shared)]
    running = subprocess.Popen(
        [recipe.script, *options],
        cwd=recipe.folder,
        env=recipe.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: recipe.steps >= 1 or running.poll() is not None)
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=1200)
    assert running.returncode == 143, said
    assert left_of(recipe.folder) == []
    assert said.count(SAVED) == 1 and "Traceback" not in said
    assert "Stage 1 (Reinforcement learning) was interrupted." in said
    first = recipe.saved
    assert recipe.steps == int(first.name.removeprefix("step_"))

    command = shlex.split(said.splitlines()[-1])
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(recipe.folder)
        os.execve(recipe.script, [recipe.script, *command[1:]], recipe.environment)
    shown = read_until(terminal, lambda: recipe.steps > int(first.name.removeprefix("step_")))
    os.write(terminal, b"\x03")
    shown += read_until(terminal, lambda: False)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 130, shown.decode()
    assert left_of(recipe.folder) == []
    assert SAVED.encode() in shown and b"Traceback" not in shown
    assert recipe.saved > first

    # One process goes on, and ends as one that was alone.
    keys = {**KEYS, "rl.max_steps": recipe.steps + 1}
    corpus.rl(recipe.exp, keys)
    corpus.rl(tmp_path / "one", keys)
    found, expected = (
        [(c["step"], c["id"], c["completion"]) for c in lines(exp / "completions.jsonl")]
        for exp in (recipe.exp, tmp_path / "one")
    )
    assert found == expected
    one = load_file(recipe.saved / "model.safetensors")
    other = load_file(tmp_path / "one" / "checkpoints" / recipe.saved.name / "model.safetensors")
    assert max((one[name] - other[name]).abs().max() for name in one) <= 1e-5


def read_until(terminal: int, condition: Callable[[], bool]) -> bytes:
    """What a terminal shows until then, or until its other side is closed."""
    shown, until = b"", time.monotonic() + 1200
    while not condition():
        assert time.monotonic() < until, shown.decode()
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            shown += part
            if not part:
                break
    return shown
