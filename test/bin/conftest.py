"""A system of synthesis, for the tests of packing and of using what was packed."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def speaking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe's folder with exp/both, which is a speech LM, exp/codec and dump/{train,test}."""
    from tiny import tiny_tokenizer, write_set
    from tiny_codecs import native_codec
    from tiny_speech import SPEAKERS, tiny_speech_config

    from audiorl.config import dump_config
    from audiorl.models.codec import codec_info
    from audiorl.models.layouts import SpeechFacts
    from audiorl.models.speech_lm import SpeechLM, SpeechLMSettings

    monkeypatch.chdir(tmp_path)
    codec, config = native_codec(), tiny_speech_config({"data.test": ["test"]})
    codec.save(tmp_path / "exp/codec/model")
    facts = SpeechFacts(codec_info(codec), SPEAKERS, {}, 1.5)
    SpeechLM(SpeechLMSettings.of(config, "speech_lm"), tiny_tokenizer(), facts).save(
        tmp_path / "exp/both/model"
    )
    (tmp_path / "exp/both/config.yaml").write_text(dump_config(config))
    write_set(tmp_path / "dump/train", ["ba do ki", "me no pa ri", "ki ba", "do me"])
    write_set(tmp_path / "dump/test", ["do ba", "ri ki me"])
    return tmp_path
