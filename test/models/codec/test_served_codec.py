"""A codec in an environment of its own, by a fake server: its contract, and its deaths."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_config
from tiny_codecs import SIZES, waves

from audiorl.config.codec import SERVED
from audiorl.errors import UserError
from audiorl.models.codec import CodecSettings, ServedCodec, codec_info, load_codec, new_codec
from audiorl.models.voice import Voice

# A token is the loudness of 40 ms; the voice is added to each sample that is made of it.
SERVER = """
import json, os, sys, time
import numpy as np
from safetensors.numpy import load_file, save_file
KIND = os.environ.get("KIND", "cosyvoice2")
def tokens(wave):
    frames = wave[: len(wave) // 640 * 640].reshape(-1, 640)
    return (40 * abs(frames).mean(1)).astype(np.int64)
def hello(given):
    sizes = dict(codebook_size=27, token_rate=25.0, sample_rate=16000, output_rate=24000)
    print_ = dict(fingerprint=os.environ.get("PRINT", "ab12"), speaker_size=1)
    return {"kind": KIND, **sizes, **print_}, {}
def encode(given):
    return {}, {n.replace("wave", "tokens"): tokens(w) for n, w in given.items()}
def prompt(given):
    wave = given["wave_0"]
    found = {"tokens_0": tokens(wave), "vector_0": wave.mean(keepdims=True)}
    return {}, {**found, "mel_0": wave[None, :80].copy()}
def decode(given):
    made = {}
    for name in [n for n in given if n.startswith("tokens_")]:
        n = name[7:]
        added = given[f"vector_{n}"] + len(given[f"prompt_{n}"]) + given[f"mel_{n}"].sum()
        made[f"wave_{n}"] = (given[name].repeat(960) / 40 + added).astype(np.float32)
    return {}, made
for line in sys.stdin:
    request = json.loads(line)
    if os.environ.get("HANGS") == request["op"]:
        time.sleep(60)
    given = load_file(request["file"]) if "file" in request else {}
    answer, found = globals()[request["op"]](given)
    if found:
        save_file(found, request["out"])
    print(json.dumps({"ok": True, **answer}), flush=True)
"""


# What tools/serve_*.py import in environments of their own, with little in it: a token of X-codec2
# is the loudness of 20 ms, and a sample of CosyVoice is a token and the sizes of all else.
XCODEC2 = """
import os, time
import torch
print("loading")  # which is no answer
class XCodec2Model(torch.nn.Linear):
    @classmethod
    def from_pretrained(cls, source):
        torch.manual_seed(len(source))
        return cls(2, 2)
    def encode_code(self, input_waveform, sample_rate=16000):
        if "HANGS" in os.environ:
            time.sleep(60)
        assert sample_rate == 16000 and input_waveform.shape[0] == 1
        wave = torch.nn.functional.pad(input_waveform, (0, -input_waveform.shape[1] % 320))
        return (1000 * wave.unflatten(1, (-1, 320)).abs().mean(2)).int()[:, None]
    def decode_code(self, vq_code):
        assert vq_code.shape[:2] == (1, 1)
        return vq_code.repeat_interleave(320, 2) / 1000
"""
COSYVOICE = """
import pathlib
import soundfile, torch
class Part:
    def _wave(self, path):
        wave, rate = soundfile.read(path)
        assert rate == 16000
        return torch.tensor(wave)
    def _extract_speech_token(self, path):
        return torch.arange(len(self._wave(path)) // 640)[None], None
    def _extract_spk_embedding(self, path):
        return torch.full((1, 192), float(self._wave(path).mean()))
    def _extract_speech_feat(self, path):
        return torch.ones(1, len(self._wave(path)) // 320, 80), None
    def tts(self, **given):
        assert not given.pop("stream")
        sizes = sum(v.shape[1] for n, v in given.items() if n != "source_speech_token")
        for half in given["source_speech_token"].chunk(2, 1):
            yield {"tts_speech": (half + sizes) / 4096}
class AutoModel:
    def __init__(self, model_dir):
        self.sample_rate, self.frontend = 24000, Part()
        self.model = self.frontend
"""
PACKAGES = {"xcodec2/modeling_xcodec2": XCODEC2, "cosyvoice/cli/cosyvoice": COSYVOICE}
ROOT = Path(__file__).parents[3]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Start the codec with some environment: a fake server, or one of tools/."""
    (tmp_path / "server.py").write_text(SERVER)
    for name, text in PACKAGES.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / f"{name}.py").write_text(text)
    started = []

    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(folder: Path | None = None, kind: str = "", **environment: str) -> ServedCodec:
        program = ROOT / "tools" / SERVED[kind] if kind else tmp_path / "server.py"
        monkeypatch.setenv("AUDIORL_CODEC_SERVER", shlex.join([sys.executable, str(program)]))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        keys = {**SIZES, "codec.type": kind or "cosyvoice2", "codec.pretrained": str(tmp_path)}
        settings = CodecSettings.of(tiny_config(keys))
        started.append(new_codec(settings, []) if folder is None else load_codec(folder))
        return started[-1]

    yield start
    for codec in started:
        codec.server.close()


def test_contract(serve, tmp_path: Path) -> None:
    """Two rates, voices with all their parts, and the same again when it is loaded."""
    codec = serve()
    assert codec_info(codec)["kind"] == "cosyvoice2"
    assert (codec.sample_rate, codec.output_rate, codec.codebook_size) == (16000, 24000, 27)
    wave = waves()[0]
    one, two = codec.encode([wave, wave[:1300]])
    assert one.dtype == torch.long and (len(one), len(two)) == (30, 2)
    voice = codec.prompt(wave, "ba do")
    assert (voice.text, list(voice.tokens)) == ("ba do", one.tolist())
    assert torch.equal(codec.speaker([wave])[0], voice.vector)
    none = torch.zeros(0, dtype=torch.long)
    silent, spoken = codec.decode([none, two], [voice, voice])
    assert len(silent) == 0 and len(spoken) == 2 * 960
    added = voice.vector + 30 + voice.mel.sum()
    torch.testing.assert_close(spoken, two.repeat_interleave(960) / 40 + added)
    codec.save(tmp_path / "model")
    assert codec_info(serve(tmp_path / "model")) == codec_info(codec)
    with pytest.raises(UserError, match=r"serves another cosyvoice2 than was used in stage 3"):
        codec_info(serve(tmp_path / "model", PRINT="ab13"))


def test_one_of_another_kind_is_refused(serve) -> None:
    with pytest.raises(UserError, match=r"serves cosyvoice3; set codec.type, or start another"):
        serve(KIND="cosyvoice3")


def test_one_that_is_killed(serve) -> None:
    codec = serve()
    os.kill(codec.server.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^the server of cosyvoice2 .* ended \(by signal 9\)"):
        codec.encode(waves()[:1])


def test_one_that_hangs(serve) -> None:
    codec = serve(HANGS="encode")
    codec.server.timeout = 0.2
    with pytest.raises(UserError, match=r"^the server of cosyvoice2 .* gave no answer within 0.2"):
        codec.encode(waves()[:1])


def test_without_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIORL_CODEC_SERVER", raising=False)
    keys = {**SIZES, "codec.type": "cosyvoice2", "codec.pretrained": "there"}
    with pytest.raises(UserError, match=r"^AUDIORL_CODEC_SERVER is not set; set it to the command"):
        new_codec(CodecSettings.of(tiny_config(keys)), [])


def test_xcodec2_as_published(serve, tmp_path: Path) -> None:
    """The program of tools/ with a fake package: its contract, and its deaths."""
    codec = serve(kind="xcodec2_served")
    info = codec_info(codec)
    assert (info["kind"], info["codebook_size"], info["token_rate"]) == (
        "xcodec2_served",
        65536,
        50,
    )
    assert (codec.sample_rate, codec.output_rate, codec.continues_prompts) == (16000, 16000, False)
    wave = waves()[0]
    one, two = codec.encode([wave, wave[:650]])
    assert one.dtype == torch.long and (len(one), len(two)) == (60, 3)
    assert codec.prompt(wave, "ba do") == Voice("ba do", one.tolist())
    assert codec.speaker([wave, wave]).shape == (2, 0)
    none = torch.zeros(0, dtype=torch.long)
    silent, spoken = codec.decode([none, one], [Voice(), codec.prompt(wave)])
    assert len(silent) == 0
    torch.testing.assert_close(spoken, one.repeat_interleave(320) / 1000)
    os.kill(codec.server.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"^the server of xcodec2_served .* \(by signal 9\)"):
        codec.encode([wave])
    codec.save(tmp_path / "model")
    again = serve(tmp_path / "model", "xcodec2_served", HANGS="yes")
    assert codec_info(again) == info
    again.server.timeout = 0.2
    with pytest.raises(UserError, match=r"^the server of xcodec2_served .* no answer within 0.2"):
        again.encode([wave])


def test_the_program_that_serves_cosyvoice(serve, tmp_path: Path) -> None:
    (tmp_path / "speech_tokenizer_v3.onnx").write_bytes(b"weights")
    codec = serve(kind="cosyvoice3")
    info = codec_info(codec)
    assert (info["kind"], info["codebook_size"], info["token_rate"]) == ("cosyvoice3", 6561, 25)
    assert info["fingerprint"] == hashlib.sha256(b"weights").hexdigest()
    wave = waves()[0][:6400]
    voice = codec.prompt(wave)
    assert codec.encode([wave])[0].tolist() == list(voice.tokens) == list(range(10))
    assert (voice.vector.shape, voice.mel.shape) == ((192,), (20, 80))
    spoken = codec.decode([torch.arange(3)], [voice])
    torch.testing.assert_close(spoken[0], (torch.arange(3) + 10 + 20 + 192) / 4096)
    with pytest.raises(UserError, match=r"could not decode: KeyError: 'prompt_0'; fix it there"):
        codec.server.call("decode", {"tokens_0": torch.arange(3)})
