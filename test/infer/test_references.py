"""Natural recordings and natural tokens, where stage 7 looks for synthesised sets."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny import RATE, sentences, tiny_config, write_set
from torch import Tensor

from audiorl.data.speech_tokens import read_tokens
from audiorl.data.tables import read_table
from audiorl.infer.references import write_natural, write_resynthesis
from audiorl.models.voice import Voice
from audiorl.score.tts import scored_together

CONFIG = tiny_config({"task": "tts", "data.test": ["test", "hard"], "decode.batch_seconds": 2.0})


class LoudnessCodec:
    """A token is the loudness of 40 ms in hundredths; the voice is added to what it decodes."""

    codebook_size, token_rate, speaker_size = 100, 25.0, 1
    sample_rate = output_rate = RATE
    type, continues_prompts = "native", False

    def __init__(self) -> None:
        self.encoded = self.decoded = 0

    def encode(self, waves: Sequence[Tensor]) -> list[Tensor]:
        self.encoded += len(waves)
        return [(100 * w[: len(w) // 640 * 640].view(-1, 640).std(1)).long() for w in waves]

    def decode(self, tokens: Sequence[Tensor], voices: Sequence[Voice]) -> list[Tensor]:
        self.decoded += len(tokens)
        pairs = zip(tokens, voices, strict=True)
        return [(row / 100 + voice.vector[0]).repeat_interleave(640) for row, voice in pairs]

    def speaker(self, waves: Sequence[Tensor]) -> Tensor:
        return torch.tensor([[len(w) / 1e6] for w in waves])

    def fingerprint(self) -> str:
        return "loudness"


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    for seed, (name, count) in enumerate((("train", 6), ("test", 5), ("hard", 4))):
        write_set(tmp_path / "dump" / name, sentences(count, seed=seed), seed)
    (tmp_path / "weights").write_bytes(b"")
    return tmp_path / "dump"


def resynthesise(codec: LoudnessCodec, dump: Path) -> Path:
    exp = dump.parent / "resynthesis"
    write_resynthesis(codec, dump.parent / "weights", dump, CONFIG, exp)
    return exp


def test_natural_recordings(dump: Path, tmp_path: Path) -> None:
    write_natural(dump, CONFIG, tmp_path / "natural")
    for name in ("test", "hard"):
        folder = tmp_path / "natural" / "decode_greedy" / name
        assert read_table(folder / "wav.scp") == read_table(dump / name / "wav.scp")
        assert json.loads((folder / "decode.json").read_text())["truncated"] == []
    assert (tmp_path / "natural" / "reference.json").exists()


def test_natural_tokens(dump: Path) -> None:
    codec = LoudnessCodec()
    exp = resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (9, 9)
    folder = exp / "decode_greedy" / "test"
    tokens, info = read_tokens(folder)
    assert info["fingerprint"] == "loudness"
    speakers = read_table(dump / "test" / "utt2spk")
    train = read_table(dump / "train" / "wav.scp")
    for uid, path in read_table(dump / "test" / "wav.scp").items():
        wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        assert tokens[uid] == codec.encode([wave])[0].tolist()
        theirs = [len(soundfile.read(p)[0]) for u, p in train.items() if u[:2] == speakers[uid]]
        expected = np.repeat(np.array(tokens[uid]) / 100 + np.mean(theirs) / 1e6, 640)
        made, rate = soundfile.read(read_table(folder / "wav.scp")[uid])
        assert rate == RATE
        np.testing.assert_allclose(made, expected, atol=1e-4)
    assert json.loads((folder / "decode.json").read_text())["truncated"] == []
    assert (exp / "reference.json").exists()


def test_what_is_made_is_left(dump: Path) -> None:
    codec = LoudnessCodec()
    exp = resynthesise(codec, dump)
    resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (9, 9)
    (exp / "decode_greedy" / "hard" / "decode.json").unlink()  # cut off after the waves
    resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (9, 9)
    os.utime(dump.parent / "weights", (4e9, 4e9))
    resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (9, 9)
    (dump.parent / "weights").write_bytes(b"another codec")
    os.utime(dump.parent / "weights", (1, 1))
    resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (18, 18)
    keywords = dump / "train" / "utt2keywords"  # any change where the voices come from
    keywords.write_text("s0-train000 ba\n")
    resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (18, 27)


def test_texts_alone_have_no_reference(dump: Path, tmp_path: Path) -> None:
    for name in ("wav.scp", "utt2dur"):
        (dump / "hard" / name).unlink()
    write_natural(dump, CONFIG, tmp_path / "natural")
    codec = LoudnessCodec()
    exp = resynthesise(codec, dump)
    assert (codec.encoded, codec.decoded) == (5, 5)
    for made in (tmp_path / "natural", exp):
        assert [p.name for p in (made / "decode_greedy").iterdir()] == ["test"]
        assert (made / "reference.json").exists()


def test_references_are_scored_where_all_sets_have_recordings(dump: Path, tmp_path, capsys) -> None:
    write_natural(dump, CONFIG, tmp_path / "natural")
    exps = [tmp_path / "sft", tmp_path / "natural"]
    assert scored_together(exps, dump, CONFIG) == exps
    assert capsys.readouterr().out == ""
    for name in ("wav.scp", "utt2dur"):
        (dump / "hard" / name).unlink()
    assert scored_together(exps, dump, CONFIG) == exps[:1]
    told = f"{tmp_path}/natural: left out, for hard has no recordings\n"
    assert capsys.readouterr().out == told
    assert scored_together(exps[:1], dump, CONFIG) == exps[:1]
    assert capsys.readouterr().out == ""
