"""Codecs of transformers behind the same interface: tiny ones with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_config
from tiny_codecs import SIZES, save_pretrained_codec, waves

from audiorl.errors import UserError
from audiorl.models.codec import CodecSettings, PretrainedCodec, codec_info, load_codec, new_codec
from audiorl.models.codec.base import in_voices

# kind: Hz of its audio, tokens a second, codes, codebooks
KINDS = {
    "xcodec2": (16000, 50.0, 16, 1),
    "mimi": (24000, 12.5, 16, 3),
    "dac": (16000, 50.0, 16, 3),
    "neucodec": (16000, 50.0, 16, 1),
}


def pretrained(folder: Path, kind: str) -> PretrainedCodec:
    save_pretrained_codec(folder, kind)
    keys = {**SIZES, "codec.type": kind, "codec.pretrained": str(folder)}
    return new_codec(CodecSettings.of(tiny_config(keys)), [])


@pytest.mark.parametrize("kind", KINDS)
def test_interface(kind: str, tmp_path: Path) -> None:
    codec = pretrained(tmp_path, kind)
    sizes = (codec.sample_rate, codec.token_rate, codec.codebook_size, codec.codebooks)
    assert sizes == KINDS[kind]
    recordings = [wave for wave in waves() if len(wave) > 2000]
    tokens = codec.encode(recordings)
    for wave, row in zip(recordings, tokens, strict=True):
        assert row.dtype == torch.long and row.dim() == 1
        assert len(row) == pytest.approx(len(wave) / codec.sample_rate * codec.token_rate, abs=1.01)
        assert ((row >= 0) & (row < codec.codebook_size)).all()
    assert len(set(torch.cat(tokens).tolist())) > 1
    speakers = codec.speaker(recordings)
    assert speakers.shape == (3, codec.speaker_size) == (3, 0)
    for row, wave in zip(tokens, codec.decode(tokens, in_voices(speakers)), strict=True):
        assert wave.isfinite().all() and wave.abs().max() <= 1
        assert len(wave) == pytest.approx(len(row) / codec.token_rate * codec.output_rate, rel=0.1)
    (nothing,) = codec.decode([torch.zeros(0, dtype=torch.long)], in_voices(speakers[:1]))
    assert len(nothing) == 0


@pytest.mark.parametrize("kind", ["mimi", "dac"])
def test_tokens_are_the_first_codebooks(kind: str, tmp_path: Path) -> None:
    codec = pretrained(tmp_path, kind)
    wave = waves()[0][:19_200]  # whole tokens of both
    with torch.no_grad():
        every = codec.model.encode(wave[None, None]).audio_codes[0]
    assert every.shape[0] == 3
    assert torch.equal(codec.encode([wave])[0], every[0])


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind: str, tmp_path: Path) -> None:
    """Nothing of the original folder is needed later."""
    codec = pretrained(tmp_path / "hub", kind)
    codec.save(tmp_path / "model")
    (tmp_path / "hub").rename(tmp_path / "gone")
    loaded = load_codec(tmp_path / "model")
    assert codec_info(loaded) == codec_info(codec)
    tokens = codec.encode(waves()[:1])
    assert torch.equal(loaded.encode(waves()[:1])[0], tokens[0])
    empty = codec.speaker(waves()[:1])
    assert torch.equal(
        loaded.decode(tokens, in_voices(empty))[0], codec.decode(tokens, in_voices(empty))[0]
    )


def test_another_kind_is_refused(tmp_path: Path) -> None:
    save_pretrained_codec(tmp_path, "dac")
    keys = {**SIZES, "codec.type": "mimi", "codec.pretrained": str(tmp_path)}
    with pytest.raises(UserError, match=r"codec\.pretrained: .* is of type dac, not mimi; set"):
        new_codec(CodecSettings.of(tiny_config(keys)), [])


def test_what_is_no_codec_is_refused(tmp_path: Path) -> None:
    keys = {**SIZES, "codec.type": "dac", "codec.pretrained": str(tmp_path)}
    with pytest.raises(UserError, match=r"codec\.pretrained: .* cannot be loaded") as raised:
        new_codec(CodecSettings.of(tiny_config(keys)), [])
    assert "\n" not in str(raised.value)
