"""Speech codecs: from waves to tokens and back, behind one interface (`Codec`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from audiorl.errors import UserError, reason
from audiorl.models import WEIGHTS, load_weights
from audiorl.models.codec.base import Codec, codec_info
from audiorl.models.codec.native import CHARACTERS, NativeCodec
from audiorl.models.codec.pretrained import PretrainedCodec
from audiorl.models.codec.settings import CodecSettings
from audiorl.models.settings import load_settings
from audiorl.text.characters import Characters

__all__ = [
    "Codec",
    "CodecSettings",
    "NativeCodec",
    "PretrainedCodec",
    "codec_info",
    "load_codec",
    "new_codec",
]


def new_codec(settings: CodecSettings, texts: Iterable[str]) -> NativeCodec | PretrainedCodec:
    """Return an untrained codec for the characters of `texts`, or the pretrained one named."""
    if settings.codec.type == "native":
        return NativeCodec(settings, Characters.of(texts))
    return PretrainedCodec(settings, settings.codec.pretrained)


def load_codec(folder: str | Path, device: str = "cpu") -> NativeCodec | PretrainedCodec:
    """Return the codec saved in `folder`, in evaluation mode.

    A codec reads and writes audio at its own `sample_rate`, which is not always the data's.
    Raises UserError if it is not there, not whole, or was written by an older audiorl.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: there is no codec; run the training stage that writes it.")
    settings = load_settings(CodecSettings, folder)
    try:
        if settings.codec.type == "native":
            symbols = json.loads((folder / CHARACTERS).read_text(encoding="utf-8"))
            codec = NativeCodec(settings, Characters(symbols))
        else:
            codec = PretrainedCodec(settings, folder, saved=True)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: the codec is not whole ({reason(error)}); restore the folder or train "
            "again."
        ) from error
    load_weights(codec, folder / WEIGHTS)
    return codec.to(device).eval()
