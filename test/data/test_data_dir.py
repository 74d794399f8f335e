"""Subset, split, combine; what they write is accepted by Kaldi's rules and read by ESPnet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kaldi_files import RATE, write_lines

from audiorl.data.audio import read_audio
from audiorl.data.data_dir import DataDir, combine, split, subset
from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

Edit = Callable[[Path, str, str], None]
Accepts = Callable[[Path], None]


def ids(path: Path) -> list[str]:
    return [utterance.id for utterance in read_utterances(path)]


def rename(path: Path, old: str, new: str) -> None:
    """Renames a speaker and all that begins with its name."""
    for file in path.iterdir():
        lines = [line.split(" ") for line in file.read_text(encoding="utf-8").splitlines()]
        lines = [[f.replace(old, new, 1) if f.startswith(old) else f for f in x] for x in lines]
        write_lines(file, [" ".join(line) for line in lines])


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"first": 3}, ["anna-1", "anna-2", "bob-1"]),
        ({"shortest": 2}, ["bob-1", "bob-3"]),
        ({"first": 5}, ["anna-1", "anna-2", "bob-1", "bob-2", "bob-3"]),
    ],
)
def test_subset(data_dir: Path, choice: dict, expected: list, kaldi_accepts: Accepts) -> None:
    seconds = dict(zip(ids(data_dir), ["1.5", "1.2", "0.3", "9", "1.1"], strict=True))
    write_lines(data_dir / "utt2dur", [f"{name} {value}" for name, value in seconds.items()])
    out = data_dir.parent / "part"
    subset(data_dir, out, **choice)
    assert ids(out) == expected
    kaldi_accepts(out)


def test_random_subset_depends_on_its_seed_alone(data_dir: Path) -> None:
    out = data_dir.parent / "part"
    drawn = []
    for seed in (1, 1, 2, 3, 4, 5):
        subset(data_dir, out, sample=2, seed=seed)
        drawn.append(tuple(ids(out)))
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert {len(names) for names in drawn} == {2}


def test_subset_of_speakers_and_of_a_list(data_dir: Path, kaldi_accepts: Accepts) -> None:
    write_lines(data_dir / "spk2gender", ["anna f", "bob m"])
    out = data_dir.parent / "part"
    subset(data_dir, out, speakers=1, seed=0)
    (speaker,) = DataDir.read(out).speakers()
    assert ids(out) == [name for name in ids(data_dir) if name.startswith(speaker)]
    assert (out / "spk2gender").read_text().startswith(speaker)
    write_lines(data_dir.parent / "list", ["bob-2 and more", "anna-1"])
    subset(data_dir, out, ids=data_dir.parent / "list")
    assert ids(out) == ["anna-1", "bob-2"]
    kaldi_accepts(out)
    write_lines(data_dir.parent / "list", ["bob-9"])
    with pytest.raises(UserError, match="lacks 1 of its 1 utterances, bob-9"):
        subset(data_dir, out, ids=data_dir.parent / "list")


def test_subset_refusals(data_dir: Path) -> None:
    with pytest.raises(UserError, match="5 utterances, not 6"):
        subset(data_dir, data_dir.parent / "part", first=6)
    with pytest.raises(UserError, match="duration of anna-1 is not known"):
        subset(data_dir, data_dir.parent / "part", shortest=1)
    with pytest.raises(UserError, match="in the way"):
        subset(data_dir, data_dir, first=1)
    other = data_dir.parent / "notes"
    other.mkdir()
    (other / "thesis.tex").touch()
    with pytest.raises(UserError, match="in the way"):
        subset(data_dir, other, first=1)
    with pytest.raises(UserError, match="has no utt2spk"):
        subset(other, data_dir.parent / "part", first=1)
    assert sorted(path.name for path in data_dir.parent.iterdir()) == ["notes", "train"]


def test_subset_keeps_only_the_recordings_it_needs(segmented: Path, kaldi_accepts: Accepts) -> None:
    out = segmented.parent / "part"
    subset(segmented, out, first=2)
    kaldi_accepts(out)
    assert [line.split()[0] for line in open(out / "wav.scp")] == ["call-anna"]


def test_split_by_speaker_and_by_utterance(data_dir: Path, kaldi_accepts: Accepts) -> None:
    parts = split(data_dir, 2)
    assert [part.path for part in parts] == [data_dir / "split2" / n for n in ("1", "2")]
    assert [ids(part.path) for part in parts] == [["bob-1", "bob-2", "bob-3"], ["anna-1", "anna-2"]]
    for part in parts:
        kaldi_accepts(part.path)
    with pytest.raises(UserError, match=r"2 speakers .*--per-utt.* too few for 3"):
        split(data_dir, 3)
    parts = split(data_dir, 3, per_utt=True)
    assert sorted(name for part in parts for name in ids(part.path)) == ids(data_dir)
    assert sorted(len(part.utterances) for part in parts) == [1, 2, 2]
    assert validate(data_dir, Checks()) == []  # the shards below it do not disturb


def test_relative_paths_stay_right_in_other_places(
    data_dir: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    edit(data_dir / "wav.scp", f"{tmp_path}/", "")
    monkeypatch.chdir(tmp_path)
    (part, _) = split("data/train", 2)
    monkeypatch.chdir("/")
    assert len(read_audio(read_utterances(tmp_path / part.path)[0], RATE)) > RATE


def test_combine(data_dir: Path, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture) -> None:
    other, out = data_dir.parent / "other", data_dir.parent / "all"
    subset(data_dir, other, first=5)
    rename(other, "anna", "abel")
    rename(other, "bob", "zoe")
    write_lines(data_dir / "utt2lang", [f"{name} en" for name in ids(data_dir)])
    write_lines(data_dir / "utt2snr", ["bob-1 3"])
    combine([data_dir, other], out)
    assert ids(out) == sorted(ids(data_dir) + ids(other))
    kaldi_accepts(out)
    assert validate(out, Checks()) == []
    assert "utt2lang left out" in capsys.readouterr().out
    assert not (out / "utt2lang").exists()
    assert read_utterances(out)[4].tags == {"snr": "3"}


def test_combine_refusals(data_dir: Path, edit: Edit) -> None:
    part, out = data_dir.parent / "part", data_dir.parent / "all"
    subset(data_dir, part, first=1)
    with pytest.raises(UserError, match="anna-1 stands in another"):
        combine([data_dir, part], out)
    rename(part, "anna-1", "anna-9")
    write_lines(data_dir / "spk2gender", ["anna f", "bob m"])
    write_lines(part / "spk2gender", ["anna m"])
    with pytest.raises(UserError, match="spk2gender: anna stands in another"):
        combine([data_dir, part], out)
    with pytest.raises(UserError, match="in the way"):
        combine([data_dir, part], part)
    write_lines(part / "segments", ["anna-9 anna-9 0 1"])
    with pytest.raises(UserError, match="only some of the directories have segments"):
        combine([data_dir, part], out)
    assert not out.exists()


def test_combine_directories_that_share_recordings(segmented: Path, kaldi_accepts: Accepts) -> None:
    one, two, out = (segmented.parent / name for name in ("one", "two", "all"))
    write_lines(segmented.parent / "list", ["anna-1", "bob-1"])
    subset(segmented, one, ids=segmented.parent / "list")
    write_lines(segmented.parent / "list", ["bob-2"])
    subset(segmented, two, ids=segmented.parent / "list")
    combine([one, two], out)
    assert ids(out) == ["anna-1", "bob-1", "bob-2"]
    kaldi_accepts(out)


def test_an_interrupted_write_leaves_the_old_directory(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = data_dir.parent / "part"
    subset(data_dir, out, first=2)
    written = []

    def die(path: Path, values: dict) -> None:
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("audiorl.data.data_dir.write_table", die)
    with pytest.raises(KeyboardInterrupt):
        subset(data_dir, out, first=4)
    monkeypatch.undo()
    assert len(ids(out)) == 2
    subset(data_dir, out, first=4)
    assert len(ids(out)) == 4
    assert not list(data_dir.parent.glob(".part*"))


def test_espnet_reads_what_is_written(data_dir: Path, edit: Edit) -> None:
    from espnet2.fileio.read_text import read_2columns_text
    from espnet2.fileio.sound_scp import SoundScpReader

    audio = data_dir.parent.parent / "audio"
    (audio / "bob-3.wav").rename(audio / "b 3 你.wav")
    edit(data_dir / "wav.scp", "bob-3.wav", "b 3 你.wav")
    edit(data_dir / "text", "words of bob-2", "")
    edit(data_dir / "text", "words of bob-1", "你好 世界")
    out = data_dir.parent / "part"
    subset(data_dir, out, first=5)
    ours = {utterance.id: utterance for utterance in read_utterances(out)}
    assert (out / "text").read_text(encoding="utf-8").splitlines()[3] == "bob-2"
    assert read_2columns_text(out / "text") == {name: u.text for name, u in ours.items()}
    assert read_2columns_text(out / "utt2spk") == {name: u.speaker for name, u in ours.items()}
    reader = SoundScpReader(str(out / "wav.scp"), dtype="float32")
    assert list(reader) == list(ours)
    for name, utterance in ours.items():
        rate, samples = reader[name]
        np.testing.assert_array_equal(samples, read_audio(utterance, rate))
