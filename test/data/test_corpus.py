"""What data preparations share: joining, counting, carving, writing."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from audiorl.data.corpus import carve, claim, compare_counts, hold_out, join, readable, write_set
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.data.validate import Checks, validate
from audiorl.errors import UserError


def utterances(speakers: int, each: int) -> list[Utterance]:
    return [
        Utterance(f"s{s:02}-{u:02}", f"/audio/s{s:02}-{u:02}.wav", f"text {u}", f"s{s:02}")
        for s in range(speakers)
        for u in range(each)
    ]


def test_what_has_no_partner_is_counted_and_named(capsys: pytest.CaptureFixture) -> None:
    audio = {f"u{i}": Path(f"/a/u{i}.wav") for i in range(8)}
    texts = {"u0": " one   two ", "u1": "", "u7": "x", "u8": "lost"}
    kept = join("train", audio, texts, lambda name: "s")
    assert kept == [
        Utterance("u0", "/a/u0.wav", "one two", "s"),
        Utterance("u7", "/a/u7.wav", "x", "s"),
    ]
    assert capsys.readouterr().out.splitlines() == [
        "train: 5 recordings without a transcript left out: u2, u3, u4, u5, u6",
        "train: 1 transcripts without audio left out: u8",
        "train: 1 empty transcripts left out: u1",
        "train: kept 2 of 9 utterances",
    ]


def test_of_many_the_first_are_named(capsys: pytest.CaptureFixture) -> None:
    join("dev", {f"u{i:03}": Path("x") for i in range(120)}, {}, str)
    assert capsys.readouterr().out.splitlines()[0] == (
        "dev: 120 recordings without a transcript left out: "
        "u000, u001, u002, u003, u004 and 115 more"
    )


def test_counts_stand_beside_the_official_ones(capsys: pytest.CaptureFixture) -> None:
    parts = {"a": utterances(1, 3), "b": utterances(1, 2), "d": utterances(1, 9)}
    compare_counts(parts, {"a": 3, "b": 1200, "c": 5, "d": 8})
    rows = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows[:3] == ["a 3 3 complete", "b 2 1,200 partial", "c 0 5 missing"]
    assert rows[3].startswith("d 9 8 more than official")


def test_whole_voices_are_carved_out_where_there_are_enough(capsys: pytest.CaptureFixture) -> None:
    everyone = utterances(45, 4)
    sets, rest = carve(everyone, ["dev", "test"])
    assert [len(sets["dev"]), len(sets["test"])] == [12, 12]  # voices 0, 20, 40 and 1, 21, 41
    voices = [{u.speaker for u in part} for part in (*sets.values(), rest)]
    assert sum(map(len, voices)) == len(set().union(*voices)) == 45
    assert sorted([*sets["dev"], *sets["test"], *rest], key=lambda u: u.id) == everyone
    said = capsys.readouterr().out
    assert said.startswith("NOT OFFICIAL: dev 12, test 12 utterances.") and "voices" in said


def test_utterances_are_carved_out_of_few_voices(capsys: pytest.CaptureFixture) -> None:
    everyone = utterances(3, 30)
    sets, rest = carve(everyone, ["dev", "test"])
    assert len(sets["dev"]) == len(sets["test"]) == 5 and len(rest) == 80
    assert len({u.id for part in (*sets.values(), rest) for u in part}) == 90
    assert "3 voices are too few" in capsys.readouterr().out
    assert carve(list(reversed(everyone)), ["dev", "test"])[0] == sets


def test_voices_need_not_be_speakers() -> None:
    """LibriSpeech's speakers are readers in chapters: a reader must not be in two sets."""
    sets, rest = carve(utterances(60, 3), ["dev"], voice=lambda u: u.speaker[:2])  # 6 voices
    assert len(sets["dev"]) == 9 and len({u.speaker[:2] for u in rest}) == 6


def test_nothing_is_carved_when_nothing_is_missing(capsys: pytest.CaptureFixture) -> None:
    assert carve(utterances(2, 2), []) == ({}, utterances(2, 2))
    assert capsys.readouterr().out == ""


def test_too_little_to_carve_from() -> None:
    with pytest.raises(UserError, match=r"lacks dev, and its 19 utterances .* are too few"):
        carve(utterances(1, 19), ["dev"])


def test_a_set_is_a_valid_kaldi_directory(tmp_path: Path) -> None:
    everyone = utterances(3, 2)
    genders = {"s00": "f", "s01": "m", "s02": "f", "s77": "m"}
    write_set(tmp_path / "train", reversed(everyone), genders)
    assert read_utterances(tmp_path / "train") == everyone
    assert not validate(tmp_path / "train", Checks(audio=False))
    assert (tmp_path / "train" / "spk2gender").read_text() == "s00 f\ns01 m\ns02 f\n"


