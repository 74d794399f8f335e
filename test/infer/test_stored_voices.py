"""Voices on disk: the same bits again, and errors that name the speaker."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from audiorl.errors import UserError
from audiorl.infer.voices import read_voices, write_voices


def test_the_same_bits_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    voices = {name: torch.randn(7) * 10.0**place for place, name in enumerate(("s0", "s1", "a-2"))}
    write_voices(tmp_path / "spk2vector", voices)
    found = read_voices(tmp_path / "spk2vector", ["s1", "a-2", "s1"])
    assert list(found) == ["a-2", "s1"]
    for name, vector in found.items():
        assert vector.dtype == torch.float32 and torch.equal(vector, voices[name])


def test_tokens_that_carry_the_voice_have_empty_ones(tmp_path: Path) -> None:
    write_voices(tmp_path / "v", {"s0": torch.zeros(0)})
    assert read_voices(tmp_path / "v", ["s0"])["s0"].shape == (0,)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("s0 0.5 1\ns1 0.5 x\n")
    with pytest.raises(UserError, match=r"v has no vector of speaker s2; let one of its speakers"):
        read_voices(tmp_path / "v", ["s0", "s2"])
    with pytest.raises(UserError, match=r"v:2: the vector of s1 is not all numbers; unpack"):
        read_voices(tmp_path / "v", ["s1"])
