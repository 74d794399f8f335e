"""Scoring of decoded sets: joined by id, summed, written, and refused when something is missing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from fake_systems import make_set, make_systems, write_table

from audiorl.config.schema import Config
from audiorl.errors import UserError
from audiorl.runtime.stamps import digest
from audiorl.score.asr import SystemScore, labels, score_systems
from audiorl.score.formatting import is_cased, is_punctuated
from audiorl.score.hypotheses import read_decoding
from audiorl.score.metrics import measures_of
from audiorl.score.results import write_system


def config(*test: str, no_speech: tuple[str, ...] = (), unit: str = "word") -> Config:
    cfg = Config()
    cfg.data.test, cfg.data.no_speech = [*test, *no_speech], list(no_speech)
    cfg.score.normalizer, cfg.score.unit, cfg.score.bootstrap_samples = "none", unit, 100
    return cfg


def score(root: Path, cfg: Config) -> SystemScore:
    return score_systems([root / "exp" / "a"], root / "dump", cfg, measures_of(cfg.task))[0]


REFS = {"s-1": "a b c d", "s-2": "e f", "t-3": "g h i j"}
HYPS = {"t-3": "g h i j", "s-1": "a x c", "s-2": "e f y"}  # another order on purpose


def test_rates_by_hand(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS)
    make_set(tmp_path, "two", {"u-1": "k l m n o p q r s t"}, {"u-1": "k l m n o p q r s t"})
    system = score(tmp_path, config("one", "two"))
    wer = system.sets["one"].summary["wer"]
    assert (wer["hits"], wer["substitutions"], wer["deletions"], wer["insertions"]) == (8, 1, 1, 1)
    assert wer["rate"] == pytest.approx(3 / 10)
    assert wer["sentence_error_rate"] == pytest.approx(2 / 3)
    assert wer["interval"][0] <= 0.3 <= wer["interval"][1]
    # a b c d / a x c: one substitution, one deletion; e f / e f y: one insertion.
    assert system.sets["one"].summary["cer"]["rate"] == pytest.approx(3 / 10)
    assert system.pooled.summary["wer"]["rate"] == pytest.approx(3 / 20)  # not (0.3 + 0) / 2
    assert system.pooled.summary["utterances"] == 4
    assert [u.utterance.id for u in system.sets["one"].utterances] == ["s-1", "s-2", "t-3"]
    assert [u.errors for u in system.sets["one"].utterances] == [2, 1, 0]


def test_empty_reference_and_hypothesis(tmp_path: Path) -> None:
    refs = {"s-1": "a b c d", "s-2": "", "s-3": "", "s-4": "e f"}
    make_set(tmp_path, "one", refs, {"s-1": "a b c d", "s-2": "x y", "s-3": "", "s-4": ""})
    result = score(tmp_path, config("one")).sets["one"]
    assert result.summary["wer"]["rate"] == pytest.approx(4 / 6)
    assert [u.counts["word"].rate for u in result.utterances] == [0, 2, 0, 1]
    assert result.summary["failures"]["empty"] == 1  # s-3 has nothing to say


def test_mandarin_units(tmp_path: Path) -> None:
    refs, hyps = {"s-1": "打开 wifi 灯"}, {"s-1": "打关 wife 灯"}
    make_set(tmp_path, "one", refs, hyps)
    summary = score(tmp_path, config("one", unit="mixed")).sets["one"].summary
    assert summary["metric"] == "MER"
    assert (summary["mer"]["units"], summary["mer"]["errors"]) == (4, 2)
    assert (summary["cer"]["units"], summary["cer"]["errors"]) == (7, 2)
    assert (summary["wer"]["units"], summary["wer"]["errors"]) == (3, 2)


def test_normaliser_of_the_config(tmp_path: Path) -> None:
    make_set(tmp_path, "one", {"s-1": "打开,灯"}, {"s-1": "打开灯。"})
    cfg = config("one", unit="char")
    assert score(tmp_path, cfg).pooled.summary["cer"]["errors"] == 2
    cfg.score.normalizer = "mandarin"
    assert score(tmp_path, cfg).pooled.summary["cer"]["errors"] == 0


def test_no_speech(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS)
    silent = {f"n-{i}": "" for i in range(4)}
    make_set(tmp_path, "silence", silent, silent | {"n-2": "thank you so much"})
    system = score(tmp_path, config("one", no_speech=("silence",)))
    summary = system.sets["silence"].summary
    assert (summary["non_empty"], summary["non_empty_rate"]) == (1, 0.25)
    assert summary["words_per_minute"] == pytest.approx(14 / 5 / 2)  # letters, 4 x 30 s
    assert "wer" not in summary
    assert system.pooled.summary["utterances"] == 3
    assert list(system.speech) == ["one", "pooled"]


SILENT = {f"n-{i}": "" for i in range(8)}
OUTPUTS = {
    "n-1": ". . . .",  # as a model that found the hole in a reward of words
    "n-2": "thank you.",
    "n-3": "um",
    "n-4": "[BLANK_AUDIO]",
    "n-5": "\u200b",
    "n-6": "♪",
}


def test_signs_count_as_output_where_nobody_speaks(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS)
    make_set(tmp_path, "silence", SILENT, SILENT | OUTPUTS)
    decoding = {"seconds": 9.0, "truncated": ["n-1", "n-7"]}
    folder = tmp_path / "exp/a/decode_greedy/silence"
    (folder / "decode.json").write_text(json.dumps(decoding))
    cfg = config("one", no_speech=("silence",))
    system = score(tmp_path, cfg)
    summary = system.sets["silence"].summary
    counts = {"non_empty": 6, "words_output": 3, "signs_alone": 3, "unfinished": 2}
    assert {name: summary[name] for name in counts} == counts
    assert {name: summary[f"{name}_rate"] for name in counts} == {
        name: n / 8 for name, n in counts.items()
    }
    assert write_system(system, "word", system)
    text = (folder / "result.txt").read_text()
    said = "outputs: 6 (75.0 %): 3 in words, 3 in signs alone; 2 without an end"
    assert said in text and "n-1  . . . ." in text
    cfg.score.count_annotations = False
    excused = score(tmp_path, cfg).sets["silence"].summary
    assert [excused[name] for name in counts] == [4, 2, 2, 2]


def test_annotations_are_no_transcript_of_a_set_without_speech(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS)
    make_set(tmp_path, "silence", SILENT | {"n-0": "[noise]"}, SILENT)
    assert score(tmp_path, config("one", no_speech=("silence",))).sets["silence"].summary
    make_set(tmp_path, "fillers", SILENT | {"n-0": "um"}, SILENT)
    cfg = config("one", no_speech=("fillers",))
    cfg.score.normalizer = "english"
    with pytest.raises(UserError, match="has a transcript for n-0, yet"):
        score(tmp_path, cfg)
    with pytest.raises(UserError, match="no reference words; set score"):
        cfg.data.test, cfg.data.no_speech = ["fillers"], []
        score(tmp_path, cfg)


def test_keywords_truncation_and_speed(tmp_path: Path) -> None:
    keywords = {"s-1": "b c;d", "t-3": "g"}
    make_set(tmp_path, "one", REFS, HYPS, utt2keywords=keywords)
    decoding = {"seconds": 9.0, "truncated": ["s-2"]}
    folder = tmp_path / "exp/a/decode_greedy/one"
    (folder / "decode.json").write_text(json.dumps(decoding))
    result = score(tmp_path, config("one")).sets["one"]
    keyword = result.summary["keywords"]
    assert (keyword["reference"], keyword["hypothesis"], keyword["hits"]) == (3, 1, 1)
    # Of a b c d / a x c: b, d are wrong, b c and d are its keywords; e f / e f y has none.
    sides = [[keyword[side][key] for key in ("errors", "units")] for side in ("b_wer", "u_wer")]
    assert sides == [[2, 4], [1, 6]]
    assert result.summary["rtf"] == pytest.approx(9 / 90)
    assert result.summary["failures"]["truncated"] == 1
    assert [u.flags for u in result.utterances] == [(), ("truncated",), ()]


@pytest.mark.parametrize(
    ("refs", "hyps", "message"),
    [
        (REFS, {"s-1": "a", "t-3": "g"}, r"one/text lacks 1 of the 3 utterances .*\(s-2\)"),
        (REFS, HYPS | {"z-9": "a"}, r"one/text has 1 utterances that .* does not know \(z-9\)"),
        ({"s-1": ""}, {"s-1": "a"}, "no reference words.*data.no_speech"),
    ],
)
def test_refused(tmp_path: Path, refs: dict, hyps: dict, message: str) -> None:
    make_set(tmp_path, "one", refs, hyps)
    with pytest.raises(UserError, match=message):
        score(tmp_path, config("one"))


def test_hypotheses_of_other_recordings_are_refused(tmp_path: Path) -> None:
    """Stage 2 wrote which recordings the set has, and decoding which it read."""
    make_set(tmp_path, "one", REFS, HYPS)
    hashes = tmp_path / "dump/one/reco2hash"
    hashes.write_text("s-1 1\ns-2 2\nt-3 3\n")
    decoding = {"inputs": {"one/reco2hash": digest(hashes)}}
    (tmp_path / "exp/a/decode_greedy/one/decode.json").write_text(json.dumps(decoding))
    score(tmp_path, config("one"))
    hashes.write_text("s-1 1\ns-2 7\nt-3 3\n")
    with pytest.raises(UserError, match=r"other recordings were decoded .* decode the set again"):
        score(tmp_path, config("one"))


def test_refused_files(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS)
    with pytest.raises(UserError, match=r"one/text has a transcript for s-1, s-2, t-3, yet"):
        score(tmp_path, config(no_speech=("one",)))
    folder = tmp_path / "exp/a/decode_greedy/one"
    (folder / "decode.json").write_text("{")
    with pytest.raises(UserError, match=r"decode.json is not whole"):
        score(tmp_path, config("one"))
    (folder / "text").write_text("s-1 a\ns-1 b\n")
    with pytest.raises(UserError, match=r"text:2.*s-1"):
        score(tmp_path, config("one"))
    (folder / "text").unlink()
    with pytest.raises(UserError, match=r"one/text does not exist; decode first"):
        score(tmp_path, config("one"))


def test_only_sets_without_speech(tmp_path: Path) -> None:
    make_set(tmp_path, "silence", {"n-1": ""}, {"n-1": ""})
    with pytest.raises(UserError, match=r"data.test names no set with speech"):
        score(tmp_path, config(no_speech=("silence",)))


def test_files(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS, utt2snr={"s-1": "5", "s-2": "10"})
    system = score(tmp_path, config("one"))
    assert write_system(system, "word", system)
    folder = tmp_path / "exp/a/decode_greedy/one"
    with open(folder / "per_utt.tsv", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert rows[0] == {
        "id": "s-1", "source": "one/s-1", "speaker": "s", "snr": "5", "duration": "30.000",
        "ref": "a b c d", "hyp": "a x c", "words": "4", "sub": "1", "del": "1", "ins": "0",
        "wer": "0.5000",
        "cer": "0.5000", "chars": "4", "char_errors": "2", "word_units": "4",
        "word_errors": "2", "output": "1", "words_output": "1", "signs_alone": "0",
        "output_words": "0.6",
        "keywords_said": "0", "keywords_heard": "0", "keyword_hits": "0",
        "biased_words": "0", "biased_errors": "0", "unbiased_words": "4", "unbiased_errors": "2",
        "cased": "0", "punctuated": "0", "formatted_words": "0", "formatted_errors": "0",
        "empty": "0", "looping": "0", "insertion_burst": "0", "other_language": "0",
        "truncated": "0",
    }  # fmt: skip
    assert sum(int(row["words"]) for row in rows) == 10
    assert (folder / "ref.trn").read_text().splitlines()[0] == "a b c d (s-s-1)"
    assert (folder / "hyp.trn").read_text().splitlines() == [
        "a x c (s-s-1)", "e f y (s-s-2)", "g h i j (t-t-3)",
    ]  # fmt: skip
    text = (folder / "result.txt").read_text()
    assert "%WER 30.00 [ 3 / 10, 1 ins, 1 del, 1 sub ]" in text
    assert "%SER 66.67" in text
    assert "     1  b -> x" in text
    assert "REF:  a b c d\nHYP:  a x c *\nEVAL:   S   D" in text
    assert "REF:  e f *\nHYP:  e f y\nEVAL:     I" in text
    assert "t-3" not in text  # no errors, not listed
    stored = json.loads((folder / "result.json").read_text())
    assert stored["wer"]["rate"] == pytest.approx(0.3)
    total = json.loads((folder.parent / "result.json").read_text())
    assert total["pooled"]["wer"] == stored["wer"]
    assert "against" not in total


def test_long_alignment_is_wrapped(tmp_path: Path) -> None:
    ref = " ".join(f"word{i}" for i in range(60)) + " 中文"
    make_set(tmp_path, "one", {"s-1": ref}, {"s-1": ref.replace("word30", "w").replace("文", "")})
    system = score(tmp_path, config("one"))
    write_system(system, "word", system)
    lines = (tmp_path / "exp/a/decode_greedy/one/result.txt").read_text().splitlines()
    shown = [line for line in lines if line.startswith(("REF:", "HYP:", "EVAL:"))]
    assert len(shown) >= 15
    assert max(map(len, shown)) <= 100
    assert "REF:  " + " ".join(f"word{i}" for i in range(15)) in shown
    # A Chinese character is two columns wide, so a blank of a terminal fills the shorter side.
    assert any(line.endswith("中文") for line in shown)
    assert any(line.endswith("中") for line in shown)


def test_compared_with_the_first(tmp_path: Path) -> None:
    cfg = make_systems(tmp_path, utterances=30, seconds=0.05)
    exps = [tmp_path / "exp" / name for name in ("sft", "grpo")]
    sft, grpo = score_systems(exps, tmp_path / "dump", cfg, measures_of(cfg.task))
    assert sft.against == {}
    assert list(grpo.against) == ["test_clean", "test_noisy", "pooled"]
    c = grpo.against["pooled"]
    before, after = (s.pooled.summary["wer"]["rate"] for s in (sft, grpo))
    assert c.difference == pytest.approx(after - before)
    assert c.significant
    assert all(write_system(s, "word", sft) for s in (sft, grpo))
    stored = json.loads((exps[1] / "decode_greedy" / "result.json").read_text())
    assert stored["against"]["system"] == "sft"
    assert stored["against"]["sets"]["pooled"]["interval"] == list(c.interval)
    assert stored["against"]["sets"]["pooled"]["significant"] is True


def test_second_run_writes_nothing(tmp_path: Path) -> None:
    make_set(tmp_path, "one", REFS, HYPS)
    folder = tmp_path / "exp/a/decode_greedy"
    cfg = config("one")

    def run() -> tuple[bool, dict[Path, int]]:
        system = score(tmp_path, cfg)
        changed = write_system(system, "word", system)
        return changed, {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}

    changed, times = run()
    assert changed
    assert run() == (False, times)
    (folder / "one" / "hyp.trn").unlink()  # a lost file comes back
    assert run()[0]
    write_table(folder / "one" / "text", HYPS | {"s-1": "a b c d"})
    changed, later = run()
    assert changed
    assert later[folder / "result.json"] != times[folder / "result.json"]
    cfg.score.seed = 7
    assert run()[0]
    (folder / "result.json").write_text("[]")  # not ours
    assert run()[0]
    assert not run()[0]


def test_labels() -> None:
    assert labels([Path("exp/sft"), Path("exp/grpo/")]) == ["sft", "grpo"]
    assert labels([Path("a/grpo"), Path("b/grpo")]) == ["a/grpo", "b/grpo"]
    assert labels([Path("exp/sft"), Path("exp/table/grpo/seed1")]) == ["sft", "grpo/seed1"]
    assert labels([Path("t/a/seed1"), Path("t/a/seed2")]) == ["a/seed1", "a/seed2"]
    assert labels([Path("t/a/seed1"), Path("u/a/seed1")]) == ["t/a/seed1", "u/a/seed1"]
    assert labels([Path("exp/sft"), Path("exp/sft")]) == ["exp/sft", "exp/sft"]


@pytest.mark.parametrize(
    "content", [b"[]", b"{", b"\xff", b'{"truncated": 3}', b'{"seconds": "1"}', b"[" * 99999]
)
def test_a_broken_decode_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "decode.json").write_bytes(content)
    with pytest.raises(UserError, match=r"decode\.json is not whole .*; remove it and decode"):
        read_decoding(tmp_path / "decode.json")


def test_conditions_of_a_recording_are_one_in_intervals(tmp_path: Path) -> None:
    sources = {uid: f"r-{uid}" for uid in REFS}
    for name in ("clean", "noisy"):
        make_set(tmp_path, name, REFS, HYPS, utt2source=sources)
    system = score(tmp_path, config("clean", "noisy"))
    alone, pooled = (one.summary["wer"] for one in (system.sets["clean"], system.pooled))
    assert pooled["interval"] == alone["interval"]
    assert (pooled["errors"], pooled["sentence_error_rate"]) == (6, alone["sentence_error_rate"])
    assert {u.source for u in system.pooled.utterances} == set(sources.values())


def test_case_and_punctuation_as_written(tmp_path: Path) -> None:
    refs = {
        "s-1": "He said, “Come to Oslo.”",
        "s-2": "ALL IN CAPITALS",  # of a corpus without case
        "s-3": "Is Lima far?",
        "s-4": "Yes, it is.",
    }
    hyps = {
        "s-1": "He said come to Oslo.",
        "s-2": "All in capitals.",
        "s-3": "is lima far",
        "s-4": "Yes, it is.",
    }
    make_set(tmp_path, "one", refs, hyps)
    cfg = config("one")
    cfg.score.normalizer = "english"
    system = score(tmp_path, cfg)
    result = system.sets["one"].summary
    assert result["wer"]["errors"] == 0
    written = result["formatting"]
    # said, -> said; “Come -> come; Oslo.” -> Oslo.; Is, Lima and far?
    assert (written["wer"]["errors"], written["wer"]["units"]) == (6, 11)
    assert (written["cased"], written["punctuated"]) == (3 / 4, 3 / 4)
    write_system(system, "word", system)
    text = (system.folder / "one" / "result.txt").read_text()
    assert "as written (case and punctuation count): %WER 54.55 [ 6 / 11" in text
    assert "75.0 % begin with a capital, 75.0 % end like a sentence" in text


@pytest.mark.parametrize(
    ("text", "cased", "punctuated"),
    [
        ("", False, False),
        ("...", False, True),
        ("“Why not?”", True, True),
        ("I", False, False),  # could be of a text in capitals
        ("42 men.", False, True),
        ("3 Men (of four.)", True, True),
        ("HELLO.", False, True),
        ("今天很好。", False, True),
        ("Élan", True, False),
    ],
)
def test_signs_of_formatting(text: str, cased: bool, punctuated: bool) -> None:
    assert (is_cased(text), is_punctuated(text)) == (cased, punctuated)
