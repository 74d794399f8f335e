"""Trained systems in use: transcribe, speak, packs by reference, unpack --run."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from tiny import move_adapters, sing, tiny_model
from tiny_whisper import save_whisper, whisper_config

from audiorl.bin import pack, speak, transcribe, unpack
from audiorl.config import dump_config
from audiorl.config.lora import LoRAConfig
from audiorl.data.utterance import Utterance
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.files import open_model
from audiorl.infer.transcribe import transcribe as decode
from audiorl.models.families.whisper import Whisper
from audiorl.models.policy import load_policy


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """Runs a command in the test's folder, which has long.wav and short.wav; what it prints."""
    monkeypatch.chdir(tmp_path)
    soundfile.write("long.wav", sing("ba do ki me no pa ri ba do ki", 1), 16000)
    soundfile.write("short.wav", sing("ba do", 2), 16000)

    def run(module, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [module.__name__, *arguments])
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def recogniser(tmp_path: Path) -> Path:
    """A small experiment."""
    model = tiny_model({"decode.window_seconds": 1.0}, spread=3.0)
    model.save(tmp_path / "exp/grpo/model")
    (tmp_path / "exp/grpo/config.yaml").write_text(dump_config(model.recipe))
    return tmp_path / "exp/grpo"


def test_text_json_and_subtitles_of_files(call, recogniser: Path) -> None:
    both = ["long.wav", "short.wav", "--model", "exp/grpo"]
    found = [json.loads(line) for line in call(transcribe, *both, "--format", "json").splitlines()]
    assert [one["file"] for one in found] == ["long.wav", "short.wav"]
    long, _ = found
    assert long["seconds"] == pytest.approx(soundfile.info("long.wav").duration, abs=1e-3)
    starts = [segment["start"] for segment in long["segments"]]
    ends = [segment["end"] for segment in long["segments"]]
    assert len(starts) > 1 and starts == [0.0, *ends[:-1]] and ends[-1] == long["seconds"]
    assert long["text"] == " ".join(s["text"] for s in long["segments"] if s["text"]) != ""
    said = call(transcribe, *both)
    assert said == "".join(f"{one['file']}: {one['text']}\n" for one in found)
    assert call(transcribe, "long.wav", "--model", "exp/grpo/model") != ""
    call(transcribe, *both, "--format", "srt", "--out", "subtitles")
    first, second = Path("subtitles/long.srt").read_text().split("\n\n")[:2]
    number, times, text = first.split("\n")
    assert (number, text) == ("1", long["segments"][0]["text"])
    assert times == f"00:00:00,000 --> 00:00:0{ends[0]:.3f}".replace(".", ",")
    assert second.startswith("2\n")
    whole = json.loads(call(transcribe, "long.wav", *both[2:], "--format=json", "--window=30"))
    assert len(whole["segments"]) == 1


def test_a_system_decodes_as_its_config_asks(call, recogniser: Path) -> None:
    greedy = call(transcribe, "long.wav", "--model", "exp/grpo", "--window=30")
    model, config = open_model("exp/grpo")
    kept, config.decode.window_seconds = recogniser / "config.yaml", 0.0
    seconds = soundfile.info("long.wav").duration
    heard = [Utterance("long.wav", str(Path("long.wav").resolve()), "", "", duration=seconds)]
    for method, way in (("nbest", {"num_beams": 3}), ("fallback", {"fallback_seed": config.seed})):
        config.decode.method, config.decode.num_beams = method, 3
        kept.write_text(dump_config(config))
        (found,) = decode(
            PolicyEngine(model), heard, max_length=config.decode.max_completion_length, **way
        ).values()
        said = call(transcribe, "long.wav", "--model", "exp/grpo")
        assert said == f"{found[0].text.strip()}\n" != greedy


def test_a_zip_transcribes_like_its_experiment(call, recogniser: Path) -> None:
    said = call(transcribe, "long.wav", "--model", "exp/grpo")
    call(pack, "exp/grpo", "--out", "x.zip")
    assert call(transcribe, "long.wav", "--model", "x.zip") == said
    told = call(unpack, "x.zip", "there", "--run", "long.wav").splitlines()
    assert told[1:] == [f"long.wav: {said.strip()}"]


