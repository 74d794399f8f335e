"""Stage 7 of synthesis: every set heard once, each utterance held against its own speaker."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from fake_systems import RATE
from fake_voices import SETS, SPEAKERS, make_voices, tone, write_set
from tiny import sing, tiny_config, tiny_model

from audiorl.config import Config, dump_config
from audiorl.data.tables import read_table
from audiorl.errors import UserError
from audiorl.infer import judging as listen
from audiorl.infer.hearing import RecogniserJudge, load_judge, transcribe_waves
from audiorl.infer.judging import judge_systems
from audiorl.models.judge import Judge, JudgeSettings
from audiorl.score.asr import score_systems
from audiorl.score.metrics import measures_of
from audiorl.score.tts import read_judged

SYSTEMS = {"base": 0.4, "grpo": 0.1}


class Ear:
    """Hears how many samples there are; its vectors turn with the mean square of the wave."""

    sample_rate = RATE

    def __init__(self) -> None:
        self.heard = 0

    def transcribe(self, waves: Sequence[torch.Tensor]) -> list[str]:
        self.heard += len(waves)
        return [f" {len(wave)}  samples " for wave in waves]

    def speaker(self, waves: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([vector(wave.numpy()) for wave in waves])


def read(path: str) -> np.ndarray:
    return soundfile.read(path, dtype="float32")[0]


def vector(wave: np.ndarray) -> torch.Tensor:
    angle = 40 * float(np.mean(np.square(wave, dtype=np.float64)))
    return torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Config, Ear]:
    """Two systems and the natural recordings, not yet judged, and who will judge."""
    ear = Ear()
    monkeypatch.setattr(listen, "load_judge", lambda path, device, config: ear)
    return tmp_path, make_voices(tmp_path, SYSTEMS, utterances=6, judged=False), ear


def judge(recipe: tuple[Path, Config, Ear]) -> int:
    """Judges all systems; returns how many waves were heard."""
    root, config, ear = recipe
    before = ear.heard
    exps = [root / "exp" / name for name in (*SYSTEMS, "natural")]
    judge_systems(root / "exp" / "judge", exps, root / "dump", config, "cpu")
    return ear.heard - before


def test_each_utterance_is_held_against_its_own(recipe) -> None:
    judge(recipe)
    root = recipe[0]
    natural = {uid: read(path) for uid, path in read_table(root / "dump/test/wav.scp").items()}
    for system in ("base", "natural"):
        folder = root / "exp" / system / "decode_greedy" / "test"
        found = read_judged(folder)
        assert list(found) == sorted(natural)
        for uid, path in read_table(folder / "wav.scp").items():
            wave, one = read(path), found[uid]
            assert one.heard == f"{len(wave)} samples"
            assert one.seconds == pytest.approx(len(wave) / RATE)
            own_speech = len(natural[uid]) / RATE - 0.1
            assert one.natural_seconds == pytest.approx(own_speech, abs=0.04)
            speaker = uid.split("-")[0]
            others = [w for u, w in natural.items() if u.startswith(speaker) and u != uid]
            centre = sum(map(vector, others))
            expected = torch.nn.functional.cosine_similarity(vector(wave), centre, dim=0)
            assert one.similarity == pytest.approx(float(expected), abs=1e-5)
            assert one.f0 == pytest.approx(
                SPEAKERS[speaker] * (1.1 if system == "base" else 1), 0.06
            )
            if system == "natural":
                assert one.distance is None  # of itself
            else:
                assert 0.1 < one.distance < 20


def test_what_has_not_changed_is_not_heard_again(recipe) -> None:
    root = recipe[0]
    assert judge(recipe) == 3 * 6 * len(SETS)
    assert judge(recipe) == 0
    wave = root / "exp/grpo/decode_greedy/test_hard/wav/ann-test_hard-000.wav"
    soundfile.write(wave, tone(0.5, 100.0), RATE)
    assert judge(recipe) == 6  # its set of its system
    path = next(iter(read_table(root / "dump/test/wav.scp").values()))
    os.utime(path, ns=(1, 1))
    assert judge(recipe) == 0
    state = os.stat(path)
    soundfile.write(path, -read(path), RATE)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert judge(recipe) == 3 * 6  # a recording that all systems are held against
    (root / "exp" / "judge" / "model").mkdir(parents=True)
    (root / "exp" / "judge" / "model" / "model.safetensors").write_text("another judge")
    assert judge(recipe) == 3 * 6 * len(SETS)
    (root / "exp/base/decode_greedy/test/judged.json").write_text('{"inputs"')
    assert judge(recipe) == 6
    recipe[1].whisper.language = "zh"
    assert judge(recipe) == 3 * 6 * len(SETS)


def test_a_system_that_says_nothing(recipe) -> None:
    """A file without samples, and one of silence: nothing is heard, nothing breaks."""
    root = recipe[0]
    folder = root / "exp/base/decode_greedy/test/wav"
    soundfile.write(folder / "ann-test-000.wav", np.zeros(0), RATE)
    soundfile.write(folder / "bob-test-001.wav", np.zeros(8000), RATE)
    judge(recipe)
    found = read_judged(folder.parent)
    empty, silent = found["ann-test-000"], found["bob-test-001"]
    assert (empty.heard, empty.seconds, empty.speech_seconds) == ("", 0, 0)
    assert (empty.similarity, empty.f0, empty.hnr, empty.distance) == (None,) * 4
    assert (silent.seconds, silent.speech_seconds, silent.distance) == (0.5, 0, None)


def test_a_speaker_with_one_recording_has_no_similarity(recipe) -> None:
    root, config, _ = recipe
    for name in config.data.test:
        rename(root / "dump" / name / "utt2spk", f"eve-{name}-005")
    judge(recipe)
    found = read_judged(root / "exp/grpo/decode_greedy/test")
    unknown = {uid for uid, one in found.items() if one.similarity is None}
    assert unknown == {"eve-test-002", "eve-test-005"}


def rename(utt2spk: Path, uid: str) -> None:
    utt2spk.write_text(utt2spk.read_text().replace(f"{uid} eve", f"{uid} eva"))


def test_a_set_of_texts_alone(recipe) -> None:
    """Its speakers are known from the train set; there is nothing to compare tempo with."""
    root, config, _ = recipe
    write_set(root / "dump" / "train", 9, random.Random(1))
    config.data.train, config.data.test = "train", ["test"]
    for name in ("wav.scp", "utt2dur"):
        (root / "dump" / "test" / name).unlink()
    judge_systems(root / "exp/judge", [root / "exp/grpo"], root / "dump", config, "cpu")
    found = read_judged(root / "exp/grpo/decode_greedy/test")
    train = read_table(root / "dump/train/wav.scp")
    centre = sum(vector(read(path)) for uid, path in train.items() if uid.startswith("ann"))
    wave = read(read_table(root / "exp/grpo/decode_greedy/test/wav.scp")["ann-test-000"])
    one = found["ann-test-000"]
    expected = torch.nn.functional.cosine_similarity(vector(wave), centre, dim=0)
    assert one.similarity == pytest.approx(float(expected), abs=1e-5)
    assert (one.natural_seconds, one.distance) == (None, None)
    (system,) = score_systems([root / "exp/grpo"], root / "dump", config, measures_of(config.task))
    assert not system.pooled.sound["tempo"].known
    assert system.pooled.sound["rate"].known
    system = root / "exp" / "grpo"
    ear, heard = recipe[2], recipe[2].heard
    judge_systems(root / "exp/judge", [system], root / "dump", config, "cpu")
    assert ear.heard == heard
    soundfile.write(train["ann-train-000"], -read(train["ann-train-000"]), RATE)
    judge_systems(root / "exp/judge", [system], root / "dump", config, "cpu")
    assert ear.heard == heard + 6


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (Path.unlink, "wav.scp does not exist; synthesise first"),
        (lambda p: p.write_text(p.read_text().partition("\n")[2]), "wav.scp lacks 1 of the 6"),
        (lambda p: p.write_text(p.read_text() + "zoe-1 /x.wav\n"), "does not know .zoe-1"),
    ],
)
def test_other_utterances_are_an_error(recipe, spoil, message: str) -> None:
    spoil(recipe[0] / "exp/grpo/decode_greedy/test_hard/wav.scp")
    with pytest.raises(UserError, match=message):
        judge(recipe)


def test_any_recogniser_may_judge(tmp_path: Path) -> None:
    """An audio LLM says what it says in decoding, whatever it is batched with; no voices."""
    model = tiny_model(spread=3.0)
    model.save(tmp_path / "sft" / "model")
    (tmp_path / "sft" / "config.yaml").write_text(dump_config(model.recipe))
    listener = load_judge(tmp_path / "sft")
    assert isinstance(listener, RecogniserJudge)
    waves = [torch.from_numpy(sing(text)) for text in ("ba do ki", "lu", "me no")]
    found = listener.transcribe(waves)
    assert any(found)
    assert found == [listener.transcribe([wave])[0] for wave in waves]
    assert listener.speaker(waves) is None


def test_voices_are_unknown_to_a_recogniser(recipe, monkeypatch) -> None:
    monkeypatch.setattr(recipe[2], "speaker", lambda waves: None)
    judge(recipe)
    found = read_judged(recipe[0] / "exp/base/decode_greedy/test")
    assert {one.similarity for one in found.values()} == {None}
    assert all(one.distance for one in found.values())


def test_the_judge_of_a_folder(tmp_path: Path) -> None:
    settings = JudgeSettings.of(tiny_config({"task": "tts"}))
    Judge.of(settings, ["ba"], ["ann"]).save(tmp_path / "judge" / "model")
    assert isinstance(load_judge(tmp_path / "judge"), Judge)
    with pytest.raises(UserError, match="there is no model; run stage 3"):
        load_judge(tmp_path / "none")


def test_judged_json_says_who_judged(recipe) -> None:
    judge(recipe)
    root = recipe[0]
    found = json.loads((root / "exp/base/decode_greedy/test/judged.json").read_text())
    assert found["judge"] == str(root / "exp" / "judge")


def test_waves_are_heard_at_the_listeners_rate(monkeypatch) -> None:
    """A tone of 24 kHz is the tone that it was; batches are of like length, the order stays."""
    ear, batches = Ear(), []

    def transcribe(waves: Sequence[torch.Tensor]) -> list[str]:
        batches.append([len(wave) for wave in waves])
        peaks = [torch.fft.rfft(w).abs().argmax() * RATE / len(w) for w in waves]
        return [f"{peak:.0f} Hz" for peak in peaks]

    monkeypatch.setattr(ear, "transcribe", transcribe)
    seconds = {0.5: 400, 1.5: 600, 0.25: 800, 1.4: 1000}
    tones = [
        torch.sin(2 * torch.pi * hz * torch.arange(int(s * 24000)) / 24000)
        for s, hz in seconds.items()
    ]
    assert transcribe_waves(ear, tones, 24000, 3.0) == [f"{hz} Hz" for hz in seconds.values()]
    assert batches == [[int(1.5 * RATE), int(1.4 * RATE)], [RATE // 2, RATE // 4]]
    assert transcribe_waves(ear, [], 24000, 3.0) == []
