"""What decoding writes: one line for each utterance, and what was spent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tiny import sentences, tiny_config, tiny_model, write_set

from audiorl.data.utterance import read_utterances
from audiorl.infer.decode import decode_set, is_decoded
from audiorl.infer.transcribe import transcribe


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dump") / "test"
    write_set(folder, sentences(7, seed=2))
    return folder


@pytest.fixture(scope="module")
def model():
    return tiny_model(spread=3.0)


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


@pytest.mark.parametrize("method", ["greedy", "nbest"])
def test_every_utterance_has_its_line(method: str, data: Path, model, tmp_path: Path) -> None:
    config = tiny_config({"decode.method": method, "decode.num_beams": 3})
    decode_set(model, config, data, tmp_path)
    ids = [line.split()[0] for line in lines(data / "text")]
    assert [line.split()[0] for line in lines(tmp_path / "text")] == ids
    meta = json.loads((tmp_path / "decode.json").read_text())
    assert meta["method"] == method
    assert meta["rtf"] == pytest.approx(meta["seconds"] / meta["audio_seconds"], abs=2e-4)
    durations = [float(line.split()[1]) for line in lines(data / "utt2dur")]
    assert meta["audio_seconds"] == pytest.approx(sum(durations), abs=1e-3)
    beams = 3 if method == "nbest" else 1
    found = transcribe(model, read_utterances(data), max_length=8, num_beams=beams)
    assert meta["truncated"] == [name for name in ids if not found[name][0].finished]
    assert (tmp_path / "nbest.jsonl").exists() == (method == "nbest")
    if method == "nbest":
        best = [json.loads(line) for line in lines(tmp_path / "nbest.jsonl")]
        assert [item["id"] for item in best] == ids
        for item, line in zip(best, lines(tmp_path / "text"), strict=True):
            assert len(item["hypotheses"]) == 3
            assert " ".join([item["id"], item["hypotheses"][0]["text"]]).strip() == line
            assert all(h["logp"] < 0 for h in item["hypotheses"])


@pytest.mark.parametrize("text", ["", "   ", "two\nlines", " a\t b\u2028c ", "\r"])
def test_whatever_is_heard_stays_in_its_line(text, data, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(model.tokenizer, "decode", lambda ids: text)
    decode_set(model, tiny_config(), data, tmp_path)
    written = lines(tmp_path / "text")
    assert len(written) == 7
    for line in written:
        assert len(line.splitlines()) == 1
        assert line == line.strip()
        assert line.split(maxsplit=1)[1:] == ([" ".join(text.split())] if text.split() else [])


def test_what_is_decoded_is_known(data: Path, model, tmp_path: Path) -> None:
    config, weights, out = tiny_config(), tmp_path / "model.safetensors", tmp_path / "out"
    weights.write_bytes(b"")
    assert not is_decoded(config, weights, data, out)
    decode_set(model, config, data, out)
    assert is_decoded(config, weights, data, out)
    same = tiny_config({"decode.batch_seconds": 3.0, "decode.num_beams": 9, "seed": 5})
    assert is_decoded(same, weights, data, out)
    assert not is_decoded(tiny_config({"decode.method": "nbest"}), weights, data, out)
    longer = tiny_config({"decode.max_completion_length": 99})
    assert not is_decoded(longer, weights, data, out)
    later = (out / "decode.json").stat().st_mtime + 5
    os.utime(weights, (later, later))
    assert not is_decoded(config, weights, data, out)
