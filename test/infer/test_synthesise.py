"""What stage 6 writes of a set: tokens, waves, and what was spent; and that it goes on."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import soundfile
import torch
from tiny import sentences, write_set
from tiny_speech import CODEC, tiny_speech_config, tiny_speech_lm
from torch import Tensor

from audiorl.bin import synthesise
from audiorl.config import Config, dump_config
from audiorl.data.speech_tokens import read_tokens
from audiorl.data.utterance import Utterance, read_utterances
from audiorl.engines.native import PolicyEngine
from audiorl.errors import UserError
from audiorl.infer.decode import DONE
from audiorl.infer.speak import speak
from audiorl.infer.synthesise import (
    Synthesiser,
    synthesise_set,
    write_waves,
)
from audiorl.infer.voices import RECORDINGS, speaker_voices, voices_of
from audiorl.models.voice import Voice, Voices
from audiorl.runtime.stamps import Stamp

RATE = 8000
CONFIG = tiny_speech_config({"decode.batch_seconds": 3.0, "decode.name": "sampled"})


class ToyCodec:
    """A token is 320 samples, as loud as it is large; the voice is added; with some noise."""

    codebook_size, token_rate = CODEC["codebook_size"], 25.0
    sample_rate = output_rate = RATE
    speaker_size, continues_prompts = 2, False

    def __init__(self, breaks_at: int = 0) -> None:
        self.batches: list[list[int]] = []  # lengths
        self.breaks_at = breaks_at

    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        self.batches.append([len(row) for row in tokens])
        if len(self.batches) == self.breaks_at:
            raise KeyboardInterrupt
        return [
            (row / 40 + voice.vector[0]).repeat_interleave(320) + 0.01 * torch.randn(320 * len(row))
            for row, voice in zip(tokens, voices, strict=True)
        ]

    def prompt(self, wave: Tensor, text: str = "") -> Voice:
        return Voice(text, [3, 1, 4], self.speaker([wave])[0])

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        return torch.stack([torch.stack([w.abs().mean(), torch.tensor(len(w))]) for w in waves])


VOICES = Voices({f"s{i}": Voice(vector=torch.tensor([0.1 * i, 0.0])) for i in range(3)})


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump") / "test"
    write_set(folder, sentences(11, seed=2))
    return folder


@pytest.fixture(scope="module")
def model():
    return tiny_speech_lm(spread=3.0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "exp" / "model" / "model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    return path


def stamp_of(config: Config, data: Path, weights: Path, out: Path) -> Stamp:
    root = weights.parents[2]
    return Synthesiser(config, data.parent, root / "codec").stamp(weights.parents[1], data, out)


def outcome(out: Path) -> dict[str, bytes]:
    files = [*sorted(out.glob("wav/*")), out / "tokens", out / "wav.scp"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


def test_every_utterance_is_heard(data: Path, model, weights: Path, tmp_path: Path) -> None:
    codec, out = ToyCodec(), tmp_path / "out"
    synthesise_set(
        PolicyEngine(model), codec, VOICES, CONFIG, data, stamp_of(CONFIG, data, weights, out)
    )
    utterances = read_utterances(data)
    spoken = speak(PolicyEngine(model), utterances, CONFIG.decode, CONFIG.seed)
    tokens, info = read_tokens(out)
    assert info == CODEC
    assert tokens == {name: s.tokens for name, s in spoken.items()}
    scp = dict(line.split() for line in (out / "wav.scp").read_text().splitlines())
    assert list(scp) == [u.id for u in utterances]
    for u in utterances:
        wave, rate = soundfile.read(scp[u.id])
        assert rate == RATE
        assert soundfile.info(scp[u.id]).subtype == "PCM_16"
        loudness = torch.tensor(wave).view(-1, 320).mean(1)
        if tokens[u.id]:
            expected = (torch.tensor(tokens[u.id]) / 40 + VOICES[u].vector[0]).double()
            torch.testing.assert_close(loudness, expected, rtol=0, atol=0.01)
        else:
            assert loudness.tolist() == [0.0]
    report = json.loads((out / DONE).read_text())
    audio = sum(soundfile.info(path).duration for path in scp.values())
    assert report["audio_seconds"] == pytest.approx(audio, abs=1e-3)
    assert report["rtf"] == pytest.approx(report["seconds"] / audio, abs=1e-4)
    assert report["truncated"] == sorted(n for n, s in spoken.items() if not s.finished)
    assert report["silent"] == sorted(name for name, row in tokens.items() if not row)
    assert report["settings"]["top_p"] == 1.0
    assert 1 < len(codec.batches) < len(utterances)
    assert all(len(b) * max(b) <= 3 * 25 or len(b) == 1 for b in codec.batches)


def test_no_tokens_are_silence(data: Path, tmp_path: Path) -> None:
    utterances = read_utterances(data)[:3]
    tokens = {utterances[0].id: [], utterances[1].id: [1, 2], utterances[2].id: []}
    codec, stamp = ToyCodec(), Stamp(tmp_path / DONE, {}, {})
    seconds = write_waves(codec, VOICES, utterances, tokens, CONFIG, stamp)
    assert seconds == pytest.approx(0.16)
    assert codec.batches == [[2]]
    lengths = [len(soundfile.read(tmp_path / "wav" / f"{u.id}.wav")[0]) for u in utterances]
    assert lengths == [320, 640, 320]


@pytest.mark.parametrize("death", [1, 2, 3])
def test_it_goes_on_to_the_same_waves(death: int, data, model, weights, tmp_path, monkeypatch):
    whole, out = ToyCodec(), tmp_path / "out"
    synthesise_set(
        PolicyEngine(model),
        whole,
        VOICES,
        CONFIG,
        data,
        stamp_of(CONFIG, data, weights, tmp_path / "plain"),
    )
    with pytest.raises(KeyboardInterrupt):
        synthesise_set(
            PolicyEngine(model),
            ToyCodec(death),
            VOICES,
            CONFIG,
            data,
            stamp_of(CONFIG, data, weights, out),
        )
    assert not (out / DONE).exists()
    monkeypatch.setattr("audiorl.infer.synthesise.speak", None)  # the tokens are there
    codec = ToyCodec()
    synthesise_set(
        PolicyEngine(model), codec, VOICES, CONFIG, data, stamp_of(CONFIG, data, weights, out)
    )
    assert len(codec.batches) == len(whole.batches) - (death - 1)
    expected = {n: b for n, b in outcome(tmp_path / "plain").items() if n != "wav.scp"}
    assert {n: b for n, b in outcome(out).items() if n != "wav.scp"} == expected


def test_what_is_made_is_known(data: Path, model, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def is_made(config: Config) -> bool:
        return stamp_of(config, data, weights, out).is_current()

    assert not is_made(CONFIG)
    made = stamp_of(CONFIG, data, weights, out)
    synthesise_set(PolicyEngine(model), ToyCodec(), VOICES, CONFIG, data, made)
    assert is_made(CONFIG)
    assert is_made(tiny_speech_config({"decode.batch_seconds": 9.0, "decode.batch_size": 3}))
    for key, value in {"decode.top_p": 0.5, "seed": 2, "decode.repetition_window": 3}.items():
        assert not is_made(tiny_speech_config({key: value}))
    os.utime(weights, (4e9, 4e9))
    assert is_made(CONFIG)
    weights.write_bytes(b"others")
    os.utime(weights, (1, 1))
    assert not is_made(CONFIG)
    weights.write_bytes(b"")
    assert is_made(CONFIG)
    codec = tmp_path / "codec" / "model" / "model.safetensors"
    codec.parent.mkdir(parents=True)
    codec.write_bytes(b"which sounds otherwise")
    assert not is_made(CONFIG)
    codec.unlink()
    (out / "tokens").write_text("cut")
    assert not is_made(CONFIG)


def test_another_sound_of_the_same_tokens(data, model, weights, tmp_path, monkeypatch) -> None:
    """Waves of another codec are not mixed with those of an earlier one, even when it is killed."""
    out = tmp_path / "out"

    def synthesise(codec: ToyCodec, content: bytes) -> None:
        (tmp_path / "codec" / "model").mkdir(parents=True, exist_ok=True)
        (tmp_path / "codec" / "model" / "model.safetensors").write_bytes(content)
        stamp = stamp_of(CONFIG, data, weights, out)
        if not stamp.is_current():
            synthesise_set(PolicyEngine(model), codec, VOICES, CONFIG, data, stamp)

    whole = ToyCodec()
    synthesise(whole, b"one")
    before = outcome(out)
    monkeypatch.setattr("audiorl.infer.synthesise.speak", None)  # the tokens are there
    with pytest.raises(KeyboardInterrupt):
        synthesise(ToyCodec(breaks_at=2), b"two")
    back = ToyCodec()
    synthesise(back, b"one")
    assert len(back.batches) == len(whole.batches)
    assert outcome(out) == before


def test_other_settings_are_spoken_anew(data: Path, model, weights: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tiny_speech_config({"seed": 5})
    synthesise_set(
        PolicyEngine(model), ToyCodec(), VOICES, CONFIG, data, stamp_of(CONFIG, data, weights, out)
    )
    before = outcome(out)
    synthesise_set(
        PolicyEngine(model), ToyCodec(), VOICES, other, data, stamp_of(other, data, weights, out)
    )
    after = outcome(out)
    assert after.keys() == before.keys()
    assert after["tokens"] != before["tokens"]
    changed = [name for name in after if after[name] != before[name]]
    assert len(changed) > len(after) / 2


def test_bad_texts_are_refused_before_anything_is_made(model, weights, tmp_path: Path) -> None:
    write_set(tmp_path / "test", ["ba do", "ki lu"])
    text = tmp_path / "test" / "text"
    text.write_text(text.read_text().replace("ki lu", "ki 2"))
    with pytest.raises(UserError, match=r"^s1-test001: the speech LM never read 2 "):
        stamp = stamp_of(CONFIG, tmp_path / "test", weights, tmp_path / "o")
        synthesise_set(PolicyEngine(model), ToyCodec(), VOICES, CONFIG, tmp_path / "test", stamp)
    assert not (tmp_path / "o").exists()


def test_a_voice_is_the_mean_of_its_recordings(data: Path) -> None:
    codec, utterances = ToyCodec(), read_utterances(data)
    vectors = speaker_voices(codec, utterances, ["s1", "s0", "s1"])
    assert list(vectors) == ["s0", "s1"]
    lengths = [soundfile.info(u.audio).frames / 2 for u in utterances if u.speaker == "s1"]
    assert vectors["s1"].vector[1].item() == pytest.approx(sum(lengths) / len(lengths), rel=1e-3)


def test_a_voice_is_not_of_more_recordings_than_needed() -> None:
    class Counting(ToyCodec):
        def speaker(self, waves: Sequence[Tensor]) -> Tensor:
            self.batches.append([len(waves)])
            return super().speaker(waves)

    codec = Counting()
    read = pytest.MonkeyPatch()
    read.setattr("audiorl.infer.voices.read_audio", lambda u, rate: torch.ones(5).numpy())
    everyone = [Utterance(f"u{i}", "", "", "s0") for i in range(RECORDINGS + 5)]
    speaker_voices(codec, everyone, ["s0"])
    read.undo()
    assert codec.batches == [[RECORDINGS]]


def test_tokens_that_carry_the_voice_need_no_recordings() -> None:
    codec = ToyCodec()
    codec.speaker_size = 0
    vectors = speaker_voices(codec, [], ["s1", "s0"])
    assert {name: len(voice.vector) for name, voice in vectors.items()} == {"s0": 0, "s1": 0}


def test_a_voice_that_nobody_has_is_named(data: Path) -> None:
    with pytest.raises(UserError, match=r"^speaker x9 has no recordings in the train set"):
        speaker_voices(ToyCodec(), read_utterances(data), ["s0", "x9"])


def test_a_voice_that_was_never_heard_is_spoken_by_its_prompt(weights, tmp_path: Path) -> None:
    """Its prompt is what the LM continues, and where the codec's voice comes from."""
    data = tmp_path / "test"
    write_set(data, ["ba do", "ki lu", "me no"])
    for file in ("utt2spk", "spk2utt"):
        (data / file).write_text((data / file).read_text().replace(" s1\n", " s9\n"))
    wave = data / "s0-test000.wav"
    (data / "prompt_wav.scp").write_text(f"s1-test001 {wave}\n")
    (data / "prompt_text").write_text("s1-test001 ba do\n")
    codec, model = ToyCodec(), tiny_speech_lm({"speech.speakers": "prompt"}, spread=3.0)
    utterances = read_utterances(data)
    voices = voices_of(codec, utterances, [u for u in utterances if u.speaker != "s9"])
    out = tmp_path / "out"
    stamp = stamp_of(CONFIG, data, weights, out)
    synthesise_set(PolicyEngine(model), codec, voices, CONFIG, data, stamp)
    (asked,) = [u for u in utterances if u.speaker == "s9"]
    read = model.condition("ki lu", Voice("ba do", [3, 1, 4])).tolist()
    assert model.encode([asked])[0].tolist() == read
    tokens, _ = read_tokens(out)
    loudness = (
        torch.tensor(soundfile.read(out / "wav" / f"{asked.id}.wav")[0]).view(-1, 320).mean(1)
    )
    vector = codec.speaker([torch.from_numpy(soundfile.read(wave, dtype="float32")[0])])[0]
    expected = (torch.tensor(tokens[asked.id]) / 40 + voices[asked].vector[0]).double()
    torch.testing.assert_close(loudness, expected, rtol=0, atol=0.01)
    assert voices[asked].vector[0] == pytest.approx(float(vector[0]), rel=0.1)


