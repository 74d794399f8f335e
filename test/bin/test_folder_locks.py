"""Two commands that write into one folder: the second is refused before it writes anything."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from audiorl.config import dump_config
from audiorl.config.schema import Config
from audiorl.errors import UserError

HOLD = """\
import sys
from pathlib import Path
from audiorl.runtime.locks import exclusive
with exclusive(Path("exp")), exclusive(Path("."), "rl.jsonl"):
    print("held", flush=True)
    sys.stdin.read()
"""
COMMANDS = {
    "train_sft": ("asr", "--out", "exp"),
    "train_speech_sft": ("tts", "--codec", "codec", "--out", "exp"),
    "train_codec": ("tts", "--out", "exp"),
    "train_judge": ("tts", "--out", "exp"),
    "train_reward_model": ("tts", "--tokens", "tokens", "--out", "exp"),
    "train_rl": ("asr", "--init", "sft", "--data", "rl", "--out", "exp"),
}


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder in which another process is at work; yields that process."""
    monkeypatch.chdir(tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    assert process.stdout.readline() == "held\n"
    yield process
    process.communicate()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_run_is_refused(name: str, held, tmp_path: Path, monkeypatch) -> None:
    task, *options = COMMANDS[name]
    Path("c.yaml").write_text(dump_config(Config(task)))
    command = importlib.import_module(f"audiorl.bin.{name.replace('speech_', '')}")
    given = [name, "--config", "c.yaml", "--dump", "dump", *options]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(UserError, match=rf"^exp is being written by process {held.pid} on"):
        command.main()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".lock", ".rl.jsonl.lock", "c.yaml", "exp",
    ]  # fmt: skip
    held.kill()
    held.wait()
    with pytest.raises(UserError, match=r"dump/train does not exist|rl does not exist|tokens"):
        command.main()


WRITERS = {
    "references": ("--codec", "c", "--natural", "exp", "--resynthesis", "r"),
    "speech_tokens": ("c",),
}


@pytest.mark.parametrize("name", WRITERS)
def test_writers_of_speech_hold_their_folders(name: str, held, monkeypatch) -> None:
    Path("c.yaml").write_text(dump_config(Config("tts")))
    Path("c").mkdir()
    Path("c/tokens").symlink_to(Path("exp").absolute())
    monkeypatch.setattr("audiorl.models.codec.load_codec", lambda *_: None)
    monkeypatch.setattr("audiorl.score.tts.texts_alone", lambda *_: [])
    monkeypatch.setattr(sys, "argv", [name, "--config", "c.yaml", "--dump", "dump", *WRITERS[name]])
    with pytest.raises(UserError, match=rf"is being written by process {held.pid} on"):
        importlib.import_module(f"audiorl.bin.{name}").main()
