"""egs/whisper_short: speech in conditions, recordings without speech, and all stages."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from recipe_runs import EGS, check_outputs, run, run_recipe, settings
from tiny_whisper import save_whisper

from audiorl.config.matrix import load_matrix
from audiorl.data.audio import read_audio
from audiorl.data.utterance import read_utterances

LOCAL = EGS / "whisper_short" / "local"
READERS = {"19": 7, "26": 4, "27": 9}  # reader -> utterances
FEW = {
    "num_threads": 1,
    "rl_data.probe_utterances": 8,
    "rl.max_steps": 2,
    "rl.num_prompts": 2,
    "rl.num_generations": 3,
    "rl.max_completion_length": 8,
    "rl.eval_steps": 2,
    "rl.eval_utterances": 2,
    "decode.max_completion_length": 8,
    "decode.window_seconds": 13,
    "score.bootstrap_samples": 100,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three readers of tones, in LibriSpeech's layout."""
    made = tmp_path_factory.mktemp("corpus") / "LibriSpeech"
    rng = np.random.default_rng(1)
    for reader, count in READERS.items():
        folder = made / "train-clean-100" / reader / "1"
        folder.mkdir(parents=True)
        names = [f"{reader}-1-{number:04}" for number in range(count)]
        for name in names:
            tone = np.sin(np.arange(12000 + rng.integers(8000)) * rng.uniform(0.02, 0.2))
            soundfile.write(folder / f"{name}.flac", 0.2 * tone, 16000)
        lines = [f"{name} WORDS OF {name}\n" for name in names]
        (folder / f"{reader}-1.trans.txt").write_text("".join(lines))
    return made


def test_readers_noises_and_sounds_of_test_are_nowhere_else(corpus: Path, tmp_path: Path) -> None:
    said = run(LOCAL / "data.sh", "--corpus", corpus, "--out", tmp_path).stdout
    assert "NOT OFFICIAL: train is what readers 27 say" in said
    sets = {folder.name: read_utterances(folder) for folder in tmp_path.iterdir()
            if (folder / "text").exists()}  # fmt: skip
    assert len(sets) == 3 * 5 + 3
    held_out = {name: found for name, found in sets.items() if name.startswith("test")}
    seen = {name: found for name, found in sets.items() if name not in held_out}
    for of in (lambda u: u.id.rpartition("-1-")[0][-2:], lambda u: u.tags.get("noise", "")):
        ours, theirs = ({of(u) for s in part.values() for u in s} for part in (held_out, seen))
        assert ours & theirs <= {"", "room", "wn", "nk"}
    assert [len(sets[name]) for name in ("train", "dev", "test")] == [9, 4, 7]
    assert len(sets["train_noisy"]) == 27 and len(sets["test_nospeech"]) == 60
    assert all(not u.text for u in sets["dev_nospeech"])
    mixed = {u.id for u in sets["dev_mixed"]}
    assert len(mixed) == len(sets["dev_noisy"]) + 60
    assert not mixed & {u.id for name in ("train_nospeech", "test_nospeech") for u in sets[name]}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    assert "up to date" in run(LOCAL / "data.sh", "--corpus", corpus, "--out", tmp_path).stdout
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")} == before


@pytest.mark.parametrize("snr", [10, 5])
@pytest.mark.parametrize("kind", ["white", "hum", "music", "clicks", "siren", "babble"])
def test_noise_is_as_loud_as_said(
    kind: str, snr: int, monkeypatch: pytest.MonkeyPatch, corpus: Path
) -> None:
    monkeypatch.setattr(sys, "path", [str(EGS / "mini_asr" / "local"), str(LOCAL), *sys.path])
    import acoustics
    import sound

    speech = 0.1 * np.sin(np.arange(32000) * 0.1).astype(np.float32)
    talkers = [np.random.default_rng(k).standard_normal(9000).astype(np.float32) for k in (1, 2)]
    mixed = sound.noisy(speech, kind, snr, talkers, (1, 2))
    ratio = acoustics.active_power(speech) / acoustics.power(mixed - speech)
    assert 10 * np.log10(ratio) == pytest.approx(snr, abs=0.1)
    assert np.array_equal(mixed, sound.noisy(speech, kind, snr, talkers, (1, 2)))


def test_all_stages(corpus: Path, tmp_path: Path) -> None:
    """A Whisper of random weights, whose window holds the longest sound."""
    model = save_whisper(tmp_path / "whisper", seconds=13)
    places = ["--corpus", str(corpus), "--data", str(tmp_path / "data"), "--model", str(model)]
    control = ["--control", "conf/imitation.yaml"]
    run_recipe("whisper_short", tmp_path / "work", *places, *control, *settings(FEW))
    check_outputs(tmp_path / "work", ["test", "test_nospeech"], control="imitation")
    text = (tmp_path / "work" / "exp" / "grpo" / "RESULTS.md").read_text()
    assert "test_5db" in text
    first = read_utterances(tmp_path / "data" / "test_room")[0]
    assert len(read_audio(first, 16000)) > 0
    assert first.tags["source"] == read_utterances(tmp_path / "data" / "test")[0].id


def test_the_table_is_complete() -> None:
    table = load_matrix(EGS / "whisper_short" / "conf" / "table.yaml", [])
    assert sorted(table.cells) == ["grpo", "imitation", "supervised"]
    assert {config.rl.algorithm for config in table.cells["supervised"].values()} == {"supervised"}
    assert {config.rl.baseline for config in table.cells["imitation"].values()} == {"best"}
    assert all(config.whisper.window == "utterance" for config in table.cells["grpo"].values())
