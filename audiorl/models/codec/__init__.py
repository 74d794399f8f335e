"""Speech codecs: from waves to tokens and back, behind one interface (`Codec`)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from audiorl.config import load_config
from audiorl.config.schema import Config
from audiorl.errors import UserError, reason
from audiorl.models import WEIGHTS, load_weights
from audiorl.models.codec.base import Codec, codec_info
from audiorl.models.codec.native import CHARACTERS, NativeCodec
from audiorl.models.codec.pretrained import PretrainedCodec
from audiorl.text.characters import Characters

__all__ = ["Codec", "NativeCodec", "PretrainedCodec", "codec_info", "load_codec", "new_codec"]


def new_codec(config: Config, texts: Iterable[str]) -> NativeCodec | PretrainedCodec:
    """An untrained codec for the characters of `texts`, or the pretrained one that is named."""
    if config.codec.type == "native":
        return NativeCodec(config, Characters.of(texts))
    return PretrainedCodec(config, config.codec.pretrained)


def load_codec(folder: str | Path, device: str = "cpu") -> NativeCodec | PretrainedCodec:
    """The codec saved in `folder`, in evaluation mode; UserError if it is not there, or not whole.

    A codec reads and makes audio at its own `sample_rate`, which is not always the data's.
    """
    folder = Path(folder)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: there is no codec; run the training stage that writes it.")
    config = load_config(folder / "config.yaml")
    try:
        if config.codec.type == "native":
            symbols = json.loads((folder / CHARACTERS).read_text(encoding="utf-8"))
            codec = NativeCodec(config, Characters(symbols))
        else:
            codec = PretrainedCodec(config, folder, saved=True)
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder}: the codec is not whole ({reason(error)}); restore the folder or train "
            "again."
        ) from error
    load_weights(codec, folder / WEIGHTS)
    return codec.to(device).eval()
