"""Fixing in place: what is fixed, what goes and why, what is refused, and the backup."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kaldi_files import write_lines

from audiorl.data.fix import fix
from audiorl.data.utterance import read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError

Edit = Callable[[Path, str, str], None]
Accepts = Callable[[Path], None]


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir() if file.is_file()}


def test_valid_directory_is_left_alone(data_dir: Path, capsys: pytest.CaptureFixture) -> None:
    before = contents(data_dir)
    fix(data_dir, Checks())
    assert contents(data_dir) == before and not (data_dir / ".backup").exists()
    assert "nothing to fix, kept all 5" in capsys.readouterr().out


def test_fixes_without_losing_anything(
    data_dir: Path, edit: Edit, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture
) -> None:
    edit(data_dir / "utt2spk", "anna-2 anna\nbob-1 bob", "bob-1 bob\nanna-2 anna")
    edit(data_dir / "text", "words of bob-1\n", "words\u3000of bob-1\r\n")
    edit(data_dir / "text", "words of bob-3\n", "words\ufeff of bob-3")
    edit(data_dir / "wav.scp", "bob-1 ", "\nbob-1\t")
    (data_dir / "spk2utt").unlink()
    before = contents(data_dir)
    assert fix(data_dir, Checks()).problems == []
    assert "kept 5 of 5" in capsys.readouterr().out
    kaldi_accepts(data_dir)
    assert [u.text for u in read_utterances(data_dir)][2:] == [
        f"words of bob-{number}" for number in (1, 2, 3)
    ]
    assert contents(data_dir / ".backup") == before


def test_removes_what_cannot_be_used_and_says_why(
    data_dir: Path, edit: Edit, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture
) -> None:
    names = [f"carl-{number}" for number in range(5)]
    for file, value in (("text", "a"), ("utt2spk", "carl"), ("wav.scp", "")):
        with open(data_dir / file, "a", encoding="utf-8") as stream:
            for name in names:
                wave = data_dir.parent.parent / "audio" / "bob-1.wav"
                stream.write(f"{name} {value or wave}\n")
    edit(data_dir / "spk2utt", "bob-3\n", "bob-3\ncarl " + " ".join(names) + "\n")
    assert validate(data_dir, Checks()) == []
    (data_dir.parent.parent / "audio" / "anna-1.wav").unlink()
    edit(data_dir / "text", "bob-1 words of bob-1", "bob-1")
    edit(data_dir / "wav.scp", "carl-0", "carl-9")
    write_lines(data_dir / "utt2dur", ["anna-2 1.1"])
    write_lines(data_dir / "utt2snr", ["anna-1 5", "anna-2 6", "nobody 7"])
    write_lines(data_dir / "spk2gender", ["anna f", "bob m", "carl m"])
    assert fix(data_dir, Checks()).errors == []
    said = capsys.readouterr().out
    assert "kept 7 of 11 utterances" in said
    for reason in (
        "1 removed: missing audio (wav.scp)",
        "1 removed: empty transcript (text)",
        "1 removed: not in wav.scp (wav.scp)",
        "1 removed: not in utt2spk (wav.scp)",
        "utt2snr: 2 of 3 ids removed",
        "utt2dur removed (not in utt2dur)",
    ):
        assert reason in said, reason
    kaldi_accepts(data_dir)
    kept = [utterance.id for utterance in read_utterances(data_dir)]
    assert kept == ["anna-2", "bob-2", "bob-3", *names[1:]]
    assert (data_dir / "utt2snr").read_text() == "anna-2 6\n"


def test_duplicates_and_other_encodings(
    data_dir: Path, edit: Edit, capsys: pytest.CaptureFixture
) -> None:
    edit(data_dir / "text", "bob-2 words", "bob-2 first\nbob-2 words")
    content = (data_dir / "text").read_bytes()
    (data_dir / "text").write_bytes(content.replace(b"words of bob-1", b"caf\xe9"))
    assert fix(data_dir, Checks()).errors == []
    said = capsys.readouterr().out
    assert "kept 4 of 5" in said and "1 removed: not UTF-8 (text)" in said
    assert "line 5 removed, the first of bob-2 stays" in said
    assert [u.text for u in read_utterances(data_dir) if u.id == "bob-2"] == ["first"]


def test_recordings_and_speakers_go_with_their_last_utterance(
    segmented: Path, edit: Edit, kaldi_accepts: Accepts, capsys: pytest.CaptureFixture
) -> None:
    (segmented.parent.parent / "audio" / "call-anna.wav").unlink()
    write_lines(segmented / "reco2dur", ["call-anna 2", "call-bob 3"])
    fix(segmented, Checks())
    assert "kept 3 of 5" in capsys.readouterr().out
    kaldi_accepts(segmented)
    assert (segmented / "reco2dur").read_text() == "call-bob 3\n"
    assert "anna" not in (segmented / "wav.scp").read_text()


def test_refuses_to_remove_more_than_half(data_dir: Path) -> None:
    for name in ("anna-1", "anna-2", "bob-1"):
        (data_dir.parent.parent / "audio" / f"{name}.wav").unlink()
    before = contents(data_dir)
    with pytest.raises(UserError, match="--force") as refused:
        fix(data_dir, Checks())
    assert "kept 2 of 5" in str(refused.value)
    assert "3 removed: missing audio (wav.scp)" in str(refused.value)
    assert contents(data_dir) == before and not (data_dir / ".backup").exists()
    assert fix(data_dir, Checks(), force=True).errors == []
    assert [u.id for u in read_utterances(data_dir)] == ["bob-2", "bob-3"]


def test_refuses_to_leave_nothing_even_by_force(data_dir: Path) -> None:
    write_lines(data_dir / "wav.scp", ["other /nowhere.wav"])
    with pytest.raises(UserError, match="kept 0 of 6"):
        fix(data_dir, Checks(), force=True)


def test_required_file_that_is_missing(data_dir: Path) -> None:
    (data_dir / "text").unlink()
    with pytest.raises(UserError, match="text: the file is missing"):
        fix(data_dir, Checks())


def test_older_backups_stay(data_dir: Path, edit: Edit) -> None:
    for name in ("bob-3", "bob-2"):
        edit(data_dir / "text", f" words of {name}", "")
        fix(data_dir, Checks())
    assert "bob-3 words" not in (data_dir / ".backup" / "text").read_text()
    assert "bob-2 words of bob-2" in (data_dir / ".backup" / "text").read_text()
    assert "bob-2\n" in (data_dir / ".backup.1" / "text").read_text()


def test_wrong_durations_are_removed(data_dir: Path, capsys: pytest.CaptureFixture) -> None:
    write_lines(data_dir / "utt2dur", [f"{u.id} 9" for u in read_utterances(data_dir)])
    assert fix(data_dir, Checks()).problems == []
    assert "utt2dur removed (wrong duration)" in capsys.readouterr().out
    assert not (data_dir / "utt2dur").exists()


def test_speaker_order_needs_a_hand(data_dir: Path, edit: Edit) -> None:
    edit(data_dir / "utt2spk", "anna-1 anna", "anna-1 zoe")
    edit(data_dir / "text", "anna-1 words", "anna-1 wo\u200brds")
    for _ in range(2):
        left = fix(data_dir, Checks()).problems
        assert [problem.kind for problem in left] == ["not sorted by speaker"]
    assert not (data_dir / ".backup.1").exists()  # the second call had nothing that it can fix
