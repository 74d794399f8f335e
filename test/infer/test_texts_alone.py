"""A test set of texts alone goes through stages 6 to 8, beside one with recordings."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import sentences, write_set
from tiny_codecs import native_codec
from tiny_speech import tiny_judge, tiny_speech_config, tiny_speech_lm

from audiorl.bin import cli, references, report, score, synthesise
from audiorl.config import dump_config
from audiorl.data.tables import read_table
from audiorl.models.codec import codec_info
from audiorl.score.tts import read_judged

SETS = ("test", "texts")
SYSTEMS = ("exp/sft", "exp/grpo")
REFERENCES = ("exp/natural", "exp/resynthesis")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's folder with untrained models, behind stage 5."""
    root = tmp_path_factory.mktemp("recipe")
    codec = native_codec()
    codec.save(root / "exp" / "codec" / "model")
    for seed, system in enumerate(SYSTEMS):
        model = tiny_speech_lm(seed=seed, codec=codec_info(codec))
        model.save(root / system / "model")
    tiny_judge().save(root / "exp" / "judge" / "model")
    write_set(root / "dump" / "train", sentences(6, seed=1))
    for seed, name in enumerate(SETS):
        write_set(root / "dump" / name, sentences(6, seed=2 + seed, longest=3))
    for file in ("wav.scp", "utt2dur"):
        (root / "dump" / "texts" / file).unlink()
    keys = {"data.test": list(SETS), "score.bootstrap_samples": 100}
    (root / "c.yaml").write_text(dump_config(tiny_speech_config(keys)))
    return root


@pytest.fixture
def call(recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> Callable[..., str]:
    """Runs an entry point in the recipe's folder; returns what it prints."""
    monkeypatch.chdir(recipe)

    def run(command, *arguments: str) -> str:
        options = ["--config", "c.yaml", "--dump", "dump"]
        monkeypatch.setattr(sys, "argv", [command.__name__, *options, *arguments])
        cli.run(command.main)
        return capsys.readouterr().out

    return run


def test_it_is_spoken_judged_scored_and_shown(call, recipe: Path) -> None:
    folders = [recipe / system / "decode_greedy" / name for system in SYSTEMS for name in SETS]
    call(synthesise, "--codec", "exp/codec", *SYSTEMS)
    made = dict(zip(("--natural", "--resynthesis"), REFERENCES, strict=True))
    told = call(references, "--codec", "exp/codec", *(w for pair in made.items() for w in pair))
    assert "no references of texts: texts alone\n" in told
    left_out = "exp/natural, exp/resynthesis: left out, for texts has no recordings\n"
    shown = call(score, "--judge", "exp/judge", *SYSTEMS, *REFERENCES)
    assert shown.startswith(left_out)
    for folder in folders:
        wanted = list(read_table(recipe / "dump" / folder.name / "text"))
        assert list(read_table(folder / "wav.scp")) == wanted
        judged = read_judged(folder)
        assert list(judged) == wanted
        # Voices are known from the train set; a tempo needs the recording of the same sentence.
        assert all(one.similarity is not None for one in judged.values() if one.seconds > 0.1)
        known = [one.natural_seconds is not None for one in judged.values()]
        assert known == [folder.name == "test"] * 6
        result = json.loads((folder / "result.json").read_text())
        assert result["utterances"] == 6
        assert ("tempo" in result["sound"]) == (folder.name == "test")
    assert any(line.startswith("texts ") for line in shown.splitlines())
    shown = call(report, *SYSTEMS, *REFERENCES, "--out", "exp/grpo")
    assert shown == f"{left_out}exp/grpo/report.html: written\n"
    results = (recipe / "exp" / "grpo" / "RESULTS.md").read_text()
    assert "### Speech: texts" in results
    assert (recipe / "exp" / "grpo" / "report.html").read_text().count("<audio") > 3


def test_where_all_sets_have_recordings_the_references_stay(call, recipe: Path) -> None:
    """The references were made, and are scored on what they have."""
    test = ["--set", "data.test=[test]"]
    call(synthesise, *test, "--codec", "exp/codec", *SYSTEMS)
    both = ["--natural", "exp/natural", "--resynthesis", "exp/resynthesis"]
    assert "texts alone" not in call(references, *test, "--codec", "exp/codec", *both)
    shown = call(score, *test, "--judge", "exp/judge", *SYSTEMS, *REFERENCES)
    assert "left out" not in shown
    rows = [line.split()[0] for line in shown.splitlines() if line]
    assert {"natural", "resynthesis", "sft", "grpo"} <= set(rows)
