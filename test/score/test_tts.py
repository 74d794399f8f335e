"""Scoring of synthesis: the judge's transcripts as hypotheses, and what stands beside them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_voices import SETS, make_voices

from audiorl.bin import cli, compare, report, score
from audiorl.config import Config, dump_config
from audiorl.errors import UserError
from audiorl.infer import judging as listen
from audiorl.report.tables import sound_tables, systems_table
from audiorl.score import tts
from audiorl.score.asr import SystemScore, score_systems
from audiorl.score.metrics import measures_of, metrics_of, read_columns
from audiorl.score.results import FIELDS, write_system
from audiorl.score.tts import Judged, columns, read_judged

RATES = {"base": 0.4, "grpo": 0.1, "both": 0.05}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    root = tmp_path_factory.mktemp("voices")
    return root, make_voices(root, RATES, utterances=20)


@pytest.fixture(scope="module")
def systems(recipe: tuple[Path, Config]) -> list[SystemScore]:
    root, config = recipe
    exps = [root / "exp" / name for name in (*RATES, "natural")]
    found = score_systems(exps, root / "dump", config, measures_of(config.task))
    for system in found:
        write_system(system, config.score.unit, found[0])
    return found


def test_the_transcript_is_the_hypothesis(systems: list[SystemScore]) -> None:
    for system in systems:
        for name in SETS:
            judged = read_judged(system.folder / name)
            for u in system.sets[name].utterances:
                assert u.hyp == judged[u.utterance.id].heard
                assert u.ref == u.utterance.text
    base, grpo = systems[0].pooled.summary, systems[1].pooled.summary
    assert base["wer"]["rate"] > grpo["wer"]["rate"] + 0.1
    assert systems[1].against["pooled"].significant
    assert base["failures"]["truncated"] == 2  # of decode.json: the stop token never came


def test_references_are_no_systems(systems: list[SystemScore]) -> None:
    assert [s.is_reference for s in systems] == [False, False, False, True]


@pytest.mark.parametrize("name", SETS)
def test_numbers_are_those_of_the_utterances(systems: list[SystemScore], name: str) -> None:
    """Recomputed from judged.json, one by one."""
    for system in systems:
        found = read_judged(system.folder / name)
        texts = {u.utterance.id: u.ref.replace(" ", "") for u in system.sets[name].utterances}
        sound = {n: r.value for n, r in system.sets[name].sound.items()}
        speech = sum(one.speech_seconds for one in found.values())
        natural = sum(one.natural_seconds for one in found.values())
        assert sound["rate"] == pytest.approx(sum(map(len, texts.values())) / speech)
        assert sound["tempo"] == pytest.approx(100 * natural / speech)
        for metric, factor in (("similarity", 100), ("f0", 1), ("f0_spread", 1), ("hnr", 1)):
            mean = np.mean([getattr(one, metric) for one in found.values()])
            assert sound[metric] == pytest.approx(factor * mean)
        assert sound["unterminated"] == pytest.approx(5 if system.label == "base" else 0)
        stated = system.sets[name].summary["sound"]
        assert stated["hnr"]["value"] == pytest.approx(sound["hnr"])
        low, high = stated["similarity"]["interval"]
        assert low <= stated["similarity"]["value"] <= high
    assert systems[0].sets[name].sound["tempo"].value < 80  # it was made to speak slowly
    assert not systems[3].sets[name].sound["distance"].known
    assert "distance" not in systems[3].sets[name].summary["sound"]


def test_metrics_of_tables_are_the_same(recipe, systems: list[SystemScore]) -> None:
    """What run_table sums from per_utt.tsv is what result.json says."""
    config = recipe[1]
    assert {"wer", "cer", "similarity", "tempo", "looping"} <= metrics_of(
        config, measures_of(config.task), "test"
    ).keys()
    for name, metric in tts.METRICS.items():
        for system in systems[:2]:
            path = system.folder / "test" / "per_utt.tsv"
            above, below = (
                read_columns(path, side)[2].sum() for side in (metric.above, metric.below)
            )
            stated = json.loads((system.folder / "test" / "result.json").read_text())["sound"]
            if not below:  # nobody has prompts, and there are no instruments
                assert name not in stated
                continue
            assert metric.factor * above / below == pytest.approx(stated[name]["value"], rel=1e-4)


def test_character_errors() -> None:
    counts = tts.character_errors(["Ten cats.", "a b"], ["10 cats", "a c"], "english")
    assert (counts.errors, counts.units) == (1, 8)


def test_recognition_has_none_of_this() -> None:
    config = Config()
    assert not tts.METRICS.keys() & metrics_of(config, measures_of(config.task), "test").keys()
    assert not set(tts.SOUND_COLUMNS) & set(FIELDS)


def test_what_is_not_known_does_not_count() -> None:
    nothing = columns(Judged("", 0.0, 0.0), chars=7)
    assert set(nothing) == set(tts.SOUND_COLUMNS)
    assert {name: value for name, value in nothing.items() if value} == {"spoken_chars": 7}
    known = columns(Judged("", 2.0, 1.0, 1.5, similarity=0.0, f0=100.0), chars=7)
    assert (known["natural_seconds"], known["compared_seconds"]) == (1.5, 1.0)
    assert (known["similarity"], known["similarity_known"]) == (0.0, 1)  # 0 is known, too
    assert (known["hnr"], known["hnr_known"]) == (0.0, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"utterances": {"a": {"heard": 1, "x": 2}}}'])
def test_a_broken_judged_json_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "judged.json").write_text(text)
    with pytest.raises(UserError, match=r"judged.json is not whole .* hear the set again"):
        read_judged(tmp_path)


def test_a_set_that_nobody_heard(recipe, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"judged\.json cannot be read \(No such file.*let the judge"
    ):
        read_judged(tmp_path)


def test_systems_table(systems: list[SystemScore]) -> None:
    table = systems_table(systems, "word")
    sets = [*SETS, "pooled"]
    assert table.header == ["system", *(f"{n} {m} %" for n in sets for m in ("WER", "SS"))]
    assert [row[0] for row in table.rows] == ["natural", "base", "grpo", "both"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["grpo"][4].endswith("*") and rows["grpo"][5].endswith("*")
    assert not any("*" in cell for cell in (*rows["base"], *rows["natural"]))
    rate = 100 * systems[2].pooled.summary["wer"]["rate"]
    assert rows["both"][4] == f"{rate:.2f}*"


def test_sound_tables(systems: list[SystemScore]) -> None:
    tables = sound_tables(systems)
    assert [t.title for t in tables] == [f"Speech: {name}" for name in (*SETS, "pooled")]
    assert [bool(t.note) for t in tables] == [True, False, False]
    for table in tables:
        assert all(len(row) == len(table.header) for row in table.rows)
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in tables[0].rows}
    assert list(rows) == ["natural", "base", "grpo", "both"]
    assert rows["natural"]["distance dB"] == "-"
    assert rows["base"]["- base"] == "" and rows["base"]["unterminated %"] == "5.0"
    cell = r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]\*?"
    assert re.fullmatch(cell, rows["grpo"]["- base"])
    assert rows["grpo"]["utts"] == "20"
    text = (systems[0].folder / "test" / "result.txt").read_text()
    assert re.search(r"similarity %: \d+\.\d\d \[\d+\.\d\d, \d+\.\d\d\]", text)


# Commands


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    config = make_voices(tmp_path, {"base": 0.4, "grpo": 0.1}, utterances=6)
    (tmp_path / "c.yaml").write_text(dump_config(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(monkeypatch: pytest.MonkeyPatch, command, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    cli.run(command.main)


def test_score_lets_the_judge_hear(folder: Path, monkeypatch, capsys) -> None:
    """The one that is named, or the one beside the experiments."""
    called = []
    monkeypatch.setattr(
        listen, "judge_systems", lambda judge, exps, *_: called.append((str(judge), len(exps)))
    )
    options = ["--config", "c.yaml", "--dump", "dump", "exp/base", "exp/grpo", "exp/natural"]
    call(monkeypatch, score, *options)
    call(monkeypatch, score, *options, "--judge", "other/sft")
    assert called == [("exp/judge", 3), ("other/sft", 3)]
    shown = capsys.readouterr().out
    assert "exp/natural/decode_greedy: scored\n" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "natural - base" not in shown  # a reference is no system
    assert re.search(r"^natural +\d", shown, re.MULTILINE)


def test_compare(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(listen, "judge_systems", lambda *_: None)
    call(monkeypatch, score, "--config", "c.yaml", "--dump", "dump", "exp/base", "exp/grpo")
    call(monkeypatch, compare, "exp/base", "exp/grpo")
    assert "grpo lowers the pooled WER" in capsys.readouterr().out
    page = (folder / "exp/grpo/compare_base/report.html").read_text()
    assert "The same sentence" in page and "similarity %" in page
    assert "audio of ann-test-000 by grpo" in page or "by grpo" in page


def test_report(folder: Path, monkeypatch, capsys) -> None:
    options = ["--config", "c.yaml", "--dump", "dump", "exp/base", "exp/grpo", "exp/natural"]
    call(monkeypatch, report, *options, "--out", "exp/grpo")
    assert capsys.readouterr().out == "exp/grpo/report.html: written\n"
    text = (folder / "exp/grpo/RESULTS.md").read_text()
    assert text.index("### WER and speaker similarity") < text.index("### WER before and after")
    assert "natural - base" not in text
