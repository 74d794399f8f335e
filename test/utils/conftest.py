"""A copy of the recipe machinery, in a folder with a space, and small recipes that drive it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "extends: ../../../conf/asr.yaml\nseed: 1\n"
HEADER = """\
#!/usr/bin/env bash
# A small recipe.
#
#   egs/small/run.sh --stage 2
CDPATH="" cd -- "$(dirname "$0")" || exit

stage=1                       # first stage to run
stop_stage=3                  # last stage to run
config=conf/grpo.yaml         # the recipe
control=conf/supervised.yaml  # the control
corpus=                       # audio
exp=exp                       # experiments
nj=                           # processes; all cores
ngpu=0                        # GPUs
num_processes=                # processes
num_nodes=1                   # machines

. ../../utils/recipe.sh
"""
STAGES = """\
if stage 1 "First"; then
    run python -c "import sys; print('first', sys.argv[1:])" "$corpus" "$exp" "${opts[@]}"
fi
if stage 2 "Second"; then
    run python -c "import sys; print('second', sys.argv[1:])" "${control_opts[@]}"
fi
if stage 3 "Third"; then
    run echo "third $nj [$CUDA_VISIBLE_DEVICES]"
fi
"""


class Recipe:
    """egs/small in a copy of the repository."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "egs" / "small"
        self.script = self.folder / "run.sh"
        self.environment = {
            k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CDPATH")
        }
        self.environment["AUDIORL_PYTHON"] = sys.executable

    def write(self, stages: str) -> None:
        self.script.write_text(HEADER + stages)
        self.script.chmod(0o755)

    def run(
        self, *options: str, cwd: Path | None = None, command: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs the recipe as `command` (default: its absolute path) with a shell's options."""
        words = (command or str(self.script), *options)
        if command and command.startswith("bash "):
            words = (*command.split(), *options)
        return subprocess.run(
            words,
            cwd=cwd or self.root,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def log(self, stage: int) -> str:
        return (self.folder / "exp" / "log" / f"stage_{stage}.log").read_text()


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe of three stages that succeed."""
    root = tmp_path / "a copy"
    shutil.copytree(ROOT / "utils", root / "utils")
    (root / "tools").mkdir()
    for name in ("setup.py", "tools/check_install.py"):
        shutil.copy(ROOT / name, root / name)
    for name in ("audiorl", "conf"):
        (root / name).symlink_to(ROOT / name)
    made = Recipe(root)
    (made.folder / "conf").mkdir(parents=True)
    for name in ("grpo", "supervised"):
        (made.folder / "conf" / f"{name}.yaml").write_text(CONFIG)
    made.write(STAGES)
    return made
