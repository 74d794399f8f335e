"""Settings beside the weights of codec, judge and reward model: their own sections alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tiny import tiny_config
from tiny_codecs import native_codec
from tiny_speaker import tiny_recogniser
from tiny_speech import tiny_judge

from audiorl.config import dump_config
from audiorl.errors import UserError
from audiorl.models.codec import load_codec
from audiorl.models.judge import Judge
from audiorl.models.token_recogniser import TokenRecogniser

MAKE = {"codec": native_codec, "judge": tiny_judge, "reward_model": tiny_recogniser}
LOAD: dict[str, Callable] = {
    "codec": load_codec,
    "judge": Judge.load,
    "reward_model": TokenRecogniser.load,
}
SECTIONS = {
    "codec": {"kind", "sample_rate", "seed", "frontend", "codec", "flow"},
    "judge": {"kind", "sample_rate", "frontend", "judge"},
    "reward_model": {"kind", "reward_model"},
}


@pytest.mark.parametrize("kind", MAKE)
def test_own_sections_alone_are_saved(kind: str, tmp_path: Path) -> None:
    model = MAKE[kind]()
    model.save(tmp_path)
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved.keys() == SECTIONS[kind]
    assert saved["kind"] == kind
    assert "schedule:" not in (tmp_path / "config.yaml").read_text()
    assert LOAD[kind](tmp_path).settings == model.settings


@pytest.mark.parametrize("kind", MAKE)
def test_a_folder_of_the_former_layout_is_refused(kind: str, tmp_path: Path) -> None:
    MAKE[kind]().save(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(tiny_config({"task": "tts"})))
    with pytest.raises(UserError) as raised:
        LOAD[kind](tmp_path)
    assert str(raised.value) == (
        f"{path}: was written by an audiorl before 0.2, which kept the whole recipe there; "
        "train it again."
    )


@pytest.mark.parametrize("kind", MAKE)
def test_settings_of_another_kind_are_refused(kind: str, tmp_path: Path) -> None:
    MAKE[kind]().save(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text("kind: other\n")
    with pytest.raises(UserError, match=rf"config.yaml:1: kind: expected one of {kind} \(got"):
        LOAD[kind](tmp_path)
