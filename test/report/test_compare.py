"""Two systems side by side: which utterances change and how, by condition, on screen and page."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from fake_systems import make_set, make_systems, write_table

from audiorl.bin import cli, compare, score
from audiorl.config import Config, dump_config
from audiorl.report.breakdown import (
    breakdown_tables,
    changes_table,
    find_changes,
    kinds_table,
    no_speech_table,
)
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.metrics import measures_of

REFS = {
    "s-1": "call zora now",
    "s-2": "turn on the light",
    "t-3": "stop",
    "t-4": "play new york please",
    "t-5": "meet me at noon",
}
BEFORE = {
    "s-1": "call nora now",  # the keyword is missed
    "s-2": "turn on the light zora",  # and made up
    "t-3": "stop stop stop stop stop",  # a loop
    "t-4": "play new york please",
    "t-5": "meet me at moon",
}
AFTER = {
    "s-1": "call zora now",
    "s-2": "turn the light",
    "t-3": "stop",
    "t-4": "play",
    "t-5": "meet me at none",
}
SILENCE = {"n-1": "", "n-2": "", "n-3": ""}
TAGS = {
    "utt2snr": {"s-1": "5", "s-2": "5", "t-3": "10", "t-4": "clean"},
    "utt2keywords": {"s-1": "zora", "t-4": "new york"},
    "utt2dur": {"s-1": "1.0", "s-2": "2.0", "t-3": "1.0", "t-4": "2.0", "t-5": "2.0"},
}


def systems_by_hand(root: Path) -> tuple[SystemScore, SystemScore]:
    """Two systems on a set with speech and one without."""
    make_set(root, "one", REFS, BEFORE, **TAGS)
    make_set(root, "silence", SILENCE, {"n-1": "a b", "n-2": "c", "n-3": ""})
    for name, hyps in (("one", AFTER), ("silence", SILENCE | {"n-3": "d"})):
        folder = root / "exp" / "b" / "decode_greedy" / name
        folder.mkdir(parents=True)
        write_table(folder / "text", hyps)
    cfg = Config()
    cfg.data.test, cfg.data.no_speech = ["one", "silence"], ["silence"]
    cfg.score.normalizer, cfg.score.bootstrap_samples = "none", 100
    first, second = score_systems(
        [root / "exp" / name for name in "ab"], root / "dump", cfg, measures_of(cfg.task)
    )
    return first, second


def test_how_utterances_change(tmp_path: Path) -> None:
    changes = find_changes(*systems_by_hand(tmp_path))
    assert [(c.before.utterance.id, c.errors, c.how) for c in changes] == [
        ("t-3", -4, ("insertions -4", "no longer looping", "no longer insertion burst")),
        ("s-1", -1, ("substitutions -1", "keyword found: zora")),
        ("s-2", 0, ("deletions +1", "insertions -1", "keyword no longer made up: zora")),
        ("t-5", 0, ("other words, as many errors",)),
        ("t-4", 3, ("deletions +3", "keyword lost: new york")),
    ]
    assert changes_table(changes).rows[0] == [
        "t-3", "one", "4 → 0", "insertions -4; no longer looping; no longer insertion burst",
    ]  # fmt: skip


def test_kinds(tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in kinds_table(*systems_by_hand(tmp_path)).rows}
    assert rows == {
        "substitutions": ["2", "1", "-1", "1", "0"],
        "deletions": ["0", "4", "+4", "0", "2"],
        "insertions": ["5", "0", "-5", "2", "0"],
        "looping": ["1", "0", "-1", "1", "0"],
        "insertion burst": ["1", "0", "-1", "1", "0"],
        "keywords recognised": ["1", "1", "+0", "1", "1"],
        "keywords missed": ["1", "1", "+0", "1", "1"],
        "keywords made up": ["1", "0", "-1", "1", "0"],
    }


def test_where_nobody_speaks(tmp_path: Path) -> None:
    (row,) = no_speech_table(*systems_by_hand(tmp_path)).rows
    # 3 letters in 90 s against 1: fifths of a word.
    shares = ["66.7", "33.3", "66.7", "33.3", "0.0", "0.0", "0.0", "0.0"]
    assert row[:11] == ["silence", *shares, "0.4", "0.1"]
    assert row[11].startswith("-0.3 [")


def test_by_condition(tmp_path: Path) -> None:
    by_length, by_snr, by_speaker = breakdown_tables(*systems_by_hand(tmp_path))
    assert by_length.title == "WER by length (s)"
    rows = [row[:4] + row[5:] for row in by_length.rows]
    assert rows == [
        ["1", "2", "125.00", "0.00", "2", "0"],  # 5 and 0 errors in 4 words
        ["2", "3", "16.67", "41.67", "0", "1"],  # 2 and 5 in 12
    ]
    assert [row[:2] for row in by_snr.rows] == [
        ["5", "2"], ["10", "1"], ["clean", "1"], ["unknown", "1"],
    ]  # fmt: skip
    assert [row[:4] for row in by_speaker.rows] == [
        ["s", "2", "28.57", "14.29"],
        ["t", "3", "55.56", "44.44"],
    ]
    assert by_length.rows[0][4].startswith("-125.00 [")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder with two decoded and scored systems."""
    cfg = make_systems(tmp_path, utterances=40, seconds=0.05)
    (tmp_path / "c.yaml").write_text(dump_config(cfg))
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, score, "--config", "c.yaml", "--dump", "dump", "exp/sft", "exp/grpo")
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, command, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    cli.run(command.main)


