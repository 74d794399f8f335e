"""Prompts of utterances: files of a data directory, lines of JSON, published zero-shot lists."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import write_set

from audiorl.bin import data_dir
from audiorl.data.data_dir import DataDir
from audiorl.data.format import format_sets
from audiorl.data.rl_set import read_rl_set
from audiorl.data.utterance import read_utterances, write_utterances_jsonl
from audiorl.errors import UserError
from audiorl.runs.experiment import content_hash


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(tmp_path / "data" / "test", ["ba do", "ki lu", "me", "no pa"])
    return tmp_path / "data" / "test"


def test_a_prompt_is_another_utterance(folder: Path) -> None:
    (folder / "utt2prompt").write_text("s0-test000 s0-test003\ns1-test001 s0-test000\n")
    found = {u.id: u for u in read_utterances(folder)}
    assert found["s0-test000"].prompt == replace(found["s0-test003"], prompt=None)
    assert found["s1-test001"].prompt.text == "ba do"
    assert found["s2-test002"].prompt is None
    assert found["s0-test000"].tags == {}


@pytest.mark.parametrize("line", ["s0-test000 s9", "x s0-test000", "s0-test000 s0-test000"])
def test_a_prompt_that_is_none_is_named(folder: Path, line: str) -> None:
    (folder / "utt2prompt").write_text(line + "\n")
    with pytest.raises(UserError, match=rf"utt2prompt: {line.split()[0]} or its prompt `.*; fix"):
        read_utterances(folder)


def test_prompts_go_through_formatting_and_lists(folder: Path, tmp_path: Path, speaks) -> None:
    for file in ("wav.scp", "utt2dur"):
        (folder / file).unlink()
    wave = folder / "s0-test000.wav"
    names = [u.id for u in read_utterances(folder, texts_alone=True)]
    (folder / "prompt_wav.scp").write_text("".join(f"{n} {wave}\n" for n in names))
    (folder / "prompt_text").write_text("".join(f"{n} la la\n" for n in names))
    format_sets(speaks, tmp_path / "data", tmp_path / "dump")
    made = read_utterances(tmp_path / "dump" / "test", texts_alone=True)
    assert [(u.prompt.audio, u.prompt.text) for u in made] == [(str(wave), "la la")] * 4
    write_utterances_jsonl(tmp_path / "rl.jsonl", made)
    assert [item.utterance for item in read_rl_set(tmp_path / "rl.jsonl", True)] == made
    plain = [replace(u, prompt=None) for u in made]
    assert content_hash(plain) != content_hash(made)
    wave.rename(tmp_path / "gone.wav")
    with pytest.raises(UserError, match="1 of 3 sets are not valid"):
        format_sets(speaks, tmp_path / "data", tmp_path / "dump")


@pytest.fixture
def speaks(tmp_path: Path):
    from audiorl.config import Config

    for name in ("train", "dev"):
        write_set(tmp_path / "data" / name, ["ba do ki lu", "me no pa ri", "so tu ba"])
    config = Config(task="tts")
    config.data.train, config.data.dev, config.data.test = "train", "dev", ["test"]
    return config


def zero_shot(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["data_dir", "zero_shot", *map(str, paths)])
    data_dir.main()


def test_seed_tts_eval(folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Lines as they are published, with a recording or without, and audio beside the list."""
    wave = "prompt-wavs/a.wav"
    (tmp_path / "en" / "prompt-wavs").mkdir(parents=True)
    (folder / "s0-test000.wav").rename(tmp_path / "en" / wave)
    lines = [f"c_{i}-x|la la {i}|{wave}|ba do {i}" for i in range(3)]
    (tmp_path / "en" / "meta.lst").write_text("\n".join(lines) + "\n")
    zero_shot(monkeypatch, tmp_path / "en" / "meta.lst", tmp_path / "seed")
    assert "seed: 3 utterances, 3 speakers" in capsys.readouterr().out
    first = read_utterances(tmp_path / "seed", texts_alone=True)[0]
    assert (first.id, first.text, first.audio) == ("c_0-x", "ba do 0", "")
    assert first.prompt.text == "la la 0"
    assert first.prompt.audio == str((tmp_path / "en" / wave).absolute())
    (tmp_path / "en" / "meta.lst").write_text("\n".join(f"{line}|{wave}" for line in lines))
    zero_shot(monkeypatch, tmp_path / "en" / "meta.lst", tmp_path / "seed")
    assert all(u.audio == first.prompt.audio for u in read_utterances(tmp_path / "seed"))
    (tmp_path / "en" / "meta.lst").write_text("a|b|c\n")
    with pytest.raises(UserError, match=r"meta.lst:1: is no new `<id>\|<text of the prompt>\|<its"):
        zero_shot(monkeypatch, tmp_path / "en" / "meta.lst", tmp_path / "seed")


def test_cv3_eval(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """A folder whose audio is named from the repository's root."""
    source = tmp_path / "CV3-Eval" / "data" / "zero_shot" / "en"
    (source / "waveform").mkdir(parents=True)
    (folder / "s0-test000.wav").rename(source / "waveform" / "p.wav")
    for file, value in {
        "text": "ba do",
        "prompt_text": "la la",
        "prompt_wav.scp": "data/zero_shot//en/waveform/p.wav",
    }.items():
        (source / file).write_text(f"uttid_2 {value}\nuttid_10 {value}\n")
    zero_shot(monkeypatch, source, tmp_path / "cv3")
    found = read_utterances(tmp_path / "cv3", texts_alone=True)
    assert [u.id for u in found] == ["uttid_10", "uttid_2"]
    assert all(Path(u.prompt.audio).samefile(source / "waveform" / "p.wav") for u in found)
    assert DataDir.read(tmp_path / "cv3").speakers() == {u.id: [u.id] for u in found}
    (source / "waveform" / "p.wav").unlink()
    with pytest.raises(UserError, match=r"uttid_10: there is no data/zero_shot//en/waveform/p.wav"):
        zero_shot(monkeypatch, source, tmp_path / "cv3")


def test_a_line_with_a_broken_prompt_is_refused(folder: Path, tmp_path: Path) -> None:
    (u, *_) = read_utterances(folder)
    write_utterances_jsonl(tmp_path / "u.jsonl", [replace(u, prompt=u)])
    (line,) = map(json.loads, (tmp_path / "u.jsonl").read_text().splitlines())
    line["prompt"]["start"] = "soon"
    (tmp_path / "u.jsonl").write_text(json.dumps(line))
    with pytest.raises(UserError, match=r"u.jsonl:1 is not an utterance .*prompt is"):
        read_utterances(tmp_path / "u.jsonl")
