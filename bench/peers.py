"""Trainers to compare with, each in an environment of its own beside ours."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from audiorl.errors import UserError

HERE = Path(__file__).resolve().parent
TOOLS = HERE.parent / "tools"


@dataclass(frozen=True)
class Peer:
    """A package from PyPI, and the script that runs its steps."""

    package: str
    release: str
    script: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.release}"

    @property
    def environment(self) -> Path:
        return TOOLS / f"venv_bench_{self.package}"

    @property
    def python(self) -> Path:
        return self.environment / "bin" / "python"

    @property
    def command(self) -> list[str | Path]:
        return [self.python, HERE / self.script]

    def is_installed(self) -> bool:
        asked = f"from importlib.metadata import version; print(version('{self.package}'))"
        if not self.python.exists():
            return False
        found = subprocess.run([self.python, "-c", asked], capture_output=True, text=True)
        return found.stdout.strip() == self.release

    def install(self) -> None:
        """Makes the environment unless it is there; needs the network. UserError if pip fails.

        All that it shares with ours has the versions of tools/constraints.txt, torch included.
        """
        if self.is_installed():
            return
        print(f"installing {self.requirement} into {self.environment}", file=sys.stderr)
        pip = [self.python, "-m", "pip", "install", "--quiet", "-c", TOOLS / "constraints.txt"]
        commands = ([sys.executable, "-m", "venv", self.environment], [*pip, self.requirement])
        for command in commands:
            if subprocess.run(command).returncode != 0:
                raise UserError(
                    f"{self.environment}: {self.requirement} cannot be installed (see above); "
                    "mend the network or pip's settings, then run the same command again."
                )


PEERS = {"trl": Peer("trl", "1.16.0", "trl_peer.py")}