def test_tags_become_tables(tmp_path: Path) -> None:
    tagged = [replace(u, tags={"snr": f"{n}"}) for n, u in enumerate(utterances(1, 3))]
    tagged[1].tags["room"] = "hall"
    write_set(tmp_path / "train", tagged, {})
    assert read_utterances(tmp_path / "train") == tagged
    assert (tmp_path / "train" / "utt2room").read_text() == "s00-01 hall\n"


def test_an_unchanged_set_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "train"
    write_set(out, utterances(2, 2), {"s00": "f"})
    assert "1 speakers have no gender" in capsys.readouterr().out
    assert not (out / "spk2gender").exists()
    os.utime(out / "text", (0, 0))
    write_set(out, utterances(2, 2), {})
    assert capsys.readouterr().out == f"{out}: up to date, 4 utterances, 2 speakers\n"
    assert (out / "text").stat().st_mtime == 0
    write_set(out, utterances(2, 3), {})
    assert len(read_utterances(out)) == 6


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="would have no utterances"):
        write_set(tmp_path / "train", [], {})


def test_new_sentences_of_voices_that_stay(capsys: pytest.CaptureFixture) -> None:
    everyone = [*utterances(30, 40), Utterance("t-00", "/audio/t-00.wav", "text", "t")]
    sets, rest = hold_out(everyone[::-1], ["dev", "test"])
    assert [len(found) for found in sets.values()] == [60, 60]
    ids = [{u.id for u in part} for part in (*sets.values(), rest)]
    assert sum(map(len, ids)) == len(set().union(*ids)) == 1201
    voices = {u.speaker for u in rest}
    for found in sets.values():
        assert {u.speaker for u in found} == voices - {"t"}  # everybody but the one who says once
    assert sets == hold_out(everyone, ["dev", "test"])[0]
    said = "held out of the training data: dev 60, test 60 utterances, of its voices"
    assert capsys.readouterr().out.splitlines() == [said, said]


def test_sets_of_new_sentences_are_no_larger_than_needed() -> None:
    sets, rest = hold_out(utterances(100, 150), ["dev", "test"])
    assert [len(found) for found in sets.values()] == [500, 500]
    assert len({u.speaker for u in sets["dev"]}) == 100 and len(rest) == 14000


def test_where_everybody_says_little_no_voice_is_lost(capsys: pytest.CaptureFixture) -> None:
    sets, rest = hold_out(utterances(40, 1), ["dev", "test"])
    assert [len(found) for found in sets.values()] == [2, 2] and rest == utterances(40, 1)
    assert capsys.readouterr().out.startswith("NOT HELD OUT: dev 2, test 2 utterances are training")
    everyone = utterances(1, 19)
    assert hold_out(everyone, []) == ({}, everyone)
    with pytest.raises(UserError, match="19 utterances for training, too few to take dev, test"):
        hold_out(everyone, ["dev", "test"])


def test_rare_characters_stay_in_training() -> None:
    everyone = [
        replace(u, text=f"é {u.text}") if n < 2 else u for n, u in enumerate(utterances(2, 20))
    ]
    sets, rest = hold_out(everyone, ["dev", "test"])
    assert everyone[0] in rest and everyone[1] in rest
    assert readable(sets | {"train": rest}) == sets | {"train": rest}
    unique = [replace(u, text=chr(0x4E00 + n)) for n, u in enumerate(everyone)]
    assert [len(found) for found in hold_out(unique, ["dev", "test"])[0].values()] == [2, 2]


def test_what_training_lacks_is_left_out_and_named(capsys: pytest.CaptureFixture) -> None:
    first, second, third, fourth = utterances(1, 4)
    test = [
        replace(second, text="text q"),
        replace(third, text="Quit"),
        replace(fourth, text="ext"),
    ]
    assert readable({"train": [first], "test": test}) == {"train": [first], "test": test[2:]}
    assert capsys.readouterr().out == (
        "test: 2 utterances with characters that train lacks left out: s00-01 (q), s00-02 (Q i u)\n"
    )


def test_tags_become_files(tmp_path: Path) -> None:
    first, second = utterances(1, 2)
    tagged = [replace(first, tags={"pinyin": "yi1"}), second]
    write_set(tmp_path / "train", tagged, {})
    assert (tmp_path / "train" / "utt2pinyin").read_text() == "s00-00 yi1\n"
    assert read_utterances(tmp_path / "train")[0].tags == {"pinyin": "yi1"}


def test_a_folder_is_claimed_for_one_corpus(tmp_path: Path) -> None:
    claim(tmp_path / "data", {"version": 2, "seed": 1})
    claim(tmp_path / "data", {"version": 2, "seed": 1})
    with pytest.raises(UserError, match="made with seed 1, not 3; give another --out"):
        claim(tmp_path / "data", {"version": 2, "seed": 3})
    (tmp_path / "data" / "corpus.json").write_text("{")
    with pytest.raises(UserError, match=r"corpus.json is not whole .* remove"):
        claim(tmp_path / "data", {"version": 2, "seed": 1})