def test_the_command(recipe: Path, monkeypatch, capsys) -> None:
    capsys.readouterr()
    call(monkeypatch, compare, "exp/sft", "exp/grpo")
    shown = capsys.readouterr().out
    assert shown.startswith("grpo lowers the pooled WER from ")
    assert max(map(len, shown.splitlines())) <= 100
    for title in (
        "WER before and after", "Paired comparison with sft", "What changes",
        "Output without speech", "WER by length (s)", "WER by SNR (dB)", "WER by speaker",
        "Changed most for the better (8 of ", "Changed most for the worse (",
    ):  # fmt: skip
        assert f"\n{title}" in shown
    page = (recipe / "exp/grpo/compare_sft/report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.endswith("</html>\n")
    assert "<h1>grpo compared with sft</h1>" in page
    assert "http" not in page and page.count("<script") == 1
    assert page.count("<audio") >= 5
    for link in ("result", "tables", "changes", "conditions", "better", "all"):
        assert f'href="#{link}"' in page and f'id="{link}"' in page
    # Every changed utterance is on the page, and nothing else was written.
    changed = int(shown.partition(" utterances have another hypothesis")[0].split()[-3])
    listed = page.partition('id="all"')[2]
    assert listed.count('scope="row"') == changed > 20
    images = {path.name for path in (recipe / "exp/grpo/compare_sft/images").iterdir()}
    assert images == {"by_snr.png", "by_length.png"}


def test_it_is_about_what_was_scored(recipe: Path, monkeypatch, capsys) -> None:
    def refused(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            call(monkeypatch, compare, *arguments)
        return capsys.readouterr().err

    path = recipe / "exp/grpo/decode_greedy/test_noisy/text"
    before = path.read_text()
    path.write_text(before.replace(" ", " well ", 1))
    assert "has changed since it was scored; score again" in refused("exp/sft", "exp/grpo")
    path.write_text(before)
    again = ["--config", "c.yaml", "--dump", "dump", "--set", "score.unit=char", "exp/grpo"]
    call(monkeypatch, score, *again)
    assert "were scored with different settings" in refused("exp/sft", "exp/grpo")
    assert "score exp/grpo/decode_beam (stage 7)" in refused(
        "exp/grpo", "exp/grpo", "--decode", "beam"
    )
    (recipe / "exp/grpo/decode_greedy/result.json").write_text("[]")
    assert "result.json is not whole" in refused("exp/sft", "exp/grpo")


def test_sets_that_only_one_has_are_named(recipe: Path, monkeypatch, capsys) -> None:
    fewer = ["--set", "data.test=[test_clean]", "--set", "data.no_speech=[]"]
    call(monkeypatch, score, "--config", "c.yaml", "--dump", "dump", *fewer, "exp/grpo")
    call(monkeypatch, compare, "exp/sft", "exp/grpo")
    shown = capsys.readouterr().out
    assert "Only one of them has test_noisy: left out." in shown
    assert "Only one of them has test_nospeech: left out." in shown
    assert "of 40 utterances have another hypothesis" in shown.replace("\n", " ")
    none = ["--set", "data.test=[test_noisy]", "--set", "data.no_speech=[]"]
    call(monkeypatch, score, "--config", "c.yaml", "--dump", "dump", *none, "exp/sft")
    with pytest.raises(SystemExit):
        call(monkeypatch, compare, "exp/sft", "exp/grpo")
    assert "have no test set with speech in common" in capsys.readouterr().err