@pytest.fixture
def command(data: Path, model, tmp_path: Path, monkeypatch) -> Callable[..., str]:
    """Runs the entry point on two experiments with this model; returns what it prints."""
    for name in ("sft", "grpo"):
        model.save(tmp_path / name / "model")
    shutil.copytree(data, tmp_path / "dump" / "train")
    shutil.copytree(data, tmp_path / "dump" / "test")
    config = tiny_speech_config({"data.test": ["test"], "decode.name": "sampled"})
    (tmp_path / "c.yaml").write_text(dump_config(config))

    def run(capsys, **info: object) -> str:
        made = "audiorl.infer.synthesise"
        monkeypatch.setattr(f"{made}.load_codec", lambda folder, device: ToyCodec())
        monkeypatch.setattr(f"{made}.codec_info", lambda _: {**CODEC, **info})
        options = ["--config", "c.yaml", "--dump", "dump", "--codec", "exp/codec", "sft", "grpo"]
        monkeypatch.setattr(sys, "argv", ["synthesise", *options])
        monkeypatch.chdir(tmp_path)
        synthesise.main()
        return capsys.readouterr().out

    return run


def test_the_command_speaks_what_is_not_spoken(command, tmp_path: Path, capsys) -> None:
    sets = [f"{name}/decode_sampled" for name in ("sft", "grpo")]
    assert command(capsys) == "".join(f"wrote {folder}/test\n" for folder in sets)
    one, two = (outcome(tmp_path / folder / "test") for folder in sets)
    assert len(one) == 13
    assert one["tokens"] == two["tokens"]
    again = "".join(f"{folder} is complete: nothing to do\n" for folder in sets)
    assert command(capsys) == again
    (tmp_path / sets[1] / "test" / DONE).unlink()
    assert command(capsys) == f"{sets[0]} is complete: nothing to do\nwrote {sets[1]}/test\n"


def test_the_command_refuses_another_codec(command, tmp_path: Path, capsys) -> None:
    for change in ({"fingerprint": "later"}, {"codebook_size": 99}, {"token_rate": 50.0}):
        with pytest.raises(UserError, match=r"^exp/codec .* sft .*; name the codec that sft was"):
            command(capsys, **change)
    assert not (tmp_path / "sft" / "decode_sampled").exists()
