"""Pretrained recognisers, known by the `model_type` of their config.json; no weights are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Shape = Mapping[str, Any]  # the content of a config.json

# model_type -> module of audiorl.models.families. An Omni is saved whole, or its thinker alone.
MODEL_TYPES = {
    "audioflamingo3": "audio_flamingo3",
    "fun_asr_nano": "fun_asr_nano",
    "glmasr": "glm_asr",
    "granite_speech": "granite_speech",
    "phi4_multimodal": "phi4_multimodal",
    "qwen2_5_omni": "qwen2_5_omni",
    "qwen2_5_omni_thinker": "qwen2_5_omni",
    "qwen2_audio": "qwen2_audio",
    "qwen3_asr": "qwen3_asr",
    "qwen3_omni_moe": "qwen3_omni",
    "qwen3_omni_moe_thinker": "qwen3_omni",
    "voxtral": "voxtral",
    "whisper": "whisper",
}
HEARS = re.compile("audio|mel_bins|speech")  # in the keys of models that hear by themselves


def read_shape(folder: str | Path) -> Shape:
    """Return the config.json of a folder; OSError or ValueError if it has none that is JSON."""
    shape = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if not isinstance(shape, dict):
        raise ValueError("config.json is not a mapping")
    return shape


def why_unknown(shape: Shape) -> str:
    """Return why a model is no recogniser that is known here; "" if it is."""
    kind = shape.get("model_type")
    if kind not in MODEL_TYPES:
        return f"is a {kind}, and known recognisers are {', '.join(MODEL_TYPES)}; take one of these"
    if kind == "qwen3_asr" and "thinker_config" in shape:
        return "is laid out for the package qwen-asr; take the one for transformers, named ...-hf"
    return ""


def why_no_lm(shape: Shape) -> str:
    """Return why a model cannot be the language model behind an encoder; "" if it can."""
    kind = shape.get("model_type")
    if kind in MODEL_TYPES:
        return f"is a {kind}, which hears by itself; name it in model.pretrained instead"
    if any(map(HEARS.search, shape)):
        return f"is a {kind}, which hears by itself, and not as audiorl knows; take a text LM"
    return ""
