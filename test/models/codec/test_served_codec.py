"""A codec in an environment of its own, by a fake server: its contract, and its deaths."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_config
from tiny_codecs import SIZES, waves

from audiorl.errors import UserError
from audiorl.models.codec import CodecSettings, ServedCodec, codec_info, load_codec, new_codec

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


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Start the codec with some environment."""
    (tmp_path / "server.py").write_text(SERVER)
    command = shlex.join([sys.executable, str(tmp_path / "server.py")])
    monkeypatch.setenv("AUDIORL_CODEC_SERVER", command)
    started = []

    def start(folder: Path | None = None, **environment: str) -> ServedCodec:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        keys = {**SIZES, "codec.type": "cosyvoice2", "codec.pretrained": "there"}
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


def test_without_a_command(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIORL_CODEC_SERVER")
    with pytest.raises(UserError, match=r"^AUDIORL_CODEC_SERVER is not set; set it to the command"):
        serve()
