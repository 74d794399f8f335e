"""Data directories of real audio files, broken on purpose by the tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from kaldi_files import RATE, tone, write_lines

SPEAKERS = {"anna": ["anna-1", "anna-2"], "bob": ["bob-1", "bob-2", "bob-3"]}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A valid directory of 5 utterances (1.0, 1.1 … 1.4 s at 8 kHz) of 2 speakers."""
    made = tmp_path / "data" / "train"
    audio = tmp_path / "audio"
    made.mkdir(parents=True)
    audio.mkdir()
    names = [name for group in SPEAKERS.values() for name in group]
    for number, name in enumerate(names):
        soundfile.write(audio / f"{name}.wav", tone(1 + number / 10), RATE)
    write_lines(made / "wav.scp", [f"{name} {audio}/{name}.wav" for name in names])
    write_lines(made / "text", [f"{name} words of {name}" for name in names])
    write_lines(made / "utt2spk", [f"{name} {name.split('-')[0]}" for name in names])
    write_lines(made / "spk2utt", [f"{name} {' '.join(group)}" for name, group in SPEAKERS.items()])
    return made


@pytest.fixture
def edit() -> Callable[[Path, str, str], None]:
    """Replaces text in a file; the text has to be there."""

    def replace(path: Path, old: str, new: str) -> None:
        content = path.read_text(encoding="utf-8")
        assert old in content
        path.write_text(content.replace(old, new), encoding="utf-8", newline="")

    return replace


@pytest.fixture
def kaldi_accepts() -> Callable[[Path], None]:
    """Asserts what Kaldi's validate_data_dir.sh does, with the `sort` that it calls."""
    environment = os.environ | {"LC_ALL": "C"}

    def check(path: Path) -> None:
        files = [f for f in path.iterdir() if f.name in ("text", "segments", "wav.scp", "spk2utt")]
        files += path.glob("utt2*")
        ids = {}
        for file in files:
            content = file.read_bytes()
            assert content.endswith(b"\n") and b"\r" not in content, file
            ids[file.name] = [line.split()[0] for line in content.splitlines()]
            column = b"".join(name + b"\n" for name in ids[file.name])
            subprocess.run(["sort", "-uC"], input=column, env=environment, check=True)
        subprocess.run(["sort", "-k2", "-C", path / "utt2spk"], env=environment, check=True)
        utt2spk = (path / "utt2spk").read_text(encoding="utf-8").splitlines()
        inverse = [
            f"{name} {speaker}"
            for speaker, *names in map(str.split, open(path / "spk2utt", encoding="utf-8"))
            for name in names
        ]
        assert inverse == utt2spk
        assert ids["text"] == ids["utt2spk"]
        if "segments" in ids:
            assert ids["segments"] == ids["utt2spk"]
            lines = (path / "segments").read_bytes().splitlines()
            assert sorted({line.split()[1] for line in lines}) == ids["wav.scp"]
        else:
            assert ids["wav.scp"] == ids["utt2spk"]
        if "utt2dur" in ids:
            assert ids["utt2dur"] == ids["utt2spk"]

    return check


@pytest.fixture
def segmented(data_dir: Path) -> Path:
    """`data_dir` with its utterances cut from one recording for each speaker."""
    audio = data_dir.parent.parent / "audio"
    write_lines(data_dir / "wav.scp", [f"call-{name} {audio}/call-{name}.wav" for name in SPEAKERS])
    segments = []
    for name, group in SPEAKERS.items():
        pieces = [tone(1, frequency=200.0 * (number + 1)) for number in range(len(group))]
        soundfile.write(audio / f"call-{name}.wav", np.concatenate(pieces), RATE)
        segments += [f"{utt} call-{name} {n:.2f} {n + 1:.2f}" for n, utt in enumerate(group)]
    write_lines(data_dir / "segments", segments)
    return data_dir
