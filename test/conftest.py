"""What all tests share: the real corpora, not in the repository; a steady torch and log."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A shell lets its background jobs ignore Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Returns the folder of a corpus by name; skips the test where it is absent."""
    folder = Path(os.environ.get("AUDIORL_SHARED_DATA", ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        if not (folder / name).exists():
            pytest.skip(f"{name} is not in {folder} (AUDIORL_SHARED_DATA names another folder)")
        return folder / name

    return find


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Runs a test with seed 0, one thread and deterministic algorithms of torch; restores them."""
    import torch

    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(before)


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A run replaces the handlers of the root logger; a test gives them back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Path]]:
    """Write a reward of the user by name, as if AUDIORL_PLUGINS had been set at the start."""
    import sys

    from audiorl import rewards
    from audiorl.config.rewards import REWARDS
    from audiorl.config.variants import extend_path

    folder = tmp_path / "plugins" / "rewards"
    folder.mkdir(parents=True)
    known = set(sys.modules)
    monkeypatch.setenv("AUDIORL_PLUGINS", str(folder.parent))
    monkeypatch.setattr(rewards, "__path__", extend_path(rewards.__name__, rewards.__path__))

    def forget() -> None:
        for name in ("_names", "_folders"):
            REWARDS.__dict__.pop(name, None)

    def write(name: str, text: str) -> Path:
        path = folder / f"{name}.py"
        path.write_text(text)
        forget()
        return path

    yield write
    forget()
    for name in set(sys.modules) - known:
        if name.startswith("audiorl.rewards."):
            del sys.modules[name]


@pytest.fixture(scope="session")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny pretrained recogniser, by the name of its family."""
    from tiny_families import save_family

    root = tmp_path_factory.mktemp("hub")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            save_family(name, root / name)
        return root / name

    return folder
