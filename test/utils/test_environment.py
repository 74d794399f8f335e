"""Which Python recipes and tests choose, and test/run.sh itself."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Stands for the installer: makes tools/venv from the Python that runs this test.
INSTALLER = f"""\
#!/bin/sh
echo "installer called"
python="$(dirname "$0")/venv/bin/python"
mkdir -p "$(dirname "$python")"
printf '#!/bin/sh\\nexec "{sys.executable}" "$@"\\n' >"$python"
chmod +x "$python"
"""
SHOW = 'if stage 3 "Third"; then\n    run echo "chosen $AUDIORL_PYTHON"\nfi\n'


@pytest.fixture
def empty_venv(tmp_path: Path) -> Path:
    """An environment without any package."""
    venv.create(tmp_path / "empty venv", with_pip=False, symlinks=True)
    return tmp_path / "empty venv"


@pytest.fixture
def undecided(recipe):
    """A recipe that has to choose its Python, with an installer at hand."""
    del recipe.environment["AUDIORL_PYTHON"]
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        recipe.environment.pop(name, None)
    installer = recipe.root / "tools" / "install.sh"
    installer.write_text(INSTALLER)
    installer.chmod(0o755)
    recipe.write(SHOW)
    return recipe


def test_without_any_environment_the_installer_makes_one(undecided) -> None:
    done = undecided.run("--stage=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("installer called\n")
    assert f"chosen {undecided.root}/tools/venv/bin/python" in done.stdout


def test_an_active_environment_that_has_it_all_is_used(undecided) -> None:
    undecided.environment["VIRTUAL_ENV"] = sys.prefix
    done = undecided.run("--stage=3")
    assert done.returncode == 0 and "installer called" not in done.stdout
    assert f"chosen {sys.prefix}/bin/python" in done.stdout


def test_an_active_environment_that_lacks_something_is_not(undecided, empty_venv: Path) -> None:
    undecided.environment["VIRTUAL_ENV"] = str(empty_venv)
    done = undecided.run("--stage=3")
    assert done.returncode == 0
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith(f"The active environment {empty_venv} does not serve: torch (missing)")
    assert first.endswith("; using tools/venv.") and second == "installer called"
    assert f"chosen {undecided.root}/tools/venv/bin/python" in done.stdout


def test_a_failing_installation_ends_the_recipe(undecided) -> None:
    (undecided.root / "tools" / "install.sh").write_text("#!/bin/sh\nexit 1\n")
    done = undecided.run("--stage=3")
    assert done.returncode == 1 and not done.stdout


def test_a_python_that_lacks_something_is_refused_when_it_was_asked_for(
    undecided, empty_venv: Path
) -> None:
    for python, reason in (
        (empty_venv / "bin" / "python", "missing"),
        ("/nowhere", "No such file"),
    ):
        undecided.environment["AUDIORL_PYTHON"] = str(python)
        done = undecided.run("--stage=3")
        assert done.returncode == 1 and not done.stdout
        assert done.stderr.startswith(f"error: AUDIORL_PYTHON={python} does not serve: ")
        assert reason in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("chosen", "code"), [("bash_4", 0), ("no_such_test", 5)])
def test_run_ends_with_the_closing_line_of_pytest(chosen: str, code: int) -> None:
    done = subprocess.run(
        ["bash", ROOT / ".ci" / "run", "test/test_style.py", "-k", chosen],
        cwd="/",
        env={**os.environ, "AUDIORL_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code
    assert done.stdout.splitlines()[-1].startswith("=====")
