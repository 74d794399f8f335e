"""Training of the judge: it learns words and voices, and goes on to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from deaths import after, before, killed
from runs import lines, outcome
from tiny import RATE, sentences, sing, tiny_config, write_set

from audiorl.data.utterance import read_utterances
from audiorl.errors import UserError
from audiorl.models import judge as judge_model
from audiorl.models.judge import Judge
from audiorl.runs.checkpoint import BestWeights, Checkpoints
from audiorl.train import judge as judge_training
from audiorl.train import judge as training
from audiorl.train.judge import train_judge

KEYS = {
    "task": "tts",
    "judge.encoder.output_size": 32,
    "judge.encoder.linear_units": 64,
    "judge.encoder.num_blocks": 1,
    "judge.schedule.max_steps": 8,
    "judge.batch_seconds": 3.0,
    "judge.schedule.warmup_steps": 3,
    "judge.schedule.eval_steps": 3,
}
LEARNING = {
    "judge.schedule.max_steps": 200,
    "judge.batch_seconds": 4.0,
    "judge.schedule.learning_rate": 5e-3,
    "judge.schedule.eval_steps": 200,
    "frontend.time_masks": 0,
    "frontend.freq_masks": 0,
}
TREMBLE = {"s0": 0, "s1": 12, "s2": 31}  # Hz: how the speakers' voices sound


def sing_as(speaker: str, text: str, seed: int) -> np.ndarray:
    """[S]: a text in the speaker's voice."""
    wave = sing(text, seed)
    return wave * (1 + 0.6 * np.sin(2 * np.pi * TREMBLE[speaker] * np.arange(len(wave)) / RATE))


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train and dev of three speakers who sing the same notes in voices of their own."""
    folder = tmp_path_factory.mktemp("voices") / "dump"
    for name, count, seed in (("train", 36, 1), ("dev", 9, 2)):
        for u in write_set(folder / name, sentences(count, seed=seed, longest=3), seed):
            soundfile.write(u.audio, sing_as(u.speaker, u.text, seed), RATE)
    return folder


def run(dump: Path, out: Path, keys: dict | None = None) -> None:
    train_judge(tiny_config({**KEYS, **(keys or {})}), dump, out)


def test_it_warns_of_what_the_codec_hears_too(dump: Path, tmp_path: Path, capsys) -> None:
    keys = {"judge.schedule.max_steps": 1, "judge.schedule.eval_steps": 1}
    run(dump, tmp_path / "shared", keys)
    told = "36 of 36 utterances of train are what the codec and the reward model learn from, too"
    assert told in capsys.readouterr().out
    run(dump, tmp_path / "own", {**keys, "judge.train": "dev", "data.dev": "train"})
    assert "learn from, too" not in capsys.readouterr().out


def test_it_learns_words_and_voices(dump: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(judge_training, "NOISY", 0.0)
    monkeypatch.setattr(judge_model, "VECTOR_SIZE", 8)
    run(dump, tmp_path, LEARNING)
    metrics = lines(tmp_path / "metrics.jsonl")
    found = [m for m in metrics if "eval/cer" in m]
    assert min(m["eval/cer"] for m in found) < 0.75  # of blanks alone it is 1
    assert found[-1]["eval/speaker_accuracy"] == 1.0
    judge = Judge.load(tmp_path / "model")
    dev = read_utterances(dump / "dev")
    waves = [torch.from_numpy(soundfile.read(u.audio, dtype="float32")[0]) for u in dev]
    assert judge.name_speakers(waves) == [u.speaker for u in dev]
    vectors = judge.speaker(waves)
    same = torch.tensor([[u.speaker == v.speaker for v in dev] for u in dev])
    similarity = vectors @ vectors.T
    assert similarity[same].mean() > similarity[~same].mean() + 0.3


@pytest.fixture(scope="module")
def undisturbed(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("undisturbed")
    run(dump, out)
    return outcome(out)


DEATHS = {
    "before the first checkpoint": after(BestWeights, "offer", lambda self, step, *_: step == 3),
    "between checkpoints": before(training, "evaluate", lambda judge, dev, step, *_: step == 6),
    "after a checkpoint": after(Checkpoints, "save", lambda self, step, *_: step == 6),
    "before the model": before(Judge, "save", lambda *_: True),
}


@pytest.mark.parametrize("death", DEATHS)
def test_it_goes_on_to_the_bit(death: str, dump: Path, undisturbed: dict, tmp_path: Path) -> None:
    killed(lambda: run(dump, tmp_path), DEATHS[death])
    assert not (tmp_path / "model" / "model.safetensors").exists()
    run(dump, tmp_path)
    assert outcome(tmp_path) == undisturbed


def test_complete_is_complete(dump: Path, tmp_path: Path, caplog) -> None:
    run(dump, tmp_path)
    before_ = outcome(tmp_path)
    run(dump, tmp_path)
    assert outcome(tmp_path) == before_
    with pytest.raises(UserError, match="started with another config"):
        run(dump, tmp_path, {"judge.encoder.num_blocks": 2})


def test_it_learns_from_the_set_that_is_named(dump: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "dump" / "mine", ["ba ba", "ba"])
    (tmp_path / "dump" / "dev").symlink_to(dump / "dev")
    run(tmp_path / "dump", tmp_path / "exp", {"judge.train": "mine", "judge.schedule.max_steps": 1})
    judge = Judge.load(tmp_path / "exp" / "model")
    assert judge.characters.symbols == [" ", "a", "b"]
    assert judge.speakers == ["s0", "s1"]


def test_unknown_speakers_of_dev_are_not_counted(dump: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "dump" / "train", ["ba", "do"])
    (tmp_path / "dump" / "dev").symlink_to(dump / "dev")
    speakers = tmp_path / "dump" / "train" / "utt2spk"
    speakers.write_text(speakers.read_text().replace(" s", " x"))
    run(tmp_path / "dump", tmp_path / "exp", {"judge.schedule.max_steps": 1})
    (line,) = [m for m in lines(tmp_path / "exp" / "metrics.jsonl") if "eval/cer" in m]
    assert line["eval/speaker_accuracy"] is None


def test_a_set_without_words_is_named(dump: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "dump" / "train", ["ba", "do"])
    (tmp_path / "dump" / "dev").symlink_to(dump / "dev")
    text = tmp_path / "dump" / "train" / "text"
    text.write_text("".join(f"{line.split()[0]} --\n" for line in text.read_text().splitlines()))
    with pytest.raises(UserError, match="has no words; a judge learns from transcripts"):
        run(tmp_path / "dump", tmp_path / "exp")
