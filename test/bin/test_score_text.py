"""`score_text` on files of several toolkits, and on a published system and its figures."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from audiorl.bin import cli, score_text

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path):
    monkeypatch.chdir(tmp_path)

    def run(arguments: str | list[str]) -> str:
        words = shlex.split(arguments) if isinstance(arguments, str) else arguments
        monkeypatch.setattr(sys, "argv", ["score_text", *words])
        cli.run(score_text.main)
        return capsys.readouterr().out

    return run


@pytest.fixture
def refused(call, capsys):
    def run(arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            call(arguments)
        assert stopped.value.code == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ") and told.count("\n") == 1
        return told

    return run


def write(**files: str) -> None:
    for name, text in files.items():
        Path(name.replace("_", ".")).write_text(text, encoding="utf-8")


EXAMPLE = {
    "ref_txt": "s_1 call Zephyra now\ns_2 two of three\n",
    "hyp_txt": "s_1 call zephyr now\ns_2 two three\n",
    "a_trn": "call zephyr now (s_1)\ntwo of (s_2)\n",
    "b_jsonl": '{"id": "s_2", "text": "2 of 3"}\n{"id": "s_1", "text": "Call Zephyra, now."}\n',
    "names_txt": "zephyra\n",
}


def test_the_commands_of_the_page_and_of_the_help(call) -> None:
    write(**EXAMPLE)
    page = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python -m audiorl.bin.score_text (.*)$", page, re.MULTILINE)
    assert len(commands) == 3
    plain, paired, keywords = map(call, commands)
    assert "ref.txt: kaldi, 2 utterances\nhyp.txt: kaldi, 2 utterances\n" in plain
    assert "%WER 33.33 [ 2 / 6, 0 ins, 1 del, 1 sub ] 95 % interval [33.33, 33.33]" in plain
    assert "%WER 33.33 [ 2 / 6, 0 ins, 1 del, 1 sub ]" in paired
    assert "%WER 0.00 [ 0 / 6, 0 ins, 0 del, 0 sub ]" in paired
    assert "b.jsonl lowers the pooled WER from 33.33 % to 0.00 %" in paired.replace("\n", " ")
    assert "%B-WER" in keywords and "EVAL:      S" in keywords
    assert {path.name for path in Path("scored").iterdir()} >= {"result.json", "per_utt.tsv"}
    assert Path("scored/hyp.trn").read_text() == "call zephyr now (s_1)\ntwo of (s_2)\n"
    helped = re.findall(r"^  python -m audiorl.bin.score_text", score_text.__doc__, re.MULTILINE)
    assert len(helped) == 3


def test_all_formats_give_the_same_numbers(call) -> None:
    write(
        ref="s_1 ba do ki\ns_2 lu\n",
        hyp_kaldi="s_2 lu me\ns_1 ba ki\n",
        hyp_trn="lu me (s_2)\nba ki (s_1)\n",
        hyp_jsonl='{"utt": "s_1", "pred": "ba ki"}\n{"utt": "s_2", "pred": "lu me"}\n',
        hyp_tsv="s_1\tba ki\ns_2\tlu me\n",
    )
    shown = [call(f"--ref ref --hyp hyp.{name}") for name in ("kaldi", "trn", "jsonl", "tsv")]
    rates = [re.findall("^%.*$", text, re.MULTILINE) for text in shown]
    assert all(rate == rates[0] for rate in rates)
    write(r="ba do ki\nlu\n", h="ba ki\nlu me\n")
    assert re.findall("^%.*$", call("--ref r --hyp h"), re.MULTILINE) == rates[0]
    assert rates[0][0].startswith("%WER 50.00 [ 2 / 4, 1 ins, 1 del, 0 sub ]")


def test_mandarin_is_counted_by_character(call) -> None:
    write(ref="a_1 有两个苹果\n", hyp="a_1 有 2 个苹果\n")
    shown = call("--ref ref --hyp hyp --normalizer mandarin")
    assert "%MER 0.00 [ 0 / 5" in shown and "%CER 0.00" in shown


def test_a_lone_side_is_refused(call, refused) -> None:
    write(ref="s_1 a\ns_2 b\n", few="s_1 a\n", more="s_1 a\ns_2 b\ns_3 c\n", two="s_1 a\ns_1 a\n")
    write(lines="a\nb\n", line="a\n", empty="s_1\ns_2\n")
    assert "few lacks 1 of the 2 utterances of ref (s_2)" in refused("--ref ref --hyp few")
    assert "more has 1 utterances that ref does not know (s_3)" in refused("--ref ref --hyp more")
    assert "two:2: s_1 stands on line 1 already" in refused("--ref ref --hyp two")
    assert "two:2: s_1 stands on line 1 already" in refused("--ref two --hyp ref")
    assert "both need ids" in refused("--ref ref --hyp lines")
    assert "line lacks 1 of the 2 utterances of lines (line 2)" in refused("--ref lines --hyp line")
    assert "empty has no words" in refused("--ref empty --hyp ref")
    assert "normalizer `x`" in refused("--ref ref --hyp ref --normalizer x")
    assert "unit `x`" in refused("--ref ref --hyp ref --unit x")
    assert "--format x" in refused("--ref ref --hyp ref --format x")
    assert "%WER 100.00 [ 2 / 2, 0 ins, 2 del, 0 sub ]" in call("--ref ref --hyp empty")


def test_published_figures_of_deep_biasing(shared_data, call, tmp_path: Path) -> None:
    """The rates are the published ones to the last digit, the kinds of a few errors differ: their
    alignment weighs a substitution 4 and a deletion or insertion 3, ours all alike."""
    folder = shared_data("text") / "deep_bias"
    lists, name = folder / "librispeech_test-clean.biasing_100.tsv", "test-clean.b1.rnnt_baseline"
    published = dict(
        re.findall(r"^(\S+): error_rate=([\d.]+)", (folder / f"{name}.result").read_text(), re.M)
    )
    files = ["--ref", str(lists), "--hyp", str(folder / f"{name}.tsv")]
    shown = call([*files, "--keywords", str(lists), "--out", str(tmp_path)])
    for metric in ("WER", "B-WER", "U-WER"):
        assert f"%{metric} {float(published[metric]):.2f} [" in shown
    assert "95 % interval [3.44, 3.87]" in shown
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["wer"]["rate"] == pytest.approx(float(published["WER"]) / 100, rel=1e-12)
    for side in ("b_wer", "u_wer"):
        rate = float(published[side.upper().replace("_", "-")]) / 100
        assert result["keywords"][side]["rate"] == pytest.approx(rate, rel=1e-12)
