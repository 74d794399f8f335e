"""Tiny random speech encoders as a hub holds them: weights, config and feature extractor."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_whisper import save_whisper
from transformers import AutoConfig, AutoModel, Wav2Vec2FeatureExtractor

WAVE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "conv_dim": [16, 16],
    "conv_stride": [20, 16],
    "conv_kernel": [20, 16],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
# model_type -> its config; a norm over time is where padding would be seen.
ENCODERS = {
    "whisper": {},
    "wav2vec2": {"feat_extract_norm": "group"},
    "hubert": {"feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "wavlm": {"feat_extract_norm": "group"},
}


def save_encoder(folder: Path, kind: str) -> Path:
    """Writes a random encoder of a `model_type` to `folder`."""
    if kind == "whisper":
        return save_whisper(folder)
    torch.manual_seed(3)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **WAVE, **ENCODERS[kind]))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)
    return folder
