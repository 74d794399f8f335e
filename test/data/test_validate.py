"""Every rule of validation, each on a directory that breaks it in one place."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
from kaldi_files import RATE, tone, write_lines

from audiorl.bin import data_dir as data_dir_command
from audiorl.data.tables import write_table
from audiorl.data.validate import Checks, examine, summary, validate
from audiorl.errors import UserError

Edit = Callable[[Path, str, str], None]


def only(problems: list, kind: str):
    """The one problem that there is, of this kind."""
    assert [problem.kind for problem in problems] == [kind], summary(problems)
    return problems[0]


def test_valid_directory(data_dir: Path, kaldi_accepts: Callable[[Path], None]) -> None:
    report = examine(data_dir, Checks(sample_rate=RATE))
    assert report.problems == []
    assert report.seconds()["bob-3"] == pytest.approx(1.4)
    kaldi_accepts(data_dir)


def test_valid_segments(segmented: Path, kaldi_accepts: Callable[[Path], None]) -> None:
    report = examine(segmented, Checks())
    assert report.problems == []
    assert report.seconds() == pytest.approx(dict.fromkeys(report.directory.utterances, 1.0))
    kaldi_accepts(segmented)


# file, text in it, its replacement, kind, line, id, words of the message
RULES = [
    ("utt2spk", "anna-2 anna\nbob-1 bob", "bob-1 bob\nanna-2 anna", "not sorted", 3, "anna-2", ""),
    ("text", "bob-1 words", "anna-2 words", "duplicate id", 3, "anna-2", "line 2 already"),
    ("text", "bob-3 words of bob-3\n", "bob-3 words of bob-3", "no final newline", 5, "", ""),
    ("text", "of bob-1\n", "of bob-1\r\n", "CR LF line end", 3, "", "Windows"),
    ("text", "anna-2 ", "\nanna-2 ", "empty line", 2, "", ""),
    ("text", "anna-1", "\ufeffanna-1", "byte order mark", 1, "", ""),
    ("text", "words of bob-1", "", "empty transcript", 3, "bob-1", ""),
    ("text", "words of bob-1", "words\u3000of", "odd character", 3, "bob-1", "U\\+3000 .IDEOGR"),
    ("text", "words of bob-1", "words\x07of", "odd character", 3, "bob-1", "U\\+0007"),
    ("text", "words of bob-1", "a <s> b", "reserved symbol", 3, "bob-1", ""),
    ("text", "words of bob-1", "a #0", "reserved symbol", 3, "bob-1", ""),
    ("text", "anna-2 words of anna-2\n", "", "not in text", None, "anna-2", "text lacks it"),
    ("text", "bob-1 words", "bob-0 more\nbob-1 words", "not in utt2spk", 3, "bob-0", ""),
    ("spk2utt", "bob-2 bob-3", "bob-3 bob-2", "not the inverse of utt2spk", 2, "bob", ""),
    ("spk2utt", "bob bob-1 bob-2 bob-3\n", "", "not the inverse of utt2spk", None, "bob", ""),
]


@pytest.mark.parametrize(("file", "old", "new", "kind", "line", "name", "words"), RULES)
def test_broken_line(
    data_dir: Path,
    edit: Edit,
    file: str,
    old: str,
    new: str,
    kind: str,
    line: int | None,
    name: str,
    words: str,
) -> None:
    edit(data_dir / file, old, new)
    problems = [p for p in validate(data_dir, Checks(audio=False)) if p.kind == kind]
    problem = only(problems, kind)
    assert (problem.file, problem.line, problem.id) == (data_dir / file, line, name)
    assert not problem.warning
    text = str(problem)
    assert text.startswith(f"{data_dir / file}:{line}: " if line else f"{data_dir / file}: ")
    assert text.endswith(".") and text.count("; ") == 1  # what is wrong; its fix
    assert re.search(words, text)


# file, its lines, kind, id
VALUE_RULES = [
    ("utt2spk", "bob-1 bob x", "bad value", "bob-1"),
    ("utt2dur", "bob-1 0", "bad value", "bob-1"),
    ("utt2dur", "bob-1 long", "bad value", "bob-1"),
    ("utt2dur", "bob-1 nan", "bad value", "bob-1"),
    ("utt2num_frames", "bob-1 1.5", "bad value", "bob-1"),
    ("utt2lang", "bob-1", "bad value", "bob-1"),
    ("utt2warp", "bob-1 1.7", "bad value", "bob-1"),
    ("spk2gender", "bob male", "bad value", "bob"),
    ("wav.scp", "bob-1 ~/a.wav", "bad value", "bob-1"),
    ("wav.scp", "bob-1", "bad value", "bob-1"),
    ("reco2file_and_channel", "bob-1 file 1", "bad value", "bob-1"),
]
GOOD = {
    "utt2dur": "1",
    "utt2num_frames": "98",
    "utt2lang": "en",
    "utt2warp": "1.0",
    "reco2file_and_channel": "file A",
    "spk2gender": "f",
}


@pytest.mark.parametrize(("file", "line", "kind", "name"), VALUE_RULES)
def test_bad_value(data_dir: Path, file: str, line: str, kind: str, name: str) -> None:
    """One bad value in a file that is right otherwise."""
    ids = ["anna", "bob"] if file.startswith("spk2") else IDS
    path = data_dir / file
    lines = (
        path.read_text(encoding="utf-8").splitlines()
        if path.exists()
        else [f"{i} {GOOD[file]}" for i in ids]
    )
    write_lines(path, lines)
    assert validate(data_dir, Checks(audio=False)) == []
    write_lines(path, [line if old.split()[0] == name else old for old in lines])
    problems = validate(data_dir, Checks(audio=False))
    assert [(p.file.name, p.line, p.id) for p in problems if p.kind == kind] == [
        (file, ids.index(name) + 1, name)
    ]


IDS = ["anna-1", "anna-2", "bob-1", "bob-2", "bob-3"]


@pytest.mark.parametrize("file", ["utt2dur", "utt2lang", "utt2num_frames", "spk2gender"])
def test_file_that_lacks_an_id(data_dir: Path, file: str) -> None:
    ids = ["anna"] if file == "spk2gender" else IDS[:-1]
    write_lines(data_dir / file, [f"{name} {GOOD[file]}" for name in ids])
    problem = only(validate(data_dir, Checks(audio=False)), f"not in {file}")
    assert problem.id == ("bob" if file == "spk2gender" else "bob-3")


def test_own_tags_need_not_be_complete(data_dir: Path) -> None:
    write_lines(data_dir / "utt2keywords", ["bob-1 New York;Oslo"])
    write_lines(data_dir / "utt2snr", ["anna-1 12", "carl-1 7"])
    problem = only(validate(data_dir, Checks()), "not in utt2spk")
    assert (problem.file.name, problem.line, problem.id) == ("utt2snr", 2, "carl-1")


@pytest.mark.parametrize("file", ["utt2spk", "spk2utt", "text", "wav.scp"])
@pytest.mark.parametrize("state", ["missing", "empty"])
def test_required_file(data_dir: Path, file: str, state: str) -> None:
    (data_dir / file).unlink()
    if state == "empty":
        (data_dir / file).touch()
    problems = [p for p in validate(data_dir, Checks()) if p.kind == "no content"]
    problem = only(problems, "no content")
    assert f"{file}: the file is {state}" in str(problem)


def test_texts_alone(segmented: Path) -> None:
    """Right where they are asked for; audio that there is is still opened."""
    assert [p for p in validate(segmented, Checks(texts_alone=True)) if not p.warning] == []
    (segmented / "wav.scp").unlink()
    missing = validate(segmented, Checks(texts_alone=True))
    assert [(p.file.name, p.kind) for p in missing] == [("wav.scp", "no content")]  # segments
    (segmented / "segments").unlink()
    assert validate(segmented, Checks(texts_alone=True)) == []
    (problem,) = validate(segmented)
    assert problem.file.name == "wav.scp"
    assert str(problem).endswith("(texts alone: for RL and tests of synthesis).")


def test_not_utf8(data_dir: Path) -> None:
    content = (data_dir / "text").read_bytes()
    (data_dir / "text").write_bytes(content.replace(b"words of bob-1", b"caf\xe9"))
    problems = validate(data_dir, Checks(audio=False))
    assert [(p.line, p.id, p.kind) for p in problems if p.line] == [(3, "bob-1", "not UTF-8")]


def test_sorted_by_locale_but_not_in_c(data_dir: Path) -> None:
    """en_US sorts `a B c`, the C locale `B a c`."""
    for file in ("text", "wav.scp", "utt2spk", "spk2utt"):
        content = (data_dir / file).read_text(encoding="utf-8").replace("bob", "Bob")
        (data_dir / file).write_text(content, encoding="utf-8")
    problems = validate(data_dir, Checks(audio=False))
    assert {p.file.name for p in problems if p.kind == "not sorted"} >= {"text", "utt2spk"}


def test_speaker_that_is_no_prefix(data_dir: Path, edit: Edit) -> None:
    edit(data_dir / "utt2spk", "anna-1 anna", "anna-1 zoe")
    problems = [p for p in validate(data_dir, Checks(audio=False)) if "inverse" not in p.kind]
    problem = only(problems, "not sorted by speaker")
    assert problem.id == "anna-2"
    assert "begin with their speaker" in problem.fix


@pytest.mark.parametrize(
    "ids", [["1_2", "13_1"], ["s1_a", "s12_b"], ["AL_1", "ALAN_1"], ["a.b_1", "a.b0_2"]]
)
def test_a_separator_that_sorts_behind_names(tmp_path: Path, ids: list[str], monkeypatch) -> None:
    """No advice to begin with the speaker, which they do, or to run `fix`, which cannot."""
    speakers = {name: name.rpartition("_")[0] for name in ids}
    table = {
        "utt2spk": speakers,
        "text": dict.fromkeys(ids, "ba"),
        "wav.scp": dict.fromkeys(ids, "/none.wav"),
    }
    for name, values in table.items():
        write_table(tmp_path / "x" / name, values)
    write_table(tmp_path / "x" / "spk2utt", {of: name for name, of in speakers.items()})
    problem = only(validate(tmp_path / "x", Checks(audio=False)), "not sorted by speaker")
    assert "join speaker and utterance by `-`" in problem.fix
    command = ["data_dir", "validate", "--no-audio", str(tmp_path / "x")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(UserError, match=r"not valid; fix the preparation\.$"):
        data_dir_command.main()


def test_one_speaker_is_a_warning(data_dir: Path) -> None:
    write_lines(data_dir / "utt2spk", [f"{name} all" for name in IDS])
    write_lines(data_dir / "spk2utt", ["all " + " ".join(IDS)])
    problem = only(validate(data_dir, Checks(audio=False)), "one speaker")
    assert problem.warning


@pytest.mark.parametrize("name", ["bob/1", "bob\u00a01", "bob-" + "1" * 200])
def test_id_unfit_for_a_file_name(data_dir: Path, name: str) -> None:
    for file in ("text", "wav.scp", "utt2spk", "spk2utt"):
        content = (data_dir / file).read_text(encoding="utf-8").replace("bob-3", name)
        (data_dir / file).write_text(content, encoding="utf-8")
    problems = [p for p in validate(data_dir, Checks(audio=False)) if p.kind != "not sorted"]
    assert ("id unfit for a file", name) in {(p.kind, p.id) for p in problems}


def test_unicode_ids_and_paths_with_spaces(data_dir: Path, edit: Edit) -> None:
    audio = data_dir.parent.parent / "audio"
    (audio / "bob-3.wav").rename(audio / "bob 3 né 你.wav")
    for file in ("text", "utt2spk", "spk2utt"):
        edit(data_dir / file, "bob-3", "bob-你好")
    edit(data_dir / "wav.scp", "bob-3 ", "bob-你好 ")
    edit(data_dir / "wav.scp", "bob-3.wav", "bob 3 né 你.wav")
    assert validate(data_dir, Checks()) == []


def test_invisible_characters_are_a_warning(data_dir: Path, edit: Edit) -> None:
    edit(data_dir / "text", "words of bob-1", "wo\ufeffrds of می\u200cخواهم")
    problem = only(validate(data_dir, Checks(audio=False)), "odd character")
    assert problem.warning and "U+FEFF" in problem.message
    edit(data_dir / "text", "\ufeff", "")
    assert validate(data_dir, Checks(audio=False)) == []  # Persian needs its joiner


def test_set_without_speech_may_be_empty(data_dir: Path, edit: Edit) -> None:
    edit(data_dir / "text", " words of bob-1", "")
    only(validate(data_dir, Checks()), "empty transcript")
    worded = validate(data_dir, Checks(no_speech=True))
    assert {problem.kind for problem in worded} == {"transcript without speech"}
    lines = (data_dir / "text").read_text().splitlines()
    tags = ["", "[noise]", "(wind blowing)", "<noise>", "♪"]
    tagged = zip(lines, tags, strict=True)
    silent = [f"{line.split()[0]} {tag}".rstrip() for line, tag in tagged]
    (data_dir / "text").write_text("\n".join(silent) + "\n")
    assert validate(data_dir, Checks(no_speech=True)) == []


SEGMENTS = [
    ("call-anna 1.00 2.00", "call-anna 2.00 1.00", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00 1.00", "bad value"),
    ("call-anna 1.00 2.00", "call-anna -1 2.00", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00 x", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00 2.70", "beyond the recording"),
    ("call-anna 1.00 2.00", "call-anna 2.10 2.30", "beyond the recording"),
    ("call-anna 1.00 2.00", "call-anna 1.00 1e14", "beyond the recording"),
    ("call-anna 1.00 2.00", "call-anna 1.00 1e308", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00 2_0", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00 ٢", "bad value"),
    ("call-anna 1.00 2.00", "call-anna 1.00 1.00001", "empty segment"),
]


@pytest.mark.parametrize(("old", "new", "kind"), SEGMENTS)
def test_bad_segment(segmented: Path, edit: Edit, old: str, new: str, kind: str) -> None:
    edit(segmented / "segments", old, new)
    problem = only(validate(segmented, Checks()), kind)
    assert (problem.file.name, problem.line, problem.id) == ("segments", 2, "anna-2")


def test_segment_a_little_too_long_is_a_warning(segmented: Path, edit: Edit) -> None:
    edit(segmented / "segments", "1.00 2.00\nbob", "1.00 2.40\nbob")
    report = examine(segmented, Checks())
    assert only(report.problems, "end cut off").warning
    assert report.seconds()["anna-2"] == pytest.approx(1.0)


def test_recordings_and_segments_differ(segmented: Path, edit: Edit) -> None:
    edit(segmented / "wav.scp", "call-bob ", "call-carl ")
    kinds = {(p.file.name, p.kind, p.id) for p in validate(segmented, Checks(audio=False))}
    assert kinds == {
        ("wav.scp", "not in segments", "call-carl"),
        ("wav.scp", "not in wav.scp", "call-bob"),
    }


def broken_audio(path: Path) -> dict[str, str]:
    """Breaks each recording in its own way; returns id -> kind."""
    (path / "anna-1.wav").unlink()
    (path / "anna-2.wav").write_bytes(b"")
    (path / "bob-1.wav").write_bytes((path / "bob-1.wav").read_bytes()[:5000])
    (path / "bob-2.wav").write_text("<html>404</html>")
    soundfile.write(path / "bob-3.wav", np.zeros(0), RATE)
    kinds = ["missing audio", "empty audio", "truncated audio", "unreadable audio", "empty audio"]
    return dict(zip(IDS, kinds, strict=True))


def test_broken_audio(data_dir: Path) -> None:
    expected = broken_audio(data_dir.parent.parent / "audio")
    problems = validate(data_dir, Checks())
    assert {p.id: p.kind for p in problems} == expected
    assert [p.line for p in problems] == [1, 2, 3, 4, 5]
    assert validate(data_dir, Checks(audio=False)) == []


def test_sample_rates_are_said_once_each(data_dir: Path) -> None:
    for name in ("bob-1", "bob-2"):
        soundfile.write(data_dir.parent.parent / "audio" / f"{name}.wav", tone(1, 44100), 44100)
    problem = only(validate(data_dir, Checks()), "sample rate")
    assert problem.warning and "2 of 5 recordings are at 44100 Hz" in problem.message
    wanted = validate(data_dir, Checks(sample_rate=16000))
    assert ["3 of 5" in p.message for p in wanted] == [True, False]


def test_wrong_duration(data_dir: Path) -> None:
    write_lines(data_dir / "utt2dur", [f"{name} {1 + i / 10}" for i, name in enumerate(IDS)])
    assert validate(data_dir, Checks()) == []
    write_lines(data_dir / "utt2dur", [f"{name} {1 + i / 5}" for i, name in enumerate(IDS)])
    problems = validate(data_dir, Checks())
    assert {(p.kind, p.id) for p in problems} == {("wrong duration", name) for name in IDS[1:]}
    assert "utt2dur says 1.2 s and the audio lasts 1.10 s" in problems[0].message


def test_archive_entries(data_dir: Path) -> None:
    ark = data_dir / "wav.ark"
    waves = {name: (RATE, (tone(1) * 32767).astype(np.int16)) for name in IDS}
    kaldiio.save_ark(str(ark), waves, scp=str(data_dir / "wav.scp"))
    assert validate(data_dir, Checks()) == []
    ark.write_bytes(ark.read_bytes()[:-100])
    problem = only(validate(data_dir, Checks()), "truncated audio")
    assert problem.id == "bob-3"


def test_commands_are_refused_unless_allowed(data_dir: Path, edit: Edit) -> None:
    audio = data_dir.parent.parent / "audio"
    edit(data_dir / "wav.scp", f"{audio}/bob-3.wav", f"cat {audio}/bob-3.wav |")
    assert only(validate(data_dir, Checks()), "command").id == "bob-3"
    assert validate(data_dir, Checks(allow_pipes=True)) == []


def test_several_processes_see_the_same(data_dir: Path) -> None:
    audio = data_dir.parent.parent / "audio"
    names = [f"bob-{number:03}" for number in range(120)]
    write_lines(data_dir / "wav.scp", [f"{name} {audio}/{name}.wav" for name in names])
    write_lines(data_dir / "text", [f"{name} a" for name in names])
    write_lines(data_dir / "utt2spk", [f"{name} {name[:6]}" for name in names])
    write_lines(data_dir / "spk2utt", [f"{s} {' '.join(names[i : i + 10])}" for i, s in TENS])
    for name in names:
        (audio / f"{name}.wav").symlink_to(audio / "anna-2.wav")
    (audio / "bob-077.wav").unlink()
    alone, together = (examine(data_dir, Checks(nj=nj)) for nj in (1, 2))
    assert alone.problems == together.problems
    assert alone.audio == together.audio and len(together.audio) == 119
    assert only(together.problems, "missing audio").line == 78


TENS = [(10 * number, f"bob-{number:02}") for number in range(12)]


def test_thousands_of_one_kind_are_counted(data_dir: Path) -> None:
    names = [f"bob-{number:05}" for number in range(3000)]
    write_lines(data_dir / "text", [f"{name}" for name in names])
    problems = validate(data_dir, Checks(audio=False))
    assert sum(p.kind == "empty transcript" for p in problems) == 3000
    lines = summary(problems, limit=7).splitlines()
    assert sum("the transcript is empty" in line for line in lines) == 7
    assert f"{data_dir / 'text'}: 2,993 more, 3,000 in all: empty transcript" in lines


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a directory"):
        validate(tmp_path / "none", Checks())