def test_what_cannot_be_transcribed_is_said(call, recogniser: Path) -> None:
    with pytest.raises(UserError, match=r"none.wav does not exist"):
        call(transcribe, "none.wav", "--model", "exp/grpo")
    soundfile.write("empty.wav", [], 16000)
    with pytest.raises(UserError, match=r"empty.wav has no samples"):
        call(transcribe, "empty.wav", "--model", "exp/grpo")
    with pytest.raises(UserError, match=r"exp has no config.json"):
        call(transcribe, "long.wav", "--model", "exp")
    Path("a").mkdir()
    shutil.copy("long.wav", "a/long.wav")
    with pytest.raises(UserError, match=r"long.wav and .*long.wav would both be"):
        call(transcribe, "long.wav", "a/long.wav", "--model", "exp/grpo", "--out", "b")


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """The experiments of a pretrained Whisper: start, all of the LM learnt, adapters."""
    base = save_whisper(tmp_path / "hub" / "whisper")
    config = whisper_config(base)
    policy = Whisper.create(config, [])
    policy.save(tmp_path / "exp/sft/model")
    with torch.no_grad():
        policy.train_only(["llm"])
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.05)
    policy.save(tmp_path / "exp/whole/model")
    policy = load_policy(tmp_path / "exp/sft/model")
    policy.adapt(LoRAConfig(rank=2, targets=["llm.v_proj"]), 0)
    policy.train_only(["llm"])
    move_adapters(policy, 0.3)
    policy.save_adapters(tmp_path / "exp/lora/model", tmp_path / "exp/sft/model")
    for name in ("whole", "lora"):
        (tmp_path / f"exp/{name}/config.yaml").write_text(dump_config(config))
    return base


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_policy(folder).state_dict()


@pytest.mark.parametrize("system", ["whole", "lora"])
def test_a_pack_by_reference_is_made_whole_by_its_base(call, pretrained: Path, system: str) -> None:
    expected, said = (
        weights(f"exp/{system}/model"),
        call(transcribe, "short.wav", "--model", f"exp/{system}"),
    )
    call(pack, f"exp/{system}", "--out", "whole.zip")
    call(pack, f"exp/{system}", "--out", "x.zip", "--by_reference")
    assert Path("x.zip").stat().st_size < 0.7 * Path("whole.zip").stat().st_size
    with zipfile.ZipFile("x.zip") as archive:
        part = {"whole": "model", "lora": "base"}[system]
        assert json.loads(archive.read(f"{part}/reference.json"))["name"] == "whisper"
        assert f"{part}/model.safetensors" not in archive.namelist()
    shutil.rmtree("exp")
    with pytest.raises(UserError, match=r"whisper is no folder and cannot be had from the hub"):
        call(unpack, "x.zip", "there")
    told = call(unpack, "x.zip", "there", "--base", str(pretrained), "--run", "short.wav")
    assert told.splitlines()[1:] == [f"short.wav: {said.strip()}"]
    found = weights("there/model")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    other = pretrained / "model.safetensors"
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match=r"is not the file that the model was trained from"):
        call(unpack, "x.zip", "again", "--base", str(pretrained))
    assert not Path("again").exists()


def test_only_pretrained_models_have_a_base(call, recogniser: Path) -> None:
    with pytest.raises(UserError, match="has no pretrained base; pack it whole"):
        call(pack, "exp/grpo", "--out", "x.zip", "--by_reference")


def test_a_text_is_spoken(call, speaking: Path) -> None:
    with pytest.raises(UserError, match=r"exp/both is mute .* name --codec"):
        call(speak, "do ba", "--model", "exp/both", "--out", "a.wav")
    sets = ["--codec", "exp/codec", "--dump", "dump"]
    said = call(speak, "do ba", "--model", "exp/both", *sets, "--out", "a.wav")
    assert said.startswith("wrote a.wav: ") and " s, voice " in said
    assert soundfile.info("a.wav").duration > 0
    call(pack, "exp/both", *sets, "--out", "x.zip")
    call(speak, "do ba", "--model", "x.zip", "--out", "b.wav")
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()
    with pytest.raises(UserError, match=r"--speaker nobody is no voice of .*; take "):
        call(speak, "do ba", "--model", "x.zip", "--out", "b.wav", "--speaker", "nobody")
    with pytest.raises(UserError, match=r"^--model: it speaks and does not listen"):
        call(transcribe, "long.wav", "--model", "x.zip")
