"""Speech codecs: from waves to tokens and back, behind one interface (`Codec`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from audiorl.config.codec import SERVED
from audiorl.models.codec.base import Codec, codec_info
from audiorl.models.codec.native import CHARACTERS, NativeCodec
from audiorl.models.codec.pretrained import PretrainedCodec
from audiorl.models.codec.served import ServedCodec
from audiorl.models.codec.settings import CodecSettings
from audiorl.models.settings import load_model
from audiorl.text.characters import Characters

__all__ = [
    "AnyCodec",
    "Codec",
    "CodecSettings",
    "NativeCodec",
    "PretrainedCodec",
    "ServedCodec",
    "codec_info",
    "load_codec",
    "new_codec",
]


AnyCodec = NativeCodec | PretrainedCodec | ServedCodec


def new_codec(settings: CodecSettings, texts: Iterable[str]) -> AnyCodec:
    """Return an untrained codec for the characters of `texts`, or the pretrained one named."""
    if settings.codec.type == "native":
        return NativeCodec(settings, Characters.of(texts))
    if settings.codec.type in SERVED:
        return ServedCodec(settings)
    return PretrainedCodec(settings, settings.codec.pretrained)


def load_codec(folder: str | Path, device: str = "cpu") -> AnyCodec:
    """Return the codec saved in `folder`, in evaluation mode; UserErrors of `load_model`.

    A codec reads and writes audio at its own `sample_rate`, which is not always the data's.
    """
    folder = Path(folder)

    def build(settings: CodecSettings) -> AnyCodec:
        if settings.codec.type in SERVED:
            return ServedCodec(settings, saved=True)
        if settings.codec.type != "native":
            return PretrainedCodec(settings, folder, saved=True)
        symbols = json.loads((folder / CHARACTERS).read_text(encoding="utf-8"))
        return NativeCodec(settings, Characters(symbols))

    return load_model(folder, "codec", CodecSettings, build, device)
