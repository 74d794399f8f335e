"""Real corpora through validation, reading and stage 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kaldi_files import write_lines

from audiorl.config.data import DataConfig
from audiorl.config.schema import Config
from audiorl.data.audio import read_audio
from audiorl.data.format import format_sets
from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate


def write_set(path: Path, rows: list[tuple[str, str, str, Path]]) -> None:
    """Rows of (utterance, speaker, text, audio)."""
    path.mkdir(parents=True)
    rows = sorted(rows)
    speakers = sorted({row[1] for row in rows})
    write_lines(path / "utt2spk", [f"{row[0]} {row[1]}" for row in rows])
    write_lines(path / "text", [f"{row[0]} {row[2]}" for row in rows])
    write_lines(path / "wav.scp", [f"{row[0]} {row[3]}" for row in rows])
    write_lines(
        path / "spk2utt",
        [" ".join([name, *(row[0] for row in rows if row[1] == name)]) for name in speakers],
    )


@pytest.fixture
def librispeech(shared_data: Callable[[str], Path], tmp_path: Path) -> Path:
    rows = []
    for file in shared_data("LibriSpeech").rglob("*.trans.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, text = line.split(" ", 1)
            rows.append((name, name.rpartition("-")[0], text, file.parent / f"{name}.flac"))
    write_set(tmp_path / "data" / "libri", rows)
    return tmp_path / "data" / "libri"


@pytest.fixture
def aishell(shared_data: Callable[[str], Path], tmp_path: Path) -> Path:
    corpus = shared_data("data_aishell")
    lines = (corpus / "transcript" / "aishell_transcript_v0.8.txt").read_text(encoding="utf-8")
    texts = dict(line.split(maxsplit=1) for line in lines.splitlines())
    rows = [(f.stem, f.parent.name, texts[f.stem], f) for f in corpus.rglob("*.wav")]
    write_set(tmp_path / "data" / "aishell", rows)
    return tmp_path / "data" / "aishell"


def test_librispeech(librispeech: Path, kaldi_accepts: Callable[[Path], None]) -> None:
    kaldi_accepts(librispeech)
    assert validate(librispeech, Checks(sample_rate=16000, nj=2)) == []
    utterances = read_utterances(librispeech)
    assert len(utterances) == 144
    for utterance in utterances[:5]:
        samples = read_audio(utterance, 16000)
        assert np.abs(samples).max() > 0.01
        assert abs(2 * len(read_audio(utterance, 8000)) - len(samples)) <= 1


def test_format_two_languages(
    librispeech: Path, aishell: Path, kaldi_accepts: Callable[[Path], None]
) -> None:
    """An invisible character that AISHELL's transcripts have is said, and gone in dump/."""
    data, dump = aishell.parent, aishell.parent.parent / "dump"
    odd = [p for p in validate(aishell, Checks(audio=False)) if p.kind == "odd character"]
    assert odd and all(problem.warning for problem in odd)
    config = DataConfig(train="libri", dev="libri", test=["aishell"], max_duration=10)
    format_sets(Config(data=config), data, dump, nj=2)
    for name, count in (("libri", 144), ("aishell", 200)):
        kaldi_accepts(dump / name)
        utterances = read_utterances(dump / name)
        assert len(utterances) == count
        assert validate(dump / name, Checks(audio=False)) == []
        assert 0.2 < sum(u.duration for u in utterances) / 3600 < 0.4
