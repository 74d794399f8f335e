"""Pretrained recognisers, known by the `model_type` of their config.json; no weights are read."""

from __future__ import annotations

import json
import math
import os
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
# s of audio that a family hears at most, where there is a limit.
LONGEST_HEARD = {
    "audio_flamingo3": 600.0,  # 20 windows of 30 s
    "fun_asr_nano": 122.0,  # its encoder has 2048 positions of 60 ms
    "glm_asr": 630.0,  # 21 windows of 30 s
    "qwen2_5_omni": 30.0,  # more is cut
    "qwen2_audio": 30.0,
}
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
TOKENIZERS = {"tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json"}
FEATURES = {"preprocessor_config.json", "processor_config.json"}
POINTER = b"version https://git-lfs"  # in place of a file that Git LFS has not fetched
HEARS = re.compile("audio|mel_bins|speech")  # in the keys of models that hear by themselves


def read_shape(folder: str | Path) -> Shape:
    """Return the config.json of a folder; OSError or ValueError if it has none that is JSON."""
    shape = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    if not isinstance(shape, dict):
        raise ValueError("config.json is not a mapping")
    return shape


def is_hub_name(name: str | Path) -> bool:
    """Whether a name is owner/model, as hubs have them, and neither it nor the owner is a path."""
    owner = os.path.dirname(name)
    known = os.path.exists(name) or not owner or os.path.exists(owner)
    return not known and bool(HUB_NAME.fullmatch(str(name)))


def longest_seconds(shape: Shape) -> float:
    """Return the longest audio in s that a recogniser hears."""
    if shape.get("model_type") == "whisper":
        return shape.get("max_source_positions", 1500) / 50
    return LONGEST_HEARD.get(MODEL_TYPES.get(shape.get("model_type"), ""), math.inf)


def whisper_languages(folder: str | Path) -> list[str]:
    """Return the languages that the Whisper in a folder hears; none where it does not tell."""
    try:
        path = Path(folder) / "generation_config.json"
        known = json.loads(path.read_text(encoding="utf-8"))
        if not known.get("is_multilingual", True):
            return ["en"]
        return [mark.strip("<|>") for mark in known.get("lang_to_id") or ()]
    except (OSError, ValueError, AttributeError):
        return []


def why_unknown(shape: Shape) -> str:
    """Return why a model is no recogniser that is known here; "" if it is."""
    kind = shape.get("model_type") or "model without model_type"
    if kind not in MODEL_TYPES:
        return f"is a {kind}, and known recognisers are {', '.join(MODEL_TYPES)}; take one of these"
    if kind == "qwen3_asr" and "thinker_config" in shape:
        return "is laid out for the package qwen-asr; take the one for transformers, named ...-hf"
    if "quantization_config" in shape:
        return "is quantised, and such weights do not learn; take the model as it was before"
    return ""


def why_no_lm(shape: Shape) -> str:
    """Return why a model cannot be the language model behind an encoder; "" if it can."""
    kind = shape.get("model_type")
    if kind in MODEL_TYPES:
        return f"is a {kind}, which hears by itself; name it in model.pretrained instead"
    if any(map(HEARS.search, shape)):
        return f"is a {kind}, which hears by itself, and not as audiorl knows; take a text LM"
    return ""


def why_no_encoder(shape: Shape) -> str:
    """Return why a model cannot be the encoder before a language model; "" if it can."""
    kind = shape.get("model_type")
    if kind in MODEL_TYPES and kind != "whisper":
        return f"is a {kind}, which writes by itself; name it in model.pretrained instead"
    return ""


def why_unreadable(folder: str | Path) -> str:
    """Return why a folder has no config.json that can be read; "" if it has."""
    try:
        read_shape(folder)
    except OSError:
        if (Path(folder) / "adapter_config.json").is_file():
            return "holds adapters alone; give the model merged with them"
        return "holds no config.json; give a folder with a Hugging Face model"
    except (ValueError, RecursionError):
        return "has a config.json that is broken; fetch the model again"
    return ""


def why_no_features(folder: str | Path) -> str:
    """Return why a folder does not say how audio becomes features; "" if it does."""
    if not any((Path(folder) / name).is_file() for name in FEATURES):
        return "has no preprocessor_config.json, so is no model that hears, or not whole"
    return ""


def why_not_whole(folder: str | Path) -> str:
    """Return which file the folder of a recogniser lacks; "" if none. No weights are read."""
    folder = Path(folder)
    if reason := why_no_features(folder):
        return reason
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return "has no tokenizer.json, or other tokenizer; fetch the model's tokenizer, too"
    weights = {path.name: path for path in folder.glob("*.safetensors")}
    if not weights:
        return "has no weights as safetensors (others may run code when read); fetch those"
    for path in weights.values():
        with open(path, "rb") as stream:
            if stream.read(len(POINTER)) == POINTER:
                return f"has a pointer of Git LFS for {path.name}; run git lfs pull there"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            listed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, TypeError, KeyError, AttributeError):
            return f"has a {index.name} that is broken; fetch it again"
        if lost := sorted(listed - weights.keys()):
            return f"lacks {len(lost)} of {len(listed)} files of weights, {lost[0]} first; fetch it"
    return ""
